/* sim_kernel.h: what test_sim_kernel.c and its helpers share: calls, and the two kernels that they are made to.
 *
 *   test_sim_kernel.c    runs sequences on both kernels, compares, shrinks, reports
 *   sim_kernel_plans.c   makes sequences of calls from a seed
 *   sim_kernel_calls.c   makes one call to one kernel, and writes down what came of it
 *   sim_kernel_values.c  tests of their own, for what the sequences do not come to
 *
 * A SLOT stands for one object in both kernels: its descriptor has a number in each. A slot that is empty or closed
 * stands for a descriptor that nobody has.
 *
 * An OUTCOME is text, the same for both kernels if they agree: names instead of the numbers of ports, slots instead of
 * descriptors, a digest instead of bytes. */
#ifndef SIM_KERNEL_H
#define SIM_KERNEL_H

#include "os.h"
#include "sim.h"
#include "support.h"

#define SLOTS        24
#define NOT_OPEN     60 /* a descriptor that is open in neither kernel; select(2) knows none from 64 on */
#define MOST_FDS     5
#define EVENTFD_TYPE 1000 /* among the types of sockets; others have 0 */
#define MOST         200  /* calls of a sequence */
#define ALL_POLL     (POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND)

enum kind {
    SOCKET,
    PIPE,
    EVENTFD,
    TIMERFD,
    EPOLL,
    BIND,
    LISTEN,
    ACCEPT,
    CONNECT,
    SEND,
    RECV,
    SENDTO,
    RECVFROM,
    READ,
    WRITE,
    SHUTDOWN,
    SETSOCKOPT,
    GETSOCKOPT,
    GETSOCKNAME,
    GETPEERNAME,
    CLOSE,
    GET_FLAGS,
    SET_FLAGS,
    IDENTITY,
    EPOLL_CTL,
    EPOLL_WAIT,
    POLL,
    SELECT,
    TIMERFD_SET,
    FILL, /* sends until there is no room, lets the peer read all of it: the only call that is several */
    KINDS
};

/* Addresses that mean the same in both kernels. */
enum where {
    NOWHERE, /* NULL */
    LOOPBACK4,
    LOOPBACK6,
    MAPPED,
    ANY4,
    ANY6,
    OF_SLOT,        /* its name; the loopback address if it is bound to any */
    OF_SLOT_MAPPED, /* IPv4 as IPv6 */
    OF_SLOT_EXACT,  /* any stays any */
    PORT_AT_4,      /* 127.0.0.1 and the slot's port */
    PORT_AT_6,
    PORT_AT_ANY4,
    PORT_AT_ANY6,
    NOBODY4, /* a port where nobody is */
    NOBODY6,
    FOREIGN4, /* no address of this host */
    UNSPEC,
    UNKNOWN_FAMILY,
    ONE_BYTE,
    HALF_IN,
    PATH,         /* `number` tells which */
    PATH_PADDED,  /* the whole of a sockaddr_un */
    PATH_UNENDED, /* without its zero */
    PATH_ABSTRACT,
    PATH_MISSING,
    FAMILY_ONLY,
    WHERES
};

struct call {
    enum kind kind;
    int a, b; /* slots */
    enum where where;
    int number; /* of the address: slot or path */
    long size;  /* bytes, backlog, events; -1 in some */
    int flags, level, option;
    long long value;
    int fds[MOST_FDS], masks[MOST_FDS];
};

struct port {
    int type, number;
    bool six;
};

/* One of the two kernels, during one sequence. */
struct side {
    struct os *os;
    struct asyncore_sim *world; /* NULL: the real one */
    int fd[SLOTS], type[SLOTS];
    const char *directory;
    unsigned seed;
    struct port ports[256];
    int port_count;
    long n;        /* the last result, as it was */
    long expected; /* for the real kernel: what the other gave */
    char text[2048];
    size_t length;
};

/* sim_kernel_values.c */
void add_values(TCase *tests);

/* sim_kernel_calls.c */
bool leave_network(void); /* for a namespace of its own: whether that is allowed */
void side_begin(struct side *side, struct asyncore_sim *world, const char *directory, unsigned seed);
void side_end(struct side *side);
void side_call(struct side *side, const struct call *call, unsigned index);
void side_masks(struct side *side); /* what poll says of every slot */
void call_print(const struct call *call, char *text, size_t size);

/* sim_kernel_plans.c */
enum theme {
    ALL_THEMES,
    TCP,
    UNIX_STREAMS,
    DATAGRAMS,
    DESCRIPTORS,
    NAMES,
    THEMES
};
int plan(enum theme theme, uint32_t seed, bool alone, struct call calls[MOST]);

#endif
