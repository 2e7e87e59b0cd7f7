/* options.c: getopt_long(3), and what it does not say: which argument was wrong. The options of rules are those that
 * config.h knows by name. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: portforward [OPTION]... RULE...\n"
    "       portforward [OPTION]... -c FILE [--check]\n"
    "       portforward [OPTION]... -r REMOTE_IP [-l LOCAL_IP] [-p LOCAL_PORT] [-P REMOTE_PORT]\n"
    "\n"
    "Listens, and forwards every TCP connection to a remote: bytes, ends of streams and resets,\n"
    "both ways. A RULE is 'BIND PORT REMOTE[,REMOTE]... PORT [NAME=VALUE,...]', as in a FILE:\n"
    "    portforward '0.0.0.0 8080 10.0.0.5 80' '* 443 a.example,b.example 8443 [idle=10m]'\n"
    "\n"
    "  -l, --local-ip LOCAL_IP        address or name to listen on (127.0.0.1)\n"
    "  -p, --local-port LOCAL_PORT    port to listen on (80); 0 picks a free one\n"
    "  -r, --remote-ip REMOTE_IP      address or name to forward to\n"
    "  -P, --remote-port REMOTE_PORT  port to forward to (80)\n"
    "  -c, --config FILE              rules are in FILE: portforward.conf(5)\n"
    "      --check                    shows what would run, and what is wrong\n"
    "      --log stderr|FILE          where a line a connection goes (stderr)\n"
    "      --log-format text|json     (text)\n"
    "      --log-start                a line at a connection's start as well\n"
    "      --pid-file FILE            where the process id is written to\n"
    "      --drain TIME               how long SIGTERM lets connections end (30s)\n"
    "  -h, --help                     shows this\n"
    "  -V, --version                  shows the version\n"
    "\n"
    "Defaults of all rules, by the names that the options have in a FILE:\n"
    "      --connect 10s  --idle 1h  --half 60s  --life none  --keepalive 60/10/5  --src ADDRESS\n"
    "      --max N  --max-per-source N  --rate N  --full pause|refuse  --backlog 4096\n"
    "      --data-path auto|copy|splice  --mode 0660  --name NAME\n"
    "\n"
    "SIGHUP reads FILE again, SIGUSR1 opens the log again, SIGUSR2 logs all connections, SIGTERM\n"
    "ends when they have ended (again: at once), SIGINT ends at once.\n";

enum { RULE_OPTIONS_MAX = 32 };

/* What has no letter. */
enum long_option {
    OPTION_CHECK = 256,
    OPTION_LOG,
    OPTION_LOG_FORMAT,
    OPTION_LOG_START,
    OPTION_PID_FILE,
    OPTION_DRAIN,
    OPTION_OF_RULES /* and on: the options of rules */
};

static const struct option names[] = {
    {"local-ip", required_argument, NULL, 'l'},
    {"local-port", required_argument, NULL, 'p'},
    {"remote-ip", required_argument, NULL, 'r'},
    {"remote-port", required_argument, NULL, 'P'},
    {"config", required_argument, NULL, 'c'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"log", required_argument, NULL, OPTION_LOG},
    {"log-format", required_argument, NULL, OPTION_LOG_FORMAT},
    {"log-start", no_argument, NULL, OPTION_LOG_START},
    {"pid-file", required_argument, NULL, OPTION_PID_FILE},
    {"drain", required_argument, NULL, OPTION_DRAIN},
};

enum { NAMES = sizeof(names) / sizeof(*names) };

bool flush_stdout(void)
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

static const char *checked_file(const char *text, const char *option)
{
    if (!*text)
        usage_error("name of a file is empty", option);
    return text;
}

static void set_rule_option(struct rule_options *options, const char *name, const char *value)
{
    const char *reason = rule_option_set(options, name, value);

    if (!reason)
        return;
    fprintf(stderr, "portforward: --%s: %s: %s (--help tells more)\n", name, reason, value);
    exit(EXIT_USAGE);
}

/* Times are read by the one who reads those of rules; but nothing is waited for without end. */
static unsigned checked_time(const char *text, const char *option)
{
    struct rule_options options = rule_defaults;
    const char *reason = rule_option_set(&options, "life", text);

    if (!reason && options.life == 0 && *text != '0')
        reason = "not a duration (500ms, 10s, 5m, 1h, 1d; 30d at most; 0: at once)";
    if (reason) {
        fprintf(stderr, "portforward: %s: %s: %s (--help tells more)\n", option, reason, text);
        exit(EXIT_USAGE);
    }
    return options.life;
}

static bool checked_json(const char *text)
{
    if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0)
        usage_error("--log-format: not text or json", text);
    return *text == 'j';
}

