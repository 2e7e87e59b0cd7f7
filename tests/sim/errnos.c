/* errnos.c: what may go wrong with each call, by the manual pages, section 2, and accept(2)'s list of what it passes on
 * from the network. Left out is what only a caller's mistake brings about (EBADF, EFAULT, EINVAL, ENOTSOCK, ...), and
 * what the state of a descriptor decides, which the simulated kernel says itself.
 *
 * Some are rare. A security module may deny any call that takes a descriptor (EACCES or EPERM), shutdown(2) and the
 * names of a socket find the connection gone (ENOTCONN), and setsockopt(2) finds options that this kernel has not
 * (ENOPROTOOPT). recv(2) and send(2) pass on what the network said of the connection,
 * which then is lost. */
#include "errnos.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define LIST(...) ((const int[]){__VA_ARGS__, 0})

static const int *const lists[ASYNCORE_SIM_CALLS] = {
    [ASYNCORE_SIM_ALLOC] = LIST(-ENOMEM),
    [ASYNCORE_SIM_SOCKET] = LIST(-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM, -EACCES, -EAFNOSUPPORT),
    [ASYNCORE_SIM_BIND] = LIST(-EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -ENOMEM),
    [ASYNCORE_SIM_LISTEN] = LIST(-EADDRINUSE, -ENOMEM),
    [ASYNCORE_SIM_ACCEPT] = LIST(-ECONNABORTED, -EINTR, -EAGAIN, -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM, -EPERM, -EPROTO,
                                 -ENETDOWN, -EHOSTUNREACH),
    [ASYNCORE_SIM_CONNECT] = LIST(-ECONNREFUSED, -ETIMEDOUT, -EHOSTUNREACH, -ENETUNREACH, -EADDRNOTAVAIL, -EACCES,
                                  -EAGAIN, -EINTR, -ENOMEM, -ENOBUFS),
    [ASYNCORE_SIM_RECV] = LIST(-ECONNRESET, -EINTR, -EAGAIN, -ENOMEM, -ENOBUFS, -ETIMEDOUT, -EHOSTUNREACH),
    [ASYNCORE_SIM_SEND] = LIST(-ECONNRESET, -EPIPE, -EINTR, -EAGAIN, -ENOMEM, -ENOBUFS, -ETIMEDOUT, -EHOSTUNREACH),
    [ASYNCORE_SIM_RECVFROM] = LIST(-ECONNREFUSED, -EINTR, -EAGAIN, -ENOMEM),
    [ASYNCORE_SIM_SENDTO] = LIST(-ECONNREFUSED, -EINTR, -EAGAIN, -ENOBUFS, -ENOMEM, -EMSGSIZE, -ENETUNREACH, -EPERM),
    [ASYNCORE_SIM_SHUTDOWN] = LIST(-ENOTCONN),
    [ASYNCORE_SIM_SETSOCKOPT] = LIST(-ENOMEM, -EPERM, -ENOPROTOOPT),
    [ASYNCORE_SIM_GETSOCKOPT] = LIST(-ENOBUFS, -EACCES),
    [ASYNCORE_SIM_GETSOCKNAME] = LIST(-ENOBUFS),
    [ASYNCORE_SIM_GETPEERNAME] = LIST(-ENOBUFS, -ENOTCONN),
    [ASYNCORE_SIM_READ] = LIST(-EINTR, -EAGAIN, -EIO),
    [ASYNCORE_SIM_WRITE] = LIST(-EINTR, -EAGAIN, -EIO, -EPIPE, -ENOSPC),
    [ASYNCORE_SIM_CLOSE] = LIST(-EINTR, -EIO),
    [ASYNCORE_SIM_GET_FLAGS] = LIST(-EACCES),
    [ASYNCORE_SIM_SET_FLAGS] = LIST(-EPERM),
    [ASYNCORE_SIM_IDENTITY] = LIST(-ENOMEM, -EACCES),
    [ASYNCORE_SIM_EPOLL_CREATE] = LIST(-EMFILE, -ENFILE, -ENOMEM),
    [ASYNCORE_SIM_EPOLL_CTL] = LIST(-ENOMEM, -ENOSPC),
    [ASYNCORE_SIM_EPOLL_WAIT] = LIST(-EINTR),
    [ASYNCORE_SIM_POLL] = LIST(-EINTR, -ENOMEM),
    [ASYNCORE_SIM_SELECT] = LIST(-EINTR, -ENOMEM),
    [ASYNCORE_SIM_EVENTFD] = LIST(-EMFILE, -ENFILE, -ENOMEM),
    [ASYNCORE_SIM_TIMERFD] = LIST(-EMFILE, -ENFILE, -ENOMEM),
    [ASYNCORE_SIM_SIGNAL_OPEN] = LIST(-EMFILE, -ENFILE, -ENOMEM),
    [ASYNCORE_SIM_HOSTS] = LIST(-EMFILE, -ENFILE, -EACCES, -ENOMEM),
    [ASYNCORE_SIM_NAMES_OPEN] = LIST(-ENOMEM),
    [ASYNCORE_SIM_NAMES_START] = LIST(-ENOMEM),
};

const int *errnos_of(enum asyncore_sim_call call)
{
    static const int none[] = {0};

    return lists[call] != NULL ? lists[call] : none;
}

#define NAME(error)                                                                                                    \
    {                                                                                                                  \
#error, -(error)                                                                                               \
    }
static const struct {
    const char *name;
    int error;
} names[] = {NAME(EACCES),      NAME(EADDRINUSE),   NAME(EADDRNOTAVAIL), NAME(EAFNOSUPPORT), NAME(EAGAIN),
             NAME(EBADF),       NAME(ECONNABORTED), NAME(ECONNREFUSED),  NAME(ECONNRESET),   NAME(EHOSTUNREACH),
             NAME(EINTR),       NAME(EINVAL),       NAME(EIO),           NAME(EMFILE),       NAME(EMSGSIZE),
             NAME(ENETDOWN),    NAME(ENETUNREACH),  NAME(ENFILE),        NAME(ENOBUFS),      NAME(ENOMEM),
             NAME(ENOPROTOOPT), NAME(ENOSPC),       NAME(ENOTCONN),      NAME(ENOTSOCK),     NAME(EOPNOTSUPP),
             NAME(EPERM),       NAME(EPIPE),        NAME(EPROTO),        NAME(ETIMEDOUT)};
#undef NAME

const char *errno_name(int error)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error)
            return names[i].name;
    return "?";
}

int errno_by_name(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (*text != '\0' && *end == '\0')
        return (int)(n > 0 ? -n : n);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i].name, text) == 0)
            return names[i].error;
    return 0;
}
