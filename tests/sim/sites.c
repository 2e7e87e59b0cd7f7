/* sites.c: see sites.h. */
#include "sites.h"

#include "sim.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    PLACES = 2048,
    AFTER = 3
};

struct site {
    const void *address;
    enum asyncore_sim_call call;
    uint64_t reached, struck;
    unsigned baseline, run; /* the last that reached it */
};

static struct site sites[PLACES]; /* by address, linear probing */
static size_t site_count;
static unsigned baselines, runs;
static bool in_baseline;
static const void *struck_first;
static struct site_call fresh[SITE_CALLS], after[AFTER];
static size_t fresh_count, after_count;
static struct os real;
extern const char __executable_start[];

void sites_begin(bool baseline)
{
    runs++;
    baselines += baseline;
    in_baseline = baseline;
    struck_first = NULL;
    fresh_count = after_count = 0;
}

size_t sites_new(const struct site_call **calls)
{
    *calls = fresh;
    return fresh_count;
}

const void *sites_struck(void)
{
    return struck_first;
}

size_t sites_after(const struct site_call **calls)
{
    *calls = after;
    return after_count;
}

void sites_print(FILE *file)
{
    for (size_t i = 0; i < PLACES; i++)
        if (sites[i].address != NULL)
            fprintf(file, "0x%tx %" PRIu64 " %" PRIu64 " %s\n", (const char *)sites[i].address - __executable_start,
                    sites[i].reached, sites[i].struck, asyncore_sim_call_name(sites[i].call));
}

static struct site *site_at(const void *address, enum asyncore_sim_call call)
{
    size_t i = ((uintptr_t)address * UINT64_C(0x9E3779B97F4A7C15) >> 40) % PLACES;

    while (sites[i].address != NULL && sites[i].address != address)
        i = (i + 1) % PLACES;
    if (sites[i].address == NULL) {
        if (++site_count == PLACES)
            abort();
        sites[i].address = address;
        sites[i].call = call;
    }
    return &sites[i];
}

/* -- The calls -- */

struct note {
    struct site *site;
    const struct sim_host *host;
    enum asyncore_sim_call call;
    uint64_t k, struck;
};

static void add(struct site_call *call, const struct note *note)
{
    snprintf(call->host, sizeof call->host, "%s", note->host->name);
    call->call = note->call;
    call->k = note->k;
    call->site = note->site->address;
}

static struct note enter(const struct sim_host *host, enum asyncore_sim_call call, const void *address)
{
    struct note note = {.site = site_at(address, call), .host = host, .call = call};
    struct site *site = note.site;

    site->reached++;
    if (host == NULL || host->step != NULL) { /* a raw host is a peer's: scripts do not name it */
        note.host = NULL;
        return note;
    }
    note.k = host->usage.calls[call] + 1;
    note.struck = host->world->struck;
    if (in_baseline)
        site->baseline = baselines;
    else if (site->baseline != baselines && site->run != runs && fresh_count < SITE_CALLS)
        add(&fresh[fresh_count++], &note);
    if (struck_first != NULL && after_count < AFTER)
        add(&after[after_count++], &note);
    site->run = runs;
    return note;
}

static void leave(const struct note *note)
{
    if (note->host == NULL || note->host->world->struck == note->struck)
        return;
    note->site->struck++;
    if (struck_first == NULL)
        struck_first = note->site->address;
}

static const struct sim_host *host_of(const struct os *os)
{
    return (const struct sim_host *)os;
}

