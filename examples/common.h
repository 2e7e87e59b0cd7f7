/* common.h: what the examples' main() functions share, so that each example can be about asyncore alone: options,
 * the loop with its signals, the line on stderr when something is wrong, and a few pieces of HTTP's text. */
#ifndef COMMON_H
#define COMMON_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include <asyncore.h>

struct example {
    const char *name;             /* begins every line on stderr */
    const char *help;             /* what --help says after "usage: NAME " */
    const struct option *options; /* its long options; `val` is the short one */
    const char *operand;          /* what its one argument is called, or NULL if it takes none */
    const char *address, *port;   /* defaults, then what -l and -p said */
};

/* For the servers' option tables. */
#define EXAMPLE_HELP {"help", no_argument, NULL, 'h'}
#define EXAMPLE_ADDRESS {"address", required_argument, NULL, 'l'}
#define EXAMPLE_PORT {"port", required_argument, NULL, 'p'}

/* The next option that is the program's own, its value in optarg, or -1 after the last. -h, -l and -p are seen to
 * here. What does not parse ends the program as example_usage() does. */
int example_option(struct example *e, int argc, char **argv);

/* "NAME: what: which" on stderr; exit 2 for usage. */
_Noreturn void example_usage(const struct example *e, const char *what, const char *which);
void example_error(const struct example *e, const char *what, const char *which);

/* A map that logs to stderr and whose loop SIGINT and SIGTERM stop; SIGPIPE is ignored. NULL: said why. */
struct asyncore_map *example_map(const struct example *e);

/* Prints where a server listens (`error` as its start returned it), serves until a signal comes, frees the map, and
 * returns main's result. */
int example_serve(const struct example *e, struct asyncore_map *map, struct asyncore_dispatcher *server, int error);

/* A decimal number of digits alone, no larger than max. */
bool example_number(const char *text, size_t max, size_t *number);

/* A line of an HTTP head, gathered from the pieces that it comes in. add: false when it is too long. end: the text
 * without its last CR, NULL when there is a NUL or another CR in it; the next line begins. */
struct http_line {
    size_t used;
    char text[8192];
};
bool http_line_add(struct http_line *line, const void *data, size_t n);
char *http_line_end(struct http_line *line);

/* Cuts "Name: value" in two, blanks around the value gone. NULL: no header. */
char *http_value(char *line);

/* Whether a comma-separated list has this token, in any case. */
bool http_has_token(const char *list, const char *token);

#endif
