/* config.h: what is to be forwarded, as the command line and the rule file say it. Text in, structs out: nothing here
 * opens a socket or looks a name up.
 *
 *     rule    BIND PORT[/tcp] REMOTE{,REMOTE} PORT[/tcp] [ "[" NAME=VALUE {,NAME=VALUE} "]" ]
 *     access  allow|deny PATTERN           before the first rule: of all rules; after one: of that rule
 *     others  default "[" ... "]" | include GLOB | logfile FILE | pidlogfile FILE | # comment
 *
 * `default` is for the rules below it; a file's defaults end with it. An access line of an included file belongs to
 * the rule above it, wherever that stands.
 *
 * A fault is told in one line, "FILE:LINE: reason" or "RULE: reason" for the command line's rules, and the reading goes
 * on, so that all faults are told. */
#ifndef PORTFORWARD_CONFIG_H
#define PORTFORWARD_CONFIG_H

#include <stdbool.h>

#include "access.h"

enum data_path { DATA_PATH_AUTO, DATA_PATH_COPY, DATA_PATH_SPLICE };

enum {
    RULE_NAME_SIZE = 64,
    REMOTES_MAX = 32,           /* of one rule */
    RULES_MAX = 4096,           /* of one configuration */
    LINE_MAX_BYTES = 4096,      /* of the file */
    INCLUDE_DEPTH = 8,
    DURATION_MAX = 30 * 86400,  /* s; the longest of any time */
};

struct keepalive {
    unsigned idle, interval, probes; /* s, s, count: tcp(7) TCP_KEEPIDLE, ..INTVL, ..CNT; idle 0: off */
};

/* What a rule may set. Times in ms, 0: none. Counts, 0: no limit. */
struct rule_options {
    char name[RULE_NAME_SIZE]; /* "": BIND:PORT */
    unsigned connect, idle, half, life;
    struct keepalive keepalive;
    unsigned max, max_per_source;
    unsigned rate;              /* new connections a second */
    bool refuse;                /* full=refuse; else full=pause */
    enum data_path data_path;
    char src[46];               /* numeric source address of connections to remotes, or "" */
    unsigned backlog;
    int mode;                   /* of a Unix socket's file; -1: as umask says */
};

/* The defaults: connect 10 s, idle 1 h, half 60 s, no life, keepalive 60/10/5, no limits, pause, auto, SOMAXCONN, -1 */
extern const struct rule_options rule_defaults;

/* An address or a name and a port; "unix:/path" or "unix:@name" and "-"; "*" binds all addresses of both families. */
struct endpoint {
    char *host, *port;
};

struct rule_config {
    char *where; /* "FILE:LINE", or the argument, for messages */
    struct endpoint bind;
    struct endpoint *remotes;
    unsigned remote_count;
    struct rule_options options;
    struct access_list access;
};

struct config {
    struct rule_config *rules;
    unsigned rule_count;
    struct access_list access; /* of all rules */
    char *log_file, *pid_file; /* NULL: not said */
    struct rule_options defaults;
    unsigned faults;
    void (*fault)(void *arg, const char *message); /* one line, no newline; NULL: nobody listens */
    void *arg;
};

/* Empty, with `defaults` (NULL: rule_defaults). config_free() frees what is in it, not the struct itself. */
void config_init(struct config *config, const struct rule_options *defaults, void (*fault)(void *, const char *),
                 void *arg);
void config_free(struct config *config);

/* Reads a file and its includes. 0, or -1 when there was any fault; what was right is in `config` all the same. */
int config_read(struct config *config, const char *file);

/* One line, as it would stand in a file; `where` is for messages. */
int config_line(struct config *config, const char *where, const char *line);

/* One rule from its parts: the tutorials' -l -p -r -P. */
int config_rule(struct config *config, const char *where, const char *bind_host, const char *bind_port,
                const char *remote_host, const char *remote_port);

/* Sets one option by its name in the file ("idle", "10m"). NULL, or why not ("not a duration", "no such option"):
 * static text; then nothing was changed. */
const char *rule_option_set(struct rule_options *options, const char *name, const char *value);

/* The names that rule_option_set() knows, one after the other, NULL at the end of them. */
const char *rule_option_name(unsigned index);

/* The rule's name, or BIND:PORT. Returns `text`. */
const char *rule_config_name(const struct rule_config *rule, char *text, unsigned size);

#endif