#define WRAP(result, name, kind, parameters, ...)                                                                      \
    static result wrapped_##name parameters                                                                            \
    {                                                                                                                  \
        struct note note = enter(host_of(os), ASYNCORE_SIM_##kind, __builtin_return_address(0));                       \
        result n = real.name(__VA_ARGS__);                                                                             \
        leave(&note);                                                                                                  \
        return n;                                                                                                      \
    }

WRAP(void *, alloc, ALLOC, (size_t size, struct os *os), size, os)
WRAP(void *, realloc, ALLOC, (void *memory, size_t size, struct os *os), memory, size, os)
WRAP(int, socket, SOCKET, (int family, int type, int protocol, struct os *os), family, type, protocol, os)
WRAP(int, bind, BIND, (int fd, const struct sockaddr *address, socklen_t length, struct os *os), fd, address, length,
     os)
WRAP(int, listen, LISTEN, (int fd, int backlog, struct os *os), fd, backlog, os)
WRAP(int, accept, ACCEPT, (int fd, struct sockaddr *address, socklen_t *length, struct os *os), fd, address, length, os)
WRAP(int, connect, CONNECT, (int fd, const struct sockaddr *address, socklen_t length, struct os *os), fd, address,
     length, os)
WRAP(ssize_t, recv, RECV, (int fd, void *data, size_t size, int flags, struct os *os), fd, data, size, flags, os)
WRAP(ssize_t, send, SEND, (int fd, const void *data, size_t size, int flags, struct os *os), fd, data, size, flags, os)
WRAP(ssize_t, recvfrom, RECVFROM,
     (int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length, struct os *os), fd, data,
     size, flags, address, length, os)
WRAP(ssize_t, sendto, SENDTO,
     (int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length,
      struct os *os),
     fd, data, size, flags, address, length, os)
WRAP(int, shutdown, SHUTDOWN, (int fd, int how, struct os *os), fd, how, os)
WRAP(int, setsockopt, SETSOCKOPT, (int fd, int level, int option, const void *value, socklen_t length, struct os *os),
     fd, level, option, value, length, os)
WRAP(int, getsockopt, GETSOCKOPT, (int fd, int level, int option, void *value, socklen_t *length, struct os *os), fd,
     level, option, value, length, os)
WRAP(int, getsockname, GETSOCKNAME, (int fd, struct sockaddr *address, socklen_t *length, struct os *os), fd, address,
     length, os)
WRAP(int, getpeername, GETPEERNAME, (int fd, struct sockaddr *address, socklen_t *length, struct os *os), fd, address,
     length, os)
WRAP(ssize_t, read, READ, (int fd, void *data, size_t size, struct os *os), fd, data, size, os)
WRAP(ssize_t, write, WRITE, (int fd, const void *data, size_t size, struct os *os), fd, data, size, os)
WRAP(int, close, CLOSE, (int fd, struct os *os), fd, os)
WRAP(int, get_flags, GET_FLAGS, (int fd, struct os *os), fd, os)
WRAP(int, set_flags, SET_FLAGS, (int fd, int flags, struct os *os), fd, flags, os)
WRAP(int, identity, IDENTITY, (int fd, uint32_t *identity, struct os *os), fd, identity, os)
WRAP(int, epoll_create, EPOLL_CREATE, (struct os * os), os)
WRAP(int, epoll_ctl, EPOLL_CTL, (int set, int op, int fd, struct epoll_event *event, struct os *os), set, op, fd, event,
     os)
WRAP(int, epoll_wait, EPOLL_WAIT, (int set, struct epoll_event *events, int size, int timeout, struct os *os), set,
     events, size, timeout, os)
WRAP(int, poll, POLL, (struct pollfd * fds, nfds_t count, int timeout, struct os *os), fds, count, timeout, os)
WRAP(int, select, SELECT, (int count, fd_set *reads, fd_set *writes, fd_set *excepts, int timeout, struct os *os),
     count, reads, writes, excepts, timeout, os)
WRAP(int, eventfd, EVENTFD, (struct os * os), os)
WRAP(int, timerfd, TIMERFD, (struct os * os), os)
WRAP(int, timerfd_set, TIMERFD_SET, (int fd, uint64_t deadline, struct os *os), fd, deadline, os)
WRAP(int, signal_open, SIGNAL_OPEN, (int number, int *was_blocked, struct os *os), number, was_blocked, os)
WRAP(int, hosts, HOSTS, (const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os),
     host, family, addresses, size, os)

/* A resolver does not tell whose it is: one host of a world has one at most. */
static const struct sim_host *names_host;

static int wrapped_names_open(struct names **ret, struct names_client *client, const char *servers, struct os *os)
{
    struct note note = enter(host_of(os), ASYNCORE_SIM_NAMES_OPEN, __builtin_return_address(0));
    int result = real.names_open(ret, client, servers, os);

    names_host = host_of(os);
    leave(&note);
    return result;
}

static int wrapped_names_start(struct names *names, const char *host, int family, void *query)
{
    struct note note = enter(names_host, ASYNCORE_SIM_NAMES_START, __builtin_return_address(0));
    int result = real.names_start(names, host, family, query);

    leave(&note);
    return result;
}

/* What cannot fail is only seen to be reached. */
#define REACH(result, name, parameters, ...)                                                                           \
    static result wrapped_##name parameters                                                                            \
    {                                                                                                                  \
        enter(NULL, ASYNCORE_SIM_ANY, __builtin_return_address(0));                                                    \
        __VA_ARGS__;                                                                                                   \
    }

REACH(void, names_close, (struct names * names), real.names_close(names))
REACH(void, names_cancel, (struct names * names, void *query), real.names_cancel(names, query))
REACH(void, names_event, (struct names * names, int fd, unsigned events), real.names_event(names, fd, events))
REACH(uint64_t, names_deadline, (struct names * names, uint64_t now), return real.names_deadline(names, now))
REACH(void, signal_close, (int fd, int number, int blocked, struct os *os), real.signal_close(fd, number, blocked, os))
REACH(unsigned, interface_index, (const char *name, struct os *os), return real.interface_index(name, os))

void __real_sim_os_fill(struct os *os);
void __wrap_sim_os_fill(struct os *os);
void __wrap_sim_os_fill(struct os *os)
{
    __real_sim_os_fill(os);
    real = *os;
#define SET(name) os->name = wrapped_##name
    SET(alloc), SET(realloc), SET(socket), SET(bind), SET(listen), SET(accept), SET(connect), SET(recv), SET(send);
    SET(recvfrom), SET(sendto), SET(shutdown), SET(setsockopt), SET(getsockopt), SET(getsockname), SET(getpeername);
    SET(read), SET(write), SET(close), SET(get_flags), SET(set_flags), SET(identity), SET(epoll_create), SET(epoll_ctl);
    SET(epoll_wait), SET(poll), SET(select), SET(eventfd), SET(timerfd), SET(timerfd_set), SET(signal_open), SET(hosts);
    SET(names_open), SET(names_close), SET(names_start), SET(names_cancel), SET(names_event), SET(names_deadline);
    SET(signal_close), SET(interface_index);
}
