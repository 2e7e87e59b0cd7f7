/* sim.h: the simulated kernel, for its own files and for tests.
 *
 *   sim_world.c    worlds, hosts, links; time and the order of events; whose turn it is
 *   sim_file.c     descriptors; pipes, eventfd, timerfd, signalfd; poll, select, epoll
 *   sim_socket.c   sockets: addresses, options, what is common to streams and datagrams
 *   sim_stream.c   TCP and Unix streams
 *   sim_dgram.c    UDP and Unix datagrams
 *   sim_names.c    the name servers and /etc/hosts
 *   sim_os.c       the os table: counts, faults and traces each call, then does it
 *
 * An arrow points down: sim_os.c knows all, sim_world.c and sim_file.c know none of the others but through struct kind.
 *
 * A FILE is an open file; a descriptor is an index into its host's table. Files have one descriptor each, or none: a
 * connection that is closed goes on without, until its last byte is sent. Whoever changes what poll(2) would say of a
 * file calls sim_stir(): it puts the file's registrations onto the ready lists of their epoll sets and gives its host a
 * turn.
 *
 * CHANCE is no sequence of random numbers but a function: of the seed, the object, the fault, and how often the object
 * was asked about that fault. So what one object meets depends on no other, nor on the engine, and faults can be taken
 * away from a run without changing the rest. */
#ifndef SIM_H
#define SIM_H

#include "asyncore_sim.h"
#include "list.h"
#include "os.h"
#include <netinet/in.h>
#include <stdbool.h>

struct sim_host;
struct sim_file;

/* -- Files -- */

#define SIM_SURE (1u << 20) /* beside POLL bits: nothing else of this file is ever reported */

struct sim_kind {
    const char *name;
    unsigned (*ready)(struct sim_file *file); /* POLL bits */
    ssize_t (*read)(struct sim_file *file, void *data, size_t size);
    ssize_t (*write)(struct sim_file *file, const void *data, size_t size);
    void (*close)(struct sim_file *file); /* the descriptor is gone; frees the file, now or later */
};

struct sim_file {
    const struct sim_kind *kind;
    struct sim_host *host;
    int fd;          /* or -1 */
    int flags;       /* fcntl(2) */
    uint32_t number; /* of its host's own, in the order of making; see sim_file_new */
    uint32_t asked[ASYNCORE_SIM_FAULTS];
    uint64_t doubted; /* when a spurious report of it was last thought of, plus one */
    link_t items;     /* struct sim_item: its registrations */
};

/* A registration of a file with an epoll set. */
struct sim_item {
    link_t of_file, of_set, ready;
    struct sim_file *file, *set;
    struct epoll_event event;
    int fd;
};

/* The first bytes go out first. */
struct sim_ring {
    char *data;
    size_t room, head, used; /* room: a power of two, or 0 */
};
size_t sim_ring_add(struct sim_ring *ring, const void *data, size_t size); /* how many; fewer: no memory */
size_t sim_ring_peek(const struct sim_ring *ring, size_t from, void *data, size_t size);
void sim_ring_drop(struct sim_ring *ring, size_t size);
void sim_ring_clear(struct sim_ring *ring);

struct sim_file *sim_file_of(struct sim_host *host, int fd); /* or NULL */
int sim_file_open(struct sim_file *file);                    /* gives it the lowest descriptor: that, or -EMFILE */
void sim_file_init(struct sim_file *file, const struct sim_kind *kind, struct sim_host *host, int flags);
void *sim_file_new(size_t size, const struct sim_kind *kind, struct sim_host *host, int flags);
int sim_file_close(struct sim_host *host, int fd);
bool sim_room_for_one(const struct sim_host *host); /* for another descriptor */
void sim_stir(struct sim_file *file);
void sim_timer_jumped(struct sim_file *file); /* if it is a timerfd: the clock went ahead */
void sim_signal_raised(struct sim_host *host, int number);

int sim_pipe(struct sim_host *host, int fds[2]);
int sim_eventfd(struct sim_host *host);
int sim_timerfd(struct sim_host *host);
int sim_timerfd_set(struct sim_file *file, uint64_t deadline);
int sim_signalfd(struct sim_host *host, int number, int *was_blocked);
void sim_signalfd_close(struct sim_host *host, int fd, int number, int was_blocked);
int sim_epoll_create(struct sim_host *host);
int sim_epoll_ctl(struct sim_file *set, int op, int fd, struct epoll_event *event);
int sim_epoll_wait(struct sim_file *set, struct epoll_event *events, int size);
int sim_poll(struct sim_host *host, struct pollfd *fds, nfds_t count);
int sim_select(struct sim_host *host, int count, fd_set *reads, fd_set *writes, fd_set *excepts);

/* -- The world -- */

struct sim_event {
    uint64_t time, order;
    void (*fn)(struct asyncore_sim *world, void *object, uint64_t argument);
    void *object;
    uint64_t argument;
};
typedef void (*sim_event_fn)(struct asyncore_sim *world, void *object, uint64_t argument);

#define SIM_SIGNALS 64

struct sim_name {
    struct sim_name *next;
    char *name;
    struct asyncore_address addresses[8];
    size_t count;
    uint64_t delay;
    int error;
};

struct sim_host {
    struct os os; /* first: the table is the host */
    struct asyncore_sim *world;
    char *name;
    unsigned index;
    char text4[16], text6[16];
    struct in_addr address4;
    struct in6_addr address6;
    struct asyncore_map *map;
    void (*step)(void *arg); /* a host without a map */
    void *step_arg;

