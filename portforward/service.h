/* service.h: the forwarder as an object in a map: all rules, their reload, drain and stop.
 *
 *     config_init(&config, NULL, fault, NULL);
 *     config_line(&config, "demo", "127.0.0.1 8080 10.0.0.5 80");
 *     service_new(&service, map, &options);
 *     service_apply(service, &config);         listens; the map's loop does the rest
 *     ...
 *     service_free(service);                   before asyncore_map_free()
 *
 * It handles no signals and reads no files: main.c does. The simulation runs it as it is. */
#ifndef PORTFORWARD_SERVICE_H
#define PORTFORWARD_SERVICE_H

#include "config.h"
#include "log.h"

struct service;

struct service_options {
    struct log *log;          /* not NULL; the caller's */
    unsigned max;             /* connections in all; 0: as the descriptor limit allows */
    /* A listener that service_apply() opened, as service_announce() has it. May be NULL. */
    void (*listening)(void *arg, const char *text);
    void (*drained)(void *arg); /* service_drain(): the last pair is gone, or the deadline has passed */
    void *arg;
};

/* Descriptors that are no connection's: standard ones, the set of the engine, signals, log, name servers, and the
 * pool's pipes. Listeners come on top of that. */
enum { RESERVED_DESCRIPTORS = 96 };

/* How many connections, of two descriptors each, the limit of descriptors (RLIMIT_NOFILE) leaves room for beside so
 * many listeners. Where that limit is so low that the reserve would take more than a half of it, the pool's pipes and
 * the like have to do with less. */
unsigned service_max(unsigned listeners);

int service_new(struct service **ret, struct asyncore_map *map, const struct service_options *options);

/* Makes the rules those of `config`, which stays the caller's: rules that listen where they did keep listeners,
 * connections and counts; new ones listen; the others stop. 0, or -1 when any rule could not be started: then
 * everything is as it was, and the log has a line for each that failed. */
int service_apply(struct service *service, const struct config *config);

/* Accepts what is queued, stops listening, lets pairs end by themselves for so many ms, then resets them. Again: at
 * once. */
void service_drain(struct service *service, unsigned ms);

/* A line for each listener, and for each connection. */
void service_announce(struct service *service, void (*line)(void *arg, const char *text), void *arg);
void service_table(struct service *service, void (*line)(void *arg, const char *text), void *arg);
unsigned service_connections(const struct service *service);

/* Resets what is left. Not within a handler of the service's. */
void service_free(struct service *service);

#endif
