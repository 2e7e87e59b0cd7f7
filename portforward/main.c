/* portforward: listens on one address and forwards every connection to another. This file reads the command line and
 * runs one forwarder (forward.h) until a signal comes.
 *
 * Exit status: 0 stopped by a signal, 1 failed, 2 the command line is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forward.h"

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: portforward [-l LOCAL_IP] [-p LOCAL_PORT] -r REMOTE_IP [-P REMOTE_PORT]\n"
    "\n"
    "Listens on one address and forwards every TCP connection to another: bytes, ends of\n"
    "streams and resets, both ways.\n"
    "\n"
    "  -l, --local-ip LOCAL_IP        address or name to listen on (127.0.0.1)\n"
    "  -p, --local-port LOCAL_PORT    port to listen on (80); 0 picks a free one\n"
    "  -r, --remote-ip REMOTE_IP      address or name to forward to\n"
    "  -P, --remote-port REMOTE_PORT  port to forward to (80)\n"
    "  -h, --help                     shows this\n"
    "  -V, --version                  shows the version\n"
    "\n"
    "SIGINT and SIGTERM stop it.\n";

/* A line that nobody can get is a failure like any other. */
static bool flush_stdout(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    fprintf(stderr, "portforward: standard output: %s\n", strerror(errno));
    return false;
}

static void exit_flushed(void)
{
    exit(flush_stdout() ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void usage_error(const char *what, const char *which)
{
    fprintf(stderr, "portforward: %s: %s (--help tells more)\n", what, which);
    exit(EXIT_USAGE);
}

static const char *checked_port(const char *text, unsigned long lowest, const char *option)
{
    size_t digits = strspn(text, "0123456789");
    unsigned long port = strtoul(text, NULL, 10);

    if (digits == 0 || text[digits] || port < lowest || port > 65535) {
        fprintf(stderr, "portforward: %s: not a port from %lu to 65535: %s\n", option, lowest, text);
        exit(EXIT_USAGE);
    }
    return text;
}

static const char *checked_host(const char *text, const char *option)
{
    if (!*text)
        usage_error("address is empty", option);
    if (strncmp(text, "unix:", 5) == 0)
        usage_error("not an IP address or a name", text);
    return text;
}

/* getopt says nothing about which argument it was: a letter that is none of ours is in optopt, all else came whole. */
static void option_error(char **argv, int option)
{
    char letter[3] = {'-', (char)optopt, 0};
    const char *word = argv[optind - 1];

    if (option == ':')
        usage_error("option needs an argument", word);
    usage_error("unknown or wrong option", optopt && !strchr("lprPhV", optopt) ? letter : word);
}

static void parse(int argc, char **argv, struct forward_options *options)
{
    static const struct option names[] = {
        {"local-ip", required_argument, NULL, 'l'},  {"local-port", required_argument, NULL, 'p'},
        {"remote-ip", required_argument, NULL, 'r'}, {"remote-port", required_argument, NULL, 'P'},
        {"help", no_argument, NULL, 'h'},            {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, ":l:p:r:P:hV", names, NULL)) != -1) {
        switch (option) {
        case 'l': options->local_host = checked_host(optarg, "--local-ip"); break;
        case 'p': options->local_port = checked_port(optarg, 0, "--local-port"); break;
        case 'r': options->remote_host = checked_host(optarg, "--remote-ip"); break;
        case 'P': options->remote_port = checked_port(optarg, 1, "--remote-port"); break;
        case 'h': fputs(usage, stdout); exit_flushed(); break;
        case 'V': printf("portforward %s\n", asyncore_version()); exit_flushed(); break;
        default: option_error(argv, option);
        }
    }
    if (optind < argc)
        usage_error("unexpected argument", argv[optind]);
    if (!options->remote_host)
        usage_error("option is missing", "--remote-ip");
}

static void log_line(void *arg, const char *type, const char *message)
{
    (void)arg;
    (void)type;
    fprintf(stderr, "portforward: %s\n", message);
}

static void stop(struct asyncore_signal *signal, int number, void *arg)
{
    (void)signal;
    (void)number;
    asyncore_stop(arg);
}

static bool announce(const struct forward *forward)
{
    const char *host = forward->options.remote_host;
    char local[128] = "?";
    int colon = strchr(host, ':') != NULL;

    forward_address(forward, local, sizeof(local));
    printf("portforward: listening on %s, forwarding to %s%s%s:%s\n", local, colon ? "[" : "", host, colon ? "]" : "",
           forward->options.remote_port);
    return flush_stdout();
}

static bool serve(struct asyncore_map *map, const struct forward_options *options)
{
    struct forward forward;
    bool served = false;
    int r = forward_start(&forward, map, options);

    if (r < 0) {
        fprintf(stderr, "portforward: cannot listen on %s port %s: %s\n", options->local_host, options->local_port,
                asyncore_strerror(r));
        return false;
    }
    if (announce(&forward)) {
        r = asyncore_loop(map, -1, 0);
        served = r >= 0;
        if (r < 0)
            fprintf(stderr, "portforward: the loop failed: %s\n", asyncore_strerror(r));
    }
    forward_stop(&forward);
    return served;
}

/* A standard descriptor that is closed must not become a socket's, for a line of text to be sent to. What takes its
 * place can be neither read nor written. */
static void fill_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_PATH);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct forward_options options = {.local_host = "127.0.0.1", .local_port = "80", .remote_port = "80"};
    struct asyncore_signal interrupt, terminate;
    struct asyncore_map *map;
    bool served = false;
    int r;

    fill_standard_descriptors();
    parse(argc, argv, &options);
    signal(SIGPIPE, SIG_IGN);
    r = asyncore_map_new(&map, NULL);
    if (r < 0) {
        fprintf(stderr, "portforward: cannot make a map: %s\n", asyncore_strerror(r));
        return EXIT_FAILURE;
    }
    asyncore_set_log(map, log_line, NULL);
    if ((r = asyncore_signal_init(&interrupt, map, SIGINT, stop, map)) < 0 ||
        (r = asyncore_signal_init(&terminate, map, SIGTERM, stop, map)) < 0)
        fprintf(stderr, "portforward: cannot wait for signals: %s\n", asyncore_strerror(r));
    else
        served = serve(map, &options);
    asyncore_map_free(map);
    return served ? EXIT_SUCCESS : EXIT_FAILURE;
}
