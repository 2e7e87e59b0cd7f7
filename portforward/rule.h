/* rule.h: a rule at run time: its listeners, how many connections it has, and its present plan.
 *
 * A rule is known by where it listens. A reload gives it another plan (plans of pairs that began stay theirs); its
 * listeners stay open, its counts go on. It lives until it is stopped and its last pair is gone. */
#ifndef PORTFORWARD_RULE_H
#define PORTFORWARD_RULE_H

#include "pair.h"

struct rule;

/* What all rules of a service share. */
struct rules {
    struct pairs pairs;
    struct remotes *remotes;
    unsigned max;              /* connections in all */
    unsigned count;            /* as many are there */
    struct access_list access; /* of all rules */
    void (*ended)(void *arg);  /* a pair of any rule is gone */
    void *arg;
    struct rule *first, **end; /* as they were started */
    bool full; /* `max` was reached, and nobody left since */
};

/* What a configuration gives a rule that listens already. */
struct terms {
    struct plan *plan;
    struct access_list access;
};

/* 0, or a negative error; `message` (LINE_MAX_BYTES) then says in one line what is wrong where. */
int terms_new(struct rules *rules, const struct rule_config *config, char *message, struct terms *ret);
void terms_free(struct terms *terms);

/* Makes a rule and listens. 0, or a negative error and a message; then nothing is left behind. Sockets that the service
 * manager handed over are taken first (notify.h), then those of rules that leave and listen at the very same address:
 * these come over when such a rule is stopped. */
int rule_start(struct rules *rules, const struct rule_config *config, char *message, struct rule **ret);

/* The same bind address: replaces plan, access list and limits for connections that begin from now on. */
void rule_change(struct rule *rule, struct terms *terms);
bool rule_is_at(const struct rule *rule, const struct endpoint *bind);

/* It will be stopped if what is being tried succeeds; false takes that back, and what was promised to others. */
void rule_leave(struct rule *rule, bool leaves);
bool rule_leaves(const struct rule *rule);

/* Gives listeners that were promised to the rules that they were promised to, serves what is in the queues of the
 * others, if `accept_queued`, and closes them. The rule frees itself after its last pair. */
void rule_stop(struct rule *rule, bool accept_queued);

/* Looks again whether the listeners should be read: after a change of limits or of remotes. */
void rule_update(struct rule *rule);

struct rule *rule_next(const struct rule *rule);
unsigned rule_listeners(const struct rule *rule);

/* "listening on 127.0.0.1:8080, forwarding to 10.0.0.5:80", for each listener. */
void rule_announce(const struct rule *rule, void (*line)(void *arg, const char *text), void *arg);

#endif
