/* options.h: the command line. */
#ifndef PORTFORWARD_OPTIONS_H
#define PORTFORWARD_OPTIONS_H

#include "config.h"
#include "log.h"

enum { EXIT_USAGE = 2 };

struct options {
    const char *config_file; /* NULL: the rules are those of the command line */
    char **rules;            /* RULE arguments */
    unsigned rule_count;
    const char *local_host, *local_port, *remote_host, *remote_port; /* the one-rule form; remote_host NULL: not used */
    struct rule_options defaults;
    struct log_options log; /* file NULL: not said */
    const char *pid_file;   /* NULL: not said */
    unsigned drain;         /* ms */
    bool check;
    const char *name_servers; /* of the environment; NULL: the system's */
};

/* Ends the program when there is no more to do (--help), or tells what is wrong and exits with EXIT_USAGE. */
void options_parse(int argc, char **argv, struct options *options);

/* What was printed has arrived, or it is told why not. */
bool flush_stdout(void);

#endif
