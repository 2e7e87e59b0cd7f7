/* portforward: listens, and forwards every connection to a remote. This file reads the command line and the file of
 * rules, runs the service (service.h), and does what signals say.
 *
 *     HUP   reads the rules again       USR1  opens the log again      USR2  logs all connections
 *     TERM  drains, twice: stops        INT   stops
 *
 * Exit status: 0 stopped by a signal, 1 failed, 2 the command line is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "check.h"
#include "notify.h"
#include "options.h"
#include "service.h"

enum { TABLE_MAX = 10000 }; /* lines that SIGUSR2 logs */

struct program {
    struct options options;
    struct asyncore_map *map;
    struct log *log; /* NULL until it is open */
    struct service *service;
    struct asyncore_signal signals[5];
    unsigned signal_count;
    char *log_file, *pid_file; /* what the file of rules said at last; NULL: nothing */
    bool started;              /* new listeners are told in the log, no longer on stdout */
    bool stopping;
    unsigned table_lines;
};

/* -- Configuration -- */

static void fault(void *arg, const char *message)
{
    struct program *program = arg;

    log_event(program->log, LOG_PRIORITY_ERROR, "%s", message);
}

/* What the command line and the file say at this moment. 0, or -1 after the faults were told. */
static int load(struct program *program, struct config *config)
{
    const struct options *options = &program->options;
    int r = 0;

    config_init(config, &options->defaults, fault, program);
    if (options->remote_host)
        r |= config_rule(config, "command line", options->local_host, options->local_port, options->remote_host,
                         options->remote_port);
    for (unsigned i = 0; i < options->rule_count; i++)
        r |= config_line(config, options->rules[i], options->rules[i]);
    if (options->config_file)
        r |= config_read(config, options->config_file);
    if (r == 0 && config->rule_count == 0) {
        log_event(program->log, LOG_PRIORITY_ERROR, "%s: no rule",
                  options->config_file ? options->config_file : "command line");
        r = -1;
    }
    return r;
}

/* The command line's log goes before the file's. */
static int open_log(struct program *program, const struct config *config)
{
    struct log_options options = program->options.log;
    int r;

    if (!options.file)
        options.file = config->log_file;
    r = log_open(&program->log, program->map, &options);
    if (r < 0)
        fprintf(stderr, "portforward: %s: %s\n", options.file, asyncore_strerror(r));
    return r;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void change_log(struct program *program, struct config *config)
{
    if (program->options.log.file || same_text(program->log_file, config->log_file))
        return;
    if (log_reopen(program->log, config->log_file ? config->log_file : "stderr") < 0)
        return;
    free(program->log_file);
    program->log_file = config->log_file;
    config->log_file = NULL;
}

static void reload(struct program *program)
{
    struct config config;

    notify_reloading();
    if (load(program, &config) == 0 && service_apply(program->service, &config) == 0) {
        change_log(program, &config);
        log_event(program->log, LOG_PRIORITY_NOTICE, "reloaded: %u rules", config.rule_count);
    } else {
        log_event(program->log, LOG_PRIORITY_ERROR, "not reloaded: the old rules stay");
    }
    config_free(&config);
    notify_send("READY=1");
}

/* -- Signals -- */

static void event_line(void *arg, const char *text)
{
    struct program *program = arg;

    log_event(program->log, LOG_PRIORITY_INFO, "%s", text);
}

static void table_line(void *arg, const char *text)
{
    struct program *program = arg;

    if (program->table_lines++ < TABLE_MAX)
        event_line(program, text);
}

static void table(struct program *program)
{
    program->table_lines = 0;
    service_announce(program->service, event_line, program);
    service_table(program->service, table_line, program);
    log_event(program->log, LOG_PRIORITY_INFO, "%u connections%s", service_connections(program->service),
              program->table_lines > TABLE_MAX ? ", not all of them are shown" : "");
}

static void drain(struct program *program)
{
    unsigned count = service_connections(program->service);

    notify_send("STOPPING=1");
    if (!program->stopping && count > 0)
        log_event(program->log, LOG_PRIORITY_NOTICE, "stopping: %u connections may go on for %u s", count,
                  program->options.drain / 1000);
    program->stopping = true;
    service_drain(program->service, program->options.drain);
}

static void signalled(struct asyncore_signal *signal, int number, void *arg)
{
    struct program *program = arg;

    (void)signal;
    switch (number) {
    case SIGHUP:
        if (!program->stopping)
            reload(program);
        break;
    case SIGUSR1: log_reopen(program->log, NULL); break;
    case SIGUSR2: table(program); break;
    case SIGTERM: drain(program); break;
    default: notify_send("STOPPING=1"); asyncore_stop(program->map);
    }
}

static int wait_for_signals(struct program *program)
{
    static const int numbers[] = {SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGINT};

    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        int r = asyncore_signal_init(&program->signals[i], program->map, numbers[i], signalled, program);

        if (r < 0) {
            log_event(program->log, LOG_PRIORITY_ERROR, "cannot wait for signals: %s", asyncore_strerror(r));
            return r;
        }
        program->signal_count++;
    }
    return 0;
}

