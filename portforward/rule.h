/* rule.h: a rule at run time: its listeners, how many connections it has, and its present plan.
 *
 * A rule is known by where it listens. A reload gives it another plan (plan.h's of pairs that began stay theirs); its
 * listeners stay open, its counts go on. It lives until it is stopped and its last pair is gone. */
#ifndef PORTFORWARD_RULE_H
#define PORTFORWARD_RULE_H

#include "pair.h"

struct rule;

/* What all rules of a service share. */
struct rules {
    struct pairs pairs;
    struct remotes *remotes;
    unsigned max;               /* connections in all */
    struct access_list access;  /* of all rules */
    void (*ended)(void *arg);   /* a pair of any rule is gone */
    void *arg;
    struct rule *first;
};

/* Makes a rule and listens. 0, or a negative error; `message` (LINE_MAX_BYTES) then says what failed where, in one line:
 * nothing is left behind. Sockets that the service manager handed over are taken first (notify.h). */
int rule_start(struct rules *rules, const struct rule_config *config, char *message, struct rule **ret);

/* The same bind address: replaces plan, access list and limits for connections that begin from now on. */
int rule_change(struct rule *rule, const struct rule_config *config, char *message);
bool rule_is_at(const struct rule *rule, const struct endpoint *bind);

/* Serves what is in the listeners' queues, if `accept_queued`, and closes them. The rule frees itself after its last
 * pair. */
void rule_stop(struct rule *rule, bool accept_queued);

/* Looks again whether the listeners should be read: after a change of limits or of remotes, or when a pair has gone. */
void rule_update(struct rule *rule);

/* "listening on 127.0.0.1:8080, forwarding to 10.0.0.5:80", for each listener. */
void rule_announce(const struct rule *rule, void (*line)(void *arg, const char *text), void *arg);

#endif
