/* os_linux.c: the real kernel behind the os table. Each function is its system call with errno as the result;
 * nothing here decides anything. */
#include "os.h"
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define UNUSED (void)os
#define RESULT(call)                                                                                                   \
    UNUSED;                                                                                                            \
    ssize_t result = (call);                                                                                           \
    return result < 0 ? -errno : result
/* The calls of every message: an interrupted one has nothing yet, and said here it costs their callers no frame. */
#define RESULT_IO(call)                                                                                                \
    UNUSED;                                                                                                            \
    ssize_t result = (call);                                                                                           \
    return result >= 0 ? result : errno == EINTR ? -EAGAIN : -errno
#define RESULT_INT(call)                                                                                               \
    UNUSED;                                                                                                            \
    int result = (call);                                                                                               \
    return result < 0 ? -errno : result

static void *linux_alloc(size_t size, struct os *os)
{
    UNUSED;
    return malloc(size);
}

static void *linux_realloc(void *memory, size_t size, struct os *os)
{
    UNUSED;
    return realloc(memory, size);
}

static void linux_free(void *memory, struct os *os)
{
    UNUSED;
    free(memory);
}

static uint64_t linux_now(struct os *os)
{
    UNUSED;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int linux_socket(int family, int type, int protocol, struct os *os)
{
    RESULT_INT(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
}

static int linux_bind(int fd, const struct sockaddr *address, socklen_t length, struct os *os)
{
    RESULT_INT(bind(fd, address, length));
}

static int linux_listen(int fd, int backlog, struct os *os)
{
    RESULT_INT(listen(fd, backlog));
}

static int linux_accept(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    RESULT_INT(accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

static int linux_connect(int fd, const struct sockaddr *address, socklen_t length, struct os *os)
{
    RESULT_INT(connect(fd, address, length));
}

static FAST ssize_t linux_recv(int fd, void *data, size_t size, int flags, struct os *os)
{
    RESULT_IO(recv(fd, data, size, flags));
}

static FAST ssize_t linux_send(int fd, const void *data, size_t size, int flags, struct os *os)
{
    RESULT_IO(send(fd, data, size, flags));
}

static ssize_t linux_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length,
                              struct os *os)
{
    RESULT(recvfrom(fd, data, size, flags, address, length));
}

static ssize_t linux_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                            socklen_t length, struct os *os)
{
    RESULT(sendto(fd, data, size, flags, address, length));
}

static int linux_shutdown(int fd, int how, struct os *os)
{
    RESULT_INT(shutdown(fd, how));
}

static int linux_setsockopt(int fd, int level, int option, const void *value, socklen_t length, struct os *os)
{
    RESULT_INT(setsockopt(fd, level, option, value, length));
}

static int linux_getsockopt(int fd, int level, int option, void *value, socklen_t *length, struct os *os)
{
    RESULT_INT(getsockopt(fd, level, option, value, length));
}

static int linux_getsockname(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    RESULT_INT(getsockname(fd, address, length));
}

static int linux_getpeername(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    RESULT_INT(getpeername(fd, address, length));
}

static ssize_t linux_read(int fd, void *data, size_t size, struct os *os)
{
    RESULT(read(fd, data, size));
}

static ssize_t linux_write(int fd, const void *data, size_t size, struct os *os)
{
    RESULT(write(fd, data, size));
}

static int linux_close(int fd, struct os *os)
{
    RESULT_INT(close(fd));
}

static int linux_pipe(int ends[2], size_t size, struct os *os)
{
    UNUSED;
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
        return -errno;
    if (size > 0) /* refused past what the system, or the user, may have: then it stays as it is */
        fcntl(ends[1], F_SETPIPE_SZ, (int)size);
    int granted = fcntl(ends[1], F_GETPIPE_SZ);
    int error = errno;
    if (granted > 0)
        return granted;
    close(ends[0]);
    close(ends[1]);
    return -error;
}

static ssize_t linux_splice(int from, int to, size_t size, struct os *os)
{
    RESULT_IO(splice(from, NULL, to, NULL, size, SPLICE_F_NONBLOCK | SPLICE_F_MOVE));
}

static int linux_get_flags(int fd, struct os *os)
{
    RESULT_INT(fcntl(fd, F_GETFL));
}

static int linux_set_flags(int fd, int flags, struct os *os)
{
    RESULT_INT(fcntl(fd, F_SETFL, flags));
}

static int linux_identity(int fd, uint32_t *identity, struct os *os)
{
    UNUSED;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    /* Sockets and pipes have an inode each (inode(7)); the odd factor keeps devices apart. */
    *identity = (uint32_t)st.st_ino ^ (uint32_t)(st.st_ino >> 32) ^ (uint32_t)st.st_dev * 2654435761u;
    return 0;
}

static int linux_epoll_create(struct os *os)
{
    RESULT_INT(epoll_create1(EPOLL_CLOEXEC));
}

static int linux_epoll_ctl(int set, int op, int fd, struct epoll_event *event, struct os *os)
{
    RESULT_INT(epoll_ctl(set, op, fd, event));
}

static FAST int linux_epoll_wait(int set, struct epoll_event *events, int size, int timeout, struct os *os)
{
    RESULT_INT(epoll_wait(set, events, size, timeout));
}

static int linux_poll(struct pollfd *fds, nfds_t count, int timeout, struct os *os)
{
    RESULT_INT(poll(fds, count, timeout));
}

static int linux_select(int count, fd_set *reads, fd_set *writes, fd_set *excepts, int timeout, struct os *os)
{
    struct timeval t = {timeout / 1000, timeout % 1000 * 1000};
    RESULT_INT(select(count, reads, writes, excepts, timeout < 0 ? NULL : &t));
}

static int linux_eventfd(struct os *os)
{
    RESULT_INT(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static int linux_timerfd(struct os *os)
{
    RESULT_INT(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
}

static int linux_timerfd_set(int fd, uint64_t deadline, struct os *os)
{
    struct itimerspec t = {{0, 0}, {(time_t)(deadline / 1000000000u), (long)(deadline % 1000000000u)}};
    RESULT_INT(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
}

static int linux_signal_open(int number, int *was_blocked, struct os *os)
{
    UNUSED;
    sigset_t set, old;
    sigemptyset(&set);
    if (sigaddset(&set, number) < 0)
        return -EINVAL;
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    pthread_sigmask(SIG_BLOCK, &set, &old);
    *was_blocked = sigismember(&old, number);
    return fd;
}

static void linux_signal_close(int fd, int number, int was_blocked, struct os *os)
{
    UNUSED;
    sigset_t set;
    struct signalfd_siginfo pending;
    /* One that is still pending would be delivered, and may kill, when it is unblocked. */
    while (!was_blocked && read(fd, &pending, sizeof pending) > 0)
        ;
    close(fd);
    if (was_blocked)
        return;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static unsigned linux_interface_index(const char *name, struct os *os)
{
    UNUSED;
    return if_nametoindex(name);
}

static char *linux_interface_name(unsigned index, char *name, struct os *os)
{
    UNUSED;
    return if_indextoname(index, name);
}

static int linux_uring_setup(unsigned entries, struct io_uring_params *params, struct os *os)
{
    RESULT_INT((int)syscall(SYS_io_uring_setup, entries, params));
}

static int linux_uring_enter(int ring, unsigned submit, unsigned complete, unsigned flags, const void *argument,
                             size_t size, struct os *os)
{
    RESULT_INT((int)syscall(SYS_io_uring_enter, ring, submit, complete, flags, argument, size));
}

static int linux_uring_register(int ring, unsigned operation, void *argument, unsigned count, struct os *os)
{
    RESULT_INT((int)syscall(SYS_io_uring_register, ring, operation, argument, count));
}

static void *linux_uring_map(int ring, size_t size, uint64_t offset, struct os *os)
{
    UNUSED;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, (off_t)offset);
    return memory == MAP_FAILED ? NULL : memory;
}

static void linux_uring_unmap(void *memory, size_t size, struct os *os)
{
    UNUSED;
    munmap(memory, size);
}

struct os os_linux = {
    .alloc = linux_alloc,
    .realloc = linux_realloc,
    .free = linux_free,
    .now = linux_now,
    .socket = linux_socket,
    .bind = linux_bind,
    .listen = linux_listen,
    .accept = linux_accept,
    .connect = linux_connect,
    .recv = linux_recv,
    .send = linux_send,
    .recvfrom = linux_recvfrom,
    .sendto = linux_sendto,
    .shutdown = linux_shutdown,
    .setsockopt = linux_setsockopt,
    .getsockopt = linux_getsockopt,
    .getsockname = linux_getsockname,
    .getpeername = linux_getpeername,
    .read = linux_read,
    .write = linux_write,
    .close = linux_close,
    .pipe = linux_pipe,
    .splice = linux_splice,
    .get_flags = linux_get_flags,
    .set_flags = linux_set_flags,
    .identity = linux_identity,
    .epoll_create = linux_epoll_create,
    .epoll_ctl = linux_epoll_ctl,
    .epoll_wait = linux_epoll_wait,
    .poll = linux_poll,
    .select = linux_select,
    .eventfd = linux_eventfd,
    .timerfd = linux_timerfd,
    .timerfd_set = linux_timerfd_set,
    .signal_open = linux_signal_open,
    .signal_close = linux_signal_close,
    .interface_index = linux_interface_index,
    .interface_name = linux_interface_name,
    .uring_setup = linux_uring_setup,
    .uring_enter = linux_uring_enter,
    .uring_register = linux_uring_register,
    .uring_map = linux_uring_map,
    .uring_unmap = linux_uring_unmap,
    .hosts = hosts_lookup,
#ifdef HAVE_CARES
    .names_open = cares_open,
    .names_close = cares_close,
    .names_start = cares_start,
    .names_cancel = cares_cancel,
    .names_event = cares_event,
    .names_deadline = cares_deadline,
#endif
};

/* -- In a child of fork() that has not taken the map over -- */

static ssize_t forked_recv(int fd, void *data, size_t size, int flags, struct os *os)
{
    UNUSED, (void)fd, (void)data, (void)size, (void)flags;
    return -ECHILD;
}

static ssize_t forked_send(int fd, const void *data, size_t size, int flags, struct os *os)
{
    UNUSED, (void)fd, (void)data, (void)size, (void)flags;
    return -ECHILD;
}

static ssize_t forked_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length,
                               struct os *os)
{
    UNUSED, (void)fd, (void)data, (void)size, (void)flags, (void)address, (void)length;
    return -ECHILD;
}

static ssize_t forked_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                             socklen_t length, struct os *os)
{
    UNUSED, (void)fd, (void)data, (void)size, (void)flags, (void)address, (void)length;
    return -ECHILD;
}

static ssize_t forked_read(int fd, void *data, size_t size, struct os *os)
{
    UNUSED, (void)fd, (void)data, (void)size;
    return -ECHILD;
}

static ssize_t forked_write(int fd, const void *data, size_t size, struct os *os)
{
    UNUSED, (void)fd, (void)data, (void)size;
    return -ECHILD;
}

static int forked_pipe(int ends[2], size_t size, struct os *os)
{
    UNUSED, (void)ends, (void)size;
    return -ECHILD;
}

static ssize_t forked_splice(int from, int to, size_t size, struct os *os)
{
    UNUSED, (void)from, (void)to, (void)size;
    return -ECHILD;
}

static int forked_accept(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    UNUSED, (void)fd, (void)address, (void)length;
    return -ECHILD;
}

struct os *os_linux_forked(void)
{
    static struct os forked; /* written in children only, which have one thread, before any use */
    if (forked.alloc == NULL) {
        forked = os_linux;
        forked.recv = forked_recv;
        forked.send = forked_send;
        forked.recvfrom = forked_recvfrom;
        forked.sendto = forked_sendto;
        forked.read = forked_read;
        forked.write = forked_write;
        forked.accept = forked_accept;
        forked.pipe = forked_pipe;
        forked.splice = forked_splice;
    }
    return &forked;
}