/* -- Running -- */

static void listening(void *arg, const char *text)
{
    struct program *program = arg;

    if (program->started)
        event_line(program, text);
    else
        printf("portforward: %s\n", text);
}

static void drained(void *arg)
{
    struct program *program = arg;

    asyncore_stop(program->map);
}

static void library_line(void *arg, const char *type, const char *message)
{
    struct program *program = arg;
    bool bad = strcmp(type, "error") == 0 || strcmp(type, "warning") == 0;

    log_event(program->log, bad ? LOG_PRIORITY_WARNING : LOG_PRIORITY_INFO, "%s", message);
}

static void unused_socket(void *arg, const char *address)
{
    struct program *program = arg;

    log_event(program->log, LOG_PRIORITY_WARNING, "%s: the service manager listens there, and no rule does", address);
}

static bool write_pid(struct program *program, struct config *config)
{
    const char *file = program->options.pid_file ? program->options.pid_file : config->pid_file;
    FILE *f = file ? fopen(file, "we") : NULL;
    bool written;

    if (!file)
        return true;
    written = f && fprintf(f, "%ld\n", (long)getpid()) > 0;
    if ((f && fclose(f) != 0) || !written) {
        log_event(program->log, LOG_PRIORITY_ERROR, "%s: %s", file, strerror(errno));
        return false;
    }
    program->pid_file = strdup(file);
    return true;
}

static bool start(struct program *program, struct config *config)
{
    const struct service_options options = {
        .log = program->log, .listening = listening, .drained = drained, .arg = program};
    int r = service_new(&program->service, program->map, &options);

    if (r < 0) {
        log_event(program->log, LOG_PRIORITY_ERROR, "%s", asyncore_strerror(r));
        return false;
    }
    if (service_apply(program->service, config) < 0)
        return false;
    notify_close_unused(unused_socket, program);
    if (!write_pid(program, config) || !flush_stdout())
        return false;
    program->started = true;
    program->log_file = config->log_file;
    config->log_file = NULL;
    return true;
}

static bool serve(struct program *program)
{
    int r;

    notify_send("READY=1");
    r = asyncore_loop(program->map, -1, 0);
    if (r < 0)
        log_event(program->log, LOG_PRIORITY_ERROR, "the loop failed: %s", asyncore_strerror(r));
    return r >= 0;
}

static bool run(struct program *program, struct config *config)
{
    const struct asyncore_map_options options = {.name_servers = program->options.name_servers};
    bool served = false;
    int r = asyncore_map_new(&program->map, &options);

    if (r < 0) {
        fprintf(stderr, "portforward: cannot make a map: %s\n", asyncore_strerror(r));
        return false;
    }
    if (open_log(program, config) == 0) {
        asyncore_set_log(program->map, library_line, program);
        served = wait_for_signals(program) == 0 && start(program, config) && serve(program);
        service_free(program->service);
        if (program->pid_file)
            unlink(program->pid_file);
        asyncore_set_log(program->map, NULL, NULL);
        log_close(program->log);
    }
    for (unsigned i = 0; i < program->signal_count; i++)
        asyncore_fini(&program->signals[i].base);
    asyncore_map_free(program->map);
    free(program->log_file);
    free(program->pid_file);
    return served;
}

/* -- The process -- */

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

/* As many descriptors as the system lets us have, and select(2) can wait for; and buffers of many pages go back to it
 * when they are freed, which malloc would not do once it has seen a few. */
static void set_limits(void)
{
    const char *engine = getenv("ASYNCORE_ENGINE");
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        if (engine && strcmp(engine, "select") == 0 && limit.rlim_cur > FD_SETSIZE)
            limit.rlim_cur = FD_SETSIZE;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
}

int main(int argc, char **argv)
{
    struct program program = {0};
    struct config config;
    int status;

    fill_standard_descriptors();
    options_parse(argc, argv, &program.options);
    notify_listen_fds();
    set_limits();
    if (load(&program, &config) < 0) {
        status = program.options.config_file || program.options.check ? EXIT_FAILURE : EXIT_USAGE;
    } else if (program.options.check) {
        check_print(&config);
        status = flush_stdout() ? EXIT_SUCCESS : EXIT_FAILURE;
    } else {
        status = run(&program, &config) ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    config_free(&config);
    return status;
}