/* getopt says nothing about which argument it was: a letter that is none of ours is in optopt, all else came whole. */
static void option_error(char **argv, int option)
{
    char letter[3] = {'-', (char)optopt, 0};
    const char *word = argv[optind - 1];

    if (option == ':')
        usage_error("option needs an argument", word);
    usage_error("unknown or wrong option",
                optopt && optopt < OPTION_CHECK && !strchr("lprPchV", optopt) ? letter : word);
}

static void take_option(struct options *options, char **argv, int option)
{
    switch (option) {
    case 'l': options->local_host = checked_host(optarg, "--local-ip"); break;
    case 'p': options->local_port = checked_port(optarg, 0, "--local-port"); break;
    case 'r': options->remote_host = checked_host(optarg, "--remote-ip"); break;
    case 'P': options->remote_port = checked_port(optarg, 1, "--remote-port"); break;
    case 'c': options->config_file = checked_file(optarg, "--config"); break;
    case 'h': fputs(usage, stdout); exit_flushed(); break;
    case 'V': printf("portforward %s\n", asyncore_version()); exit_flushed(); break;
    case OPTION_CHECK: options->check = true; break;
    case OPTION_LOG: options->log.file = checked_file(optarg, "--log"); break;
    case OPTION_LOG_FORMAT: options->log.json = checked_json(optarg); break;
    case OPTION_LOG_START: options->log.starts = true; break;
    case OPTION_PID_FILE: options->pid_file = checked_file(optarg, "--pid-file"); break;
    case OPTION_DRAIN: options->drain = checked_time(optarg, "--drain"); break;
    case ':':
    case '?': option_error(argv, option); break;
    default: set_rule_option(&options->defaults, rule_option_name((unsigned)(option - OPTION_OF_RULES)), optarg);
    }
}

/* "192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]:53". Takes the text apart. */
static bool is_name_server(char *text)
{
    struct sockaddr_storage address;
    socklen_t length;
    char *port = *text == '[' ? strchr(text, ']') : strchr(text, ':');

    if (*text == '[') {
        if (!port || (port[1] && port[1] != ':'))
            return false;
        *port++ = '\0';
        text++;
    } else if (port && strchr(port + 1, ':')) {
        port = NULL; /* that was an address's */
    }
    if (port && *port)
        *port++ = '\0';
    return *text && strcmp(text, "*") != 0 && strncmp(text, "unix:", 5) != 0 &&
           asyncore_parse_address(text, port && *port ? port : "53", &address, &length) == 0;
}

static const char *checked_name_servers(const char *list)
{
    char copy[1024], *rest = copy, *server;

    if (!list || !*list)
        return NULL;
    if ((size_t)snprintf(copy, sizeof(copy), "%s", list) >= sizeof(copy))
        usage_error("PORTFORWARD_NAMESERVERS", "longer than 1023 bytes");
    while ((server = strsep(&rest, ",")) != NULL) {
        if (!is_name_server(server))
            usage_error("PORTFORWARD_NAMESERVERS: not a list of addresses", list);
    }
    return list;
}

static void check_rules(const struct options *options)
{
    bool parts = options->local_host || options->local_port || options->remote_port;

    if (parts && !options->remote_host)
        usage_error("option is missing", "--remote-ip");
    if (options->config_file && (options->remote_host || options->rule_count > 0))
        usage_error("rules come from the command line or from a file, not from both", options->config_file);
    if (!options->config_file && !options->remote_host && options->rule_count == 0)
        usage_error("no rule", "a RULE, --remote-ip or --config is missing");
}

void options_parse(int argc, char **argv, struct options *options)
{
    struct option all[NAMES + RULE_OPTIONS_MAX + 1] = {0};
    const char *name;
    int option;

    memcpy(all, names, sizeof(names));
    for (unsigned i = 0; i < RULE_OPTIONS_MAX && (name = rule_option_name(i)); i++)
        all[NAMES + i] = (struct option){name, required_argument, NULL, OPTION_OF_RULES + (int)i};
    *options = (struct options){.defaults = rule_defaults, .drain = 30 * 1000};
    while ((option = getopt_long(argc, argv, ":l:p:r:P:c:hV", all, NULL)) != -1)
        take_option(options, argv, option);
    options->rules = argv + optind;
    options->rule_count = (unsigned)(argc - optind);
    check_rules(options);
    options->name_servers = checked_name_servers(getenv("PORTFORWARD_NAMESERVERS"));
    if (!options->local_host)
        options->local_host = "127.0.0.1";
    if (!options->local_port)
        options->local_port = "80";
    if (!options->remote_port)
        options->remote_port = "80";
}
