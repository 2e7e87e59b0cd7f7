/* common.h: what the examples' main() functions share, so that each example can be about asyncore alone: options,
 * the loop with its signals, and the line on stderr when something is wrong. */
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

/* And for their help, which begins and ends alike. */
#define EXAMPLE_SERVER_HELP(port) \
    "  -l, --address ADDRESS  listen on this address (default 127.0.0.1)\n" \
    "  -p, --port PORT        and this port (default " port "; 0: one that is free)\n"
#define EXAMPLE_HELP_END \
    "  -h, --help             show this\n" \
    "SIGINT and SIGTERM end it.\n"

/* The next option that is the program's own, its value in optarg, or -1 after the last. -h, -l and -p are seen to
 * here. What does not parse ends the program as example_usage() does. */
int example_option(struct example *e, int argc, char **argv);

/* "NAME: what: which" on stderr; exit 2 for usage. */
_Noreturn void example_usage(const struct example *e, const char *what, const char *which);
void example_error(const struct example *e, const char *what, const char *which);

/* A map that logs to stderr and whose loop SIGINT and SIGTERM stop; SIGPIPE is ignored. NULL: said why. */
struct asyncore_map *example_map(const struct example *e);

/* Frees the map. */
void example_end(struct asyncore_map *map);

/* Prints where a server listens (`error` as its start returned it), serves until a signal comes, frees the map, and
 * returns main's result. */
int example_serve(const struct example *e, struct asyncore_map *map, struct asyncore_dispatcher *server, int error);

/* A decimal number of digits alone, no larger than max. */
bool example_number(const char *text, size_t max, size_t *number);

#endif
