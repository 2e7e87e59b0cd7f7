/* common.c: see common.h. Nothing here is asyncore's model; example_map() and example_serve() show how a program sets
 * up a map: a log function, the signals as channels in the background, and the map freed at the end, which closes what
 * is still open. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void example_error(const struct example *e, const char *what, const char *which)
{
    fprintf(stderr, "%s: %s: %s\n", e->name, what, which);
}

_Noreturn void example_usage(const struct example *e, const char *what, const char *which)
{
    example_error(e, what, which);
    exit(2);
}

/* Writes what stdout holds. A line that nobody can get is a failure like any other. */
static bool flush_stdout(const struct example *e)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    example_error(e, "standard output", strerror(errno));
    return false;
}

/* getopt's option string, from the table of long options. */
static void short_options(const struct option *options, char *letters)
{
    *letters++ = ':';
    for (; options->name; options++) {
        *letters++ = (char)options->val;
        if (options->has_arg == required_argument)
            *letters++ = ':';
    }
    *letters = '\0';
}

static _Noreturn void bad_option(const struct example *e, int result, const char *letters, char **argv)
{
    char letter[3] = {'-', (char)optopt, '\0'};
    /* getopt says nothing about which argument it was: an unknown letter is in optopt, all else came whole. */
    bool is_letter = result == '?' && optopt && (optopt == ':' || !strchr(letters, optopt));
    const char *what = result == ':' ? "this option needs a value" : "unknown option";

    example_usage(e, what, is_letter ? letter : argv[optind - 1]);
}

static void check_operands(const struct example *e, int argc, char **argv)
{
    int wanted = e->operand ? 1 : 0;

    if (argc - optind > wanted)
        example_usage(e, "unexpected argument", argv[optind + wanted]);
    if (argc - optind < wanted)
        example_usage(e, "missing argument", e->operand);
}

int example_option(struct example *e, int argc, char **argv)
{
    char letters[64];
    size_t number;
    int letter;

    short_options(e->options, letters);
    opterr = 0;
    while ((letter = getopt_long(argc, argv, letters, e->options, NULL)) != -1) {
        if (letter == 'h') {
            printf("usage: %s %s", e->name, e->help);
            exit(flush_stdout(e) ? 0 : 1);
        } else if (letter == 'l') {
            e->address = optarg;
        } else if (letter == 'p') {
            if (!example_number(optarg, 65535, &number))
                example_usage(e, "not a port (0 to 65535)", optarg);
            e->port = optarg;
        } else if (letter == '?' || letter == ':') {
            bad_option(e, letter, letters, argv);
        } else {
            return letter;
        }
    }
    check_operands(e, argc, argv);
    return -1;
}

static void on_signal(struct asyncore_signal *signal, int number, void *map)
{
    (void)signal, (void)number;
    asyncore_stop(map);
}

/* The signals' channels serve the loop, and should not keep it running: they are in the background. */
static int stop_on(struct asyncore_map *map, int number, struct asyncore_signal *signal)
{
    int error = asyncore_signal_init(signal, map, number, on_signal, map);

    if (!error)
        asyncore_set_background(&signal->base, 1);
    return error;
}

struct asyncore_map *example_map(const struct example *e)
{
    static struct asyncore_signal interrupt, terminate;
    struct asyncore_map *map = NULL;
    int error, fd;

    /* A closed standard descriptor stays unusable: no socket may take its number, to be written to by a printf. */
    for (fd = 0, error = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) < 0)
            error = -errno;
    signal(SIGPIPE, SIG_IGN);
    if (!error)
        error = asyncore_map_new(&map, NULL);
    if (!error)
        error = asyncore_set_log(map, asyncore_log_stderr, NULL);
    if (!error)
        error = stop_on(map, SIGINT, &interrupt);
    if (!error)
        error = stop_on(map, SIGTERM, &terminate);
    if (!error)
        return map;
    example_error(e, "cannot make a map", asyncore_strerror(error));
    if (map)
        asyncore_map_free(map);
    return NULL;
}

static bool print_listening(const struct example *e, struct asyncore_dispatcher *server)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char text[128] = "?";

    if (asyncore_sockname(server, &address, &length) == 0)
        asyncore_address_text((struct sockaddr *)&address, length, text, sizeof text);
    printf("%s: listening on %s\n", e->name, text);
    return flush_stdout(e);
}

void example_end(struct asyncore_map *map)
{
    /* The channels of the signals go with the map, and a second ^C should not kill what is already ending. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    asyncore_map_free(map);
}

int example_serve(const struct example *e, struct asyncore_map *map, struct asyncore_dispatcher *server, int error)
{
    bool bound = error == 0, stopped = false;

    if (!bound) {
        fprintf(stderr, "%s: cannot listen on %s port %s: %s\n", e->name, e->address, e->port,
                asyncore_strerror(error));
    } else if (print_listening(e, server)) {
        error = asyncore_loop(map, -1, 0);
        stopped = error == 1;
        if (error < 0)
            example_error(e, "the loop failed", asyncore_strerror(error));
    }
    example_end(map);
    if (bound && strncmp(e->address, "unix:", 5) == 0 && e->address[5] != '@')
        unlink(e->address + 5);
    return stopped ? 0 : 1;
}

bool example_number(const char *text, size_t max, size_t *number)
{
    size_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        size_t digit = (size_t)(*text - '0');
        if (*text < '0' || *text > '9' || n > (max - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *number = n;
    return true;
}
