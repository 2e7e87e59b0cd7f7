/* asyncore_sim.h: a kernel that is not there, to test programs with.
 *
 * A world has hosts; each has a map, sockets, pipes, timers, signals, names and a clock, all of them simulated. The same
 * program that serves a real map serves a simulated one, in one process and one thread, on virtual time: an hour of idle
 * costs microseconds. Everything that is left to chance, faults included, follows from one seed, and is the same in
 * every run.
 *
 *     asyncore_sim_new(&world, seed, NULL);
 *     server_start(&server, asyncore_sim_map(world, "server"));
 *     client_start(&client, asyncore_sim_map(world, "client"), asyncore_sim_address(world, "server", AF_INET));
 *     asyncore_sim_run(world, 10 * ASYNCORE_SIM_SECOND);
 *     ... what is the case now? ...
 *     asyncore_sim_free(world);
 *
 * HOSTS are made where they are first named, and know each other by name as if by /etc/hosts. A host's turn takes no time
 * unless options.call_ns says so; hosts whose turns fall together take them in an order that the seed decides.
 *
 * SOCKETS are TCP and UDP over IPv4 and IPv6, and Unix streams and datagrams within a host; poll, select and epoll are
 * level-triggered. Where they differ from Linux it is a fault here, but for what is left out: urgent bytes,
 * ancillary data, multicast, IP options, TIME_WAIT, sockets connected to themselves, Nagle's delays;
 * SOCK_SEQPACKET (-ESOCKTNOSUPPORT); io_uring, splicing (-ENOSYS); sockets of a host do not outlive its map.
 * Socket options that nobody else would notice (TCP_KEEPIDLE, IP_TTL) are kept and told again, with Linux's defaults and
 * bounds; those that would do what is not simulated are refused (-ENOPROTOOPT).
 *
 * UNITS. Times are nanoseconds since the world began, sizes are bytes, chances are in a million.
 *
 * RESULTS are those of asyncore.h. One world, one thread. */
#ifndef ASYNCORE_SIM_H
#define ASYNCORE_SIM_H

#include "asyncore.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ASYNCORE_SIM_US      ((uint64_t)1000)
#define ASYNCORE_SIM_MS      ((uint64_t)1000000)
#define ASYNCORE_SIM_SECOND  ((uint64_t)1000000000)
#define ASYNCORE_SIM_FOREVER UINT64_MAX

struct asyncore_sim; /* a world */

/* What may go wrong. The soft ones a program must not notice; after a hard one a connection, or a call, has failed. */
enum asyncore_sim_fault {
    /* Soft. */
    ASYNCORE_SIM_SHORT,    /* recv, send, read, write do less than they could */
    ASYNCORE_SIM_EAGAIN,   /* they, accept too, say "nothing yet" though there is something */
    ASYNCORE_SIM_EINTR,    /* any call that may be interrupted is */
    ASYNCORE_SIM_SPURIOUS, /* a descriptor is reported ready that is not; never a stream that connects */
    ASYNCORE_SIM_REORDER,  /* the events of one wait come in another order (epoll) */
    ASYNCORE_SIM_LINGER,   /* a close reaches the peer late */
    /* Hard. */
    ASYNCORE_SIM_RESET,   /* a connection is lost between two calls: both ends are reset */
    ASYNCORE_SIM_ABORTED, /* a connection is lost before it is accepted */
    ASYNCORE_SIM_EMFILE,  /* no descriptor: socket, accept, pipes, timers, epoll */
    ASYNCORE_SIM_ENOBUFS, /* no kernel memory (ENOBUFS or ENOMEM), where a call may say so */
    ASYNCORE_SIM_ENOMEM,  /* no memory for the library */
    ASYNCORE_SIM_NAMES,   /* a name server that does not answer */
    ASYNCORE_SIM_FAULTS
};