    /* Descriptors. */
    struct sim_file **files;
    unsigned file_room, descriptors, descriptors_most, lowest;
    uint32_t numbers, engine_numbers; /* given to files */
    link_t sockets;                   /* every socket, those without a descriptor included */
    link_t paths;                     /* Unix sockets' names in the file system, which outlive them */
    uint16_t next_port;
    uint64_t blocked;                  /* signals: bit N - 1 is signal N */
    uint32_t pending[SIM_SIGNALS + 1]; /* how often each */

    /* Time. */
    uint64_t ahead;      /* its clock is so far ahead of the world's */
    uint64_t busy_until; /* of the world's time, as the next ones */
    uint64_t wake;       /* when its wait ends */
    uint64_t until;      /* ... the one that will be told again */
    uint64_t worked;     /* in the turn in hand */
    uint64_t still;      /* turns since time passed */
    uint64_t still_at;
    bool stirred, waited;
    int result;

    struct asyncore_sim_usage usage;
    uint64_t *scripted; /* calls of each script's kind so far */
    uint32_t asked[ASYNCORE_SIM_FAULTS];
    link_t queries; /* to name servers */
};

struct sim_route {
    struct sim_host *a, *b; /* NULL: any */
    struct asyncore_sim_link link;
};

struct asyncore_sim {
    struct asyncore_sim_options options;
    uint64_t seed, time, order;
    struct sim_host **hosts;
    size_t host_count;
    struct sim_event *events; /* a heap: the earliest first, equal ones in their order */
    size_t event_count, event_room;
    struct sim_route *routes; /* the last that fits is the one */
    size_t route_count;
    struct sim_name *names;
    uint64_t *only;
    bool closing; /* asyncore_sim_free: nothing arrives any more */
    bool entered; /* asyncore_sim_run */
    bool running; /* within asyncore_sim_run: a wait that would block ends the turn */
    uint32_t draws, connections;
    uint64_t struck; /* calls that scripts made fail */
    int failed;      /* what asyncore_sim_run will return */
};

struct sim_host *sim_host(struct asyncore_sim *world, const char *name); /* made if need be; NULL: no memory */
struct sim_host *sim_host_at(struct asyncore_sim *world, int family, const void *address); /* or NULL; as inet_pton */
const struct asyncore_sim_link *sim_link(const struct sim_host *a, const struct sim_host *b);
void sim_event_add(struct asyncore_sim *world, uint64_t time,
                   void (*fn)(struct asyncore_sim *world, void *object, uint64_t argument), void *object,
                   uint64_t argument);
void sim_events_forget(struct asyncore_sim *world, const void *object);
uint64_t sim_host_time(const struct sim_host *host); /* the world's time, and what the turn in hand took */
uint64_t sim_chance(struct asyncore_sim *world);     /* any number; for the world's own decisions */
uint64_t sim_mix(uint64_t seed, uint64_t value);
void *sim_alloc(size_t size); /* of the world's own memory, zeroed */

#define SIM_WOULD_WAIT (-ECANCELED) /* what a wait within asyncore_sim_run says for "not yet" */
/* Lets time pass until `ready(arg)` is nonzero, at most `timeout` ms (-1: no bound): its result; 0; SIM_WOULD_WAIT. */
int sim_wait(struct sim_host *host, int timeout, int (*ready)(void *arg), void *arg);

/* Counts a call, charges its time, and says what a script wants of it: 0, or the error that it fails with. */
int sim_enter(struct sim_host *host, enum asyncore_sim_call call);

/* Whether a fault strikes an object of the host (NULL: the host itself). */
bool sim_fault_drawn(struct sim_host *host, struct sim_file *file, enum asyncore_sim_fault fault);
static inline bool sim_fault(struct sim_host *host, struct sim_file *file, enum asyncore_sim_fault fault)
{
    return host->world->options.chances[fault] != 0 && sim_fault_drawn(host, file, fault);
}

void sim_sockets_clear(struct sim_host *host); /* sim_socket.c: what is left when the map is gone */

/* -- For tests -- */

struct os *sim_os(struct asyncore_sim *world, const char *host);
void sim_set_step(struct asyncore_sim *world, const char *host, void (*step)(void *arg), void *arg);
void sim_wake(struct asyncore_sim *world, const char *host, uint64_t time);

void sim_os_fill(struct os *os); /* sim_os.c */
void sim_trace_line(struct sim_host *host, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define sim_trace(host, ...) ((host)->world->options.trace != NULL ? sim_trace_line(host, __VA_ARGS__) : (void)0)

/* sim_names.c */
void sim_names_clear(struct asyncore_sim *world);
int sim_hosts(struct sim_host *here, const char *name, int family, struct asyncore_address *addresses, size_t size);
int sim_names_open(struct names **ret, struct names_client *client, struct sim_host *host);
void sim_names_close(struct names *names);
int sim_names_start(struct names *names, const char *host, int family, void *query);
void sim_names_cancel(struct names *names, void *query);
void sim_names_event(struct names *names, int fd, unsigned events);
uint64_t sim_names_deadline(struct names *names, uint64_t now);
int sim_set_name(struct asyncore_sim *world, const char *name, const char *addresses, uint32_t ttl, uint64_t delay,
                 int error);
#endif
