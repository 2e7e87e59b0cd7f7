/* os.h: the kernel as the library sees it. One table of functions; nothing else in the library makes a system
 * call, reads the clock, takes memory or looks a name up. os_linux is the real one; whoever simulates a kernel
 * fills a table of its own and embeds it as the first member of what it needs.
 *
 * Every function returns 0, a count or a descriptor, or a negative errno; EINTR is passed on, but for recv, send and
 * splice, which say -EAGAIN: the descriptor is still ready, and the loop comes back. Descriptors are made close-on-exec
 * and, sockets and the library's own, non-blocking. The table itself is the last argument, so that those of the system
 * call are in their registers already: a dozen instructions a message. */
#ifndef OS_H
#define OS_H

#include "asyncore.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

struct os;
struct names; /* the state of a resolver */
struct io_uring_params;

/* How a resolver tells the loop of its descriptors (events 0: no longer) and of its answers. It may call both from
 * within any of its functions; `query` is what start() was given. Addresses are gone after the call. */
struct names_client {
    void (*watch)(struct names_client *client, int fd, unsigned events);
    void (*done)(struct names_client *client, void *query, int error, const struct asyncore_address *addresses,
                 size_t count);
};

/* On the way of every message: the linker puts these side by side, for they are cold after every system call. */
#define FAST __attribute__((hot))

struct os {
    /* Memory: any thread. */
    void *(*alloc)(size_t size, struct os *os);
    void *(*realloc)(void *memory, size_t size, struct os *os);
    void (*free)(void *memory, struct os *os);

    uint64_t (*now)(struct os *os); /* CLOCK_MONOTONIC, ns */

    int (*socket)(int family, int type, int protocol, struct os *os);
    int (*bind)(int fd, const struct sockaddr *address, socklen_t length, struct os *os);
    int (*listen)(int fd, int backlog, struct os *os);
    int (*accept)(int fd, struct sockaddr *address, socklen_t *length, struct os *os);
    int (*connect)(int fd, const struct sockaddr *address, socklen_t length, struct os *os);
    ssize_t (*recv)(int fd, void *data, size_t size, int flags, struct os *os);
    ssize_t (*send)(int fd, const void *data, size_t size, int flags, struct os *os);
    ssize_t (*recvfrom)(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length,
                        struct os *os);
    ssize_t (*sendto)(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                      socklen_t length, struct os *os);
    int (*shutdown)(int fd, int how, struct os *os);
    int (*setsockopt)(int fd, int level, int option, const void *value, socklen_t length, struct os *os);
    int (*getsockopt)(int fd, int level, int option, void *value, socklen_t *length, struct os *os);
    int (*getsockname)(int fd, struct sockaddr *address, socklen_t *length, struct os *os);
    int (*getpeername)(int fd, struct sockaddr *address, socklen_t *length, struct os *os);

    ssize_t (*read)(int fd, void *data, size_t size, struct os *os);
    ssize_t (*write)(int fd, const void *data, size_t size, struct os *os);
    int (*close)(int fd, struct os *os);
    int (*pipe)(int ends[2], size_t size, struct os *os); /* size: a wish, 0 none; gives the size that it got */
    ssize_t (*splice)(int from, int to, size_t size, struct os *os); /* one of them a pipe, and never waits for that */
    int (*get_flags)(int fd, struct os *os); /* fcntl(2) F_GETFL */
    int (*set_flags)(int fd, int flags, struct os *os);
    int (*identity)(int fd, uint32_t *identity, struct os *os); /* two open files rarely have the same */

    int (*epoll_create)(struct os *os);
    int (*epoll_ctl)(int set, int op, int fd, struct epoll_event *event, struct os *os);
    int (*epoll_wait)(int set, struct epoll_event *events, int size, int timeout, struct os *os);
    int (*poll)(struct pollfd *fds, nfds_t count, int timeout, struct os *os);
    int (*select)(int count, fd_set *reads, fd_set *writes, fd_set *excepts, int timeout,
                  struct os *os); /* timeout: ms */

    int (*eventfd)(struct os *os);
    int (*timerfd)(struct os *os);
    int (*timerfd_set)(int fd, uint64_t deadline, struct os *os); /* absolute ns, 0 disarms, 1 fires at once */

    /* Blocks a signal for this thread and gives a descriptor of it; undoes that. */
    int (*signal_open)(int number, int *was_blocked, struct os *os);
    void (*signal_close)(int fd, int number, int was_blocked, struct os *os);

    /* Network interfaces, of IPv6 zones: 0, NULL: there is none. `name` has room for IF_NAMESIZE. */
    unsigned (*interface_index)(const char *name, struct os *os);
    char *(*interface_name)(unsigned index, char *name, struct os *os);

    /* io_uring's three calls, and the memory that it shares with the kernel (MAP_SHARED; NULL: there is none). */
    int (*uring_setup)(unsigned entries, struct io_uring_params *params, struct os *os);
    int (*uring_enter)(int ring, unsigned submit, unsigned complete, unsigned flags, const void *argument, size_t size,
                       struct os *os);
    int (*uring_register)(int ring, unsigned operation, void *argument, unsigned count, struct os *os);
    void *(*uring_map)(int ring, size_t size, uint64_t offset, struct os *os);
    void (*uring_unmap)(void *memory, size_t size, struct os *os);

    /* Names. hosts() answers from /etc/hosts alone, without waiting: how many of `addresses` were filled.
     * names_open() is NULL where there is no resolver. names_event() with fd -1 says that the deadline (absolute ns;
     * 0: none) is past. */
    int (*hosts)(const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os);
    int (*names_open)(struct names **ret, struct names_client *client, const char *servers, struct os *os);
    void (*names_close)(struct names *names); /* ends every query with ASYNCORE_ENAMESERVER */
    int (*names_start)(struct names *names, const char *host, int family, void *query);
    void (*names_cancel)(struct names *names, void *query);
    void (*names_event)(struct names *names, int fd, unsigned events);
    uint64_t (*names_deadline)(struct names *names, uint64_t now);
};

extern struct os os_linux;
struct os *os_linux_forked(void); /* the same, but nothing moves: bytes and clients are -ECHILD */

/* names_hosts.c, names_cares.c: behind os_linux only. */
int hosts_lookup(const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os);
int cares_open(struct names **ret, struct names_client *client, const char *servers, struct os *os);
void cares_close(struct names *names);
int cares_start(struct names *names, const char *host, int family, void *query);
void cares_cancel(struct names *names, void *query);
void cares_event(struct names *names, int fd, unsigned events);
uint64_t cares_deadline(struct names *names, uint64_t now);

#endif