/* The functions of the kernel, for scripts and counts. */
enum asyncore_sim_call {
    ASYNCORE_SIM_ANY, /* in a script: whichever comes k-th */
    ASYNCORE_SIM_ALLOC,
    ASYNCORE_SIM_SOCKET,
    ASYNCORE_SIM_BIND,
    ASYNCORE_SIM_LISTEN,
    ASYNCORE_SIM_ACCEPT,
    ASYNCORE_SIM_CONNECT,
    ASYNCORE_SIM_RECV,
    ASYNCORE_SIM_SEND,
    ASYNCORE_SIM_RECVFROM,
    ASYNCORE_SIM_SENDTO,
    ASYNCORE_SIM_SHUTDOWN,
    ASYNCORE_SIM_SETSOCKOPT,
    ASYNCORE_SIM_GETSOCKOPT,
    ASYNCORE_SIM_GETSOCKNAME,
    ASYNCORE_SIM_GETPEERNAME,
    ASYNCORE_SIM_READ,
    ASYNCORE_SIM_WRITE,
    ASYNCORE_SIM_CLOSE,
    ASYNCORE_SIM_GET_FLAGS,
    ASYNCORE_SIM_SET_FLAGS,
    ASYNCORE_SIM_IDENTITY,
    ASYNCORE_SIM_EPOLL_CREATE,
    ASYNCORE_SIM_EPOLL_CTL,
    ASYNCORE_SIM_EPOLL_WAIT,
    ASYNCORE_SIM_POLL,
    ASYNCORE_SIM_SELECT,
    ASYNCORE_SIM_EVENTFD,
    ASYNCORE_SIM_TIMERFD,
    ASYNCORE_SIM_TIMERFD_SET,
    ASYNCORE_SIM_SIGNAL_OPEN,
    ASYNCORE_SIM_HOSTS,
    ASYNCORE_SIM_NAMES_OPEN,
    ASYNCORE_SIM_NAMES_START,
    ASYNCORE_SIM_CALLS
};

/* One fault by hand: the k-th (from 1) call of this kind on this host (NULL: any) fails with `error`, a negated errno.
 * The call does nothing but fail; close and EPOLL_CTL_DEL do what they are for all the same, as Linux does, and
 * an error of recv or send that means the loss of a TCP connection comes with that loss. */
struct asyncore_sim_script {
    const char *host;
    enum asyncore_sim_call call;
    uint64_t k;
    int error;
};

/* How two hosts are connected; also the default of all pairs. */
struct asyncore_sim_link {
    uint64_t delay, jitter;        /* one way; jitter is added by chance, and never reorders a stream */
    uint64_t bandwidth;            /* bytes a second, each way; 0: no bound */
    unsigned loss, copy, overtake; /* datagrams lost, doubled, overtaken */
    int down;                      /* 0, or -EHOSTUNREACH: connect fails with it; -ETIMEDOUT: packets vanish */
};

/* Zero in any member means the default. */
struct asyncore_sim_options {
    const char *engine;                    /* of the maps: as in asyncore_map_options */
    struct asyncore_sim_link link;         /* default: 50 us, no jitter, no bound */
    uint64_t call_ns;                      /* what a call costs its host: up to twice this; 0 */
    unsigned descriptors;                  /* a host has: 1024 */
    size_t send_buffer, receive_buffer;    /* of a socket: 64 KiB each */
    size_t pipe_buffer;                    /* 64 KiB */
    unsigned chances[ASYNCORE_SIM_FAULTS]; /* of each fault, at each call that it may strike; none */
    uint64_t faults_until;                 /* no fault by chance after this time; 0: no such time */

    const struct asyncore_sim_script *script; /* must stay */
    size_t script_count;

    /* Only the faults by chance with these keys happen (as fault() told them); for replays with fewer. Must stay. */
    const uint64_t *only;
    size_t only_count;

    /* `line` is gone after the call. trace: every call of a host, "TIME HOST #OBJECT CALL ... = RESULT"; objects have
     * numbers of their host's own. fault: every fault that struck. Neither may call anything of the library. */
    void (*trace)(void *arg, const char *line);
    void (*fault)(void *arg, uint64_t key, const char *line);
    void *arg;

    void *reserved[8];
};

/* Makes a world. -EINVAL: compiled against another version. */
#define asyncore_sim_new(ret, seed, options)                                                                           \
    asyncore_sim_new_(ret, seed, options, sizeof(struct asyncore_sim_options), ASYNCORE_ABI)
ASYNCORE_API int asyncore_sim_new_(struct asyncore_sim **ret, uint64_t seed, const struct asyncore_sim_options *options,
                                   size_t size, unsigned abi);

/* Frees the maps (asyncore_map_free) and everything else. */
ASYNCORE_API void asyncore_sim_free(struct asyncore_sim *world);

/* The map of a host, made at the first call (NULL: that failed: no memory, or an unknown engine). It belongs to the
 * world. asyncore_loop() on it serves until it ends, and lets the other hosts run meanwhile; without it,
 * asyncore_sim_run() serves every map. Within it a handler's own asyncore_map_wait() cannot let time pass: -ECANCELED
 * where it would have to. */
ASYNCORE_API struct asyncore_map *asyncore_sim_map(struct asyncore_sim *world, const char *host);

/* Frees the map of a host before the world goes, so that asyncore_sim_usage() tells what it leaves behind: no descriptor,
 * no memory. -ENOENT: there is none; -EBUSY as asyncore_map_free(). */
ASYNCORE_API int asyncore_sim_map_free(struct asyncore_sim *world, const char *host);

/* A host's address as text: AF_INET "10.0.0.1", AF_INET6 "fd00::1". */
ASYNCORE_API const char *asyncore_sim_address(struct asyncore_sim *world, const char *host, int family);

/* Lets the world run until that time. 0: nothing will happen any more before it, all loops have ended or wait without
 * end; 1: there is more. A negative result: a host took a million turns without time passing (-ELOOP), or no memory. */
ASYNCORE_API int asyncore_sim_run(struct asyncore_sim *world, uint64_t until);

ASYNCORE_API uint64_t asyncore_sim_now(const struct asyncore_sim *world);

/* Calls fn at that time, at once if it is past, between the hosts' turns. */
ASYNCORE_API int asyncore_sim_at(struct asyncore_sim *world, uint64_t time,
                                 void (*fn)(struct asyncore_sim *world, void *arg), void *arg);

/* What became of a host's loop: 1 it runs, 0 it ended (no foreground channel, timer or lookup is left) or was stopped, a
 * negative error: it failed. A loop that ended begins anew at the next asyncore_sim_run() or asyncore_sim_at(). */
ASYNCORE_API int asyncore_sim_result(const struct asyncore_sim *world, const char *host);

/* From now on. host_b NULL: host_a's link to every other; both NULL: all. What is under way arrives as it was to. */
ASYNCORE_API int asyncore_sim_set_link(struct asyncore_sim *world, const char *host_a, const char *host_b,
                                       const struct asyncore_sim_link *link);

/* A host's clock goes ahead so far at once, as after a suspend. It never goes back. */
ASYNCORE_API int asyncore_sim_jump(struct asyncore_sim *world, const char *host, uint64_t ahead);

/* A signal for a host: whoever has an asyncore_signal for it is called, the first of several; without one nothing
 * happens. -EINVAL: no such signal. */
ASYNCORE_API int asyncore_sim_raise(struct asyncore_sim *world, const char *host, int number);

/* A pipe: fds[0] reads, fds[1] writes. Both are the caller's: asyncore_set_file or asyncore_close_fd. */
ASYNCORE_API int asyncore_sim_pipe(struct asyncore_sim *world, const char *host, int fds[2]);

/* What the name servers say. addresses: "10.0.0.1,fd00::1"; NULL: `error` (ASYNCORE_ENONAME, ...). Answers take `delay`.
 * Names that nobody set are ASYNCORE_ENONAME. Setting one again replaces it. */
ASYNCORE_API int asyncore_sim_set_name(struct asyncore_sim *world, const char *name, const char *addresses,
                                       uint32_t ttl, uint64_t delay, int error);

/* How many descriptors a host may have from now on. */
ASYNCORE_API int asyncore_sim_set_descriptors(struct asyncore_sim *world, const char *host, unsigned count);

/* What a host holds now, and what it did. */
struct asyncore_sim_usage {
    unsigned descriptors;               /* open */
    size_t blocks, bytes, bytes_most;   /* the library's memory */
    uint64_t turns;                     /* of its loop */
    uint64_t calls[ASYNCORE_SIM_CALLS]; /* of each kind; [ASYNCORE_SIM_ANY]: all */
};
ASYNCORE_API int asyncore_sim_usage(const struct asyncore_sim *world, const char *host,
                                    struct asyncore_sim_usage *usage);

/* The names of the enums' members, as in traces: "short", "epoll_wait". NULL past the last. */
ASYNCORE_API const char *asyncore_sim_fault_name(enum asyncore_sim_fault fault);
ASYNCORE_API const char *asyncore_sim_call_name(enum asyncore_sim_call call);

#ifdef __cplusplus
}
#endif
#endif
