/* sim_os.c: the os table of a simulated host. Each function counts its call, lets scripts and chance make it fail, does
 * it, and writes the trace. What a fault may do to a call is what Linux may: the manual pages' errors of each call. */
#include "sim_socket.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define BOOT (1000 * ASYNCORE_SIM_SECOND) /* what a host's clock shows when the world begins */

static const char *const call_names[ASYNCORE_SIM_CALLS] = {
    "any",         "alloc",        "socket",      "bind",       "listen",     "accept",     "connect",
    "recv",        "send",         "recvfrom",    "sendto",     "shutdown",   "setsockopt", "getsockopt",
    "getsockname", "getpeername",  "read",        "write",      "close",      "get_flags",  "set_flags",
    "identity",    "epoll_create", "epoll_ctl",   "epoll_wait", "poll",       "select",     "eventfd",
    "timerfd",     "timerfd_set",  "signal_open", "hosts",      "names_open", "names_start"};

const char *asyncore_sim_call_name(enum asyncore_sim_call call)
{
    return (unsigned)call < ASYNCORE_SIM_CALLS ? call_names[call] : NULL;
}

static struct sim_host *host_of(struct os *os)
{
    return (struct sim_host *)os;
}

/* What only one engine calls takes no time, or time would pass differently with each. */
static bool is_engines(enum asyncore_sim_call call)
{
    return call >= ASYNCORE_SIM_EPOLL_CREATE && call <= ASYNCORE_SIM_SELECT;
}

static int scripted(struct sim_host *host, enum asyncore_sim_call call)
{
    const struct asyncore_sim_options *o = &host->world->options;
    int error = 0;
    for (size_t i = 0; i < o->script_count; i++) {
        const struct asyncore_sim_script *script = &o->script[i];
        bool fits = script->call == call || (script->call == ASYNCORE_SIM_ANY && call != ASYNCORE_SIM_ALLOC);
        bool here = script->host == NULL ? host->step == NULL : strcmp(script->host, host->name) == 0;
        if (fits && here && ++host->scripted[i] == script->k) /* a host without a map is struck by its name only */
            error = script->error;
    }
    host->world->struck += error != 0;
    return error;
}

int sim_enter(struct sim_host *host, enum asyncore_sim_call call)
{
    struct asyncore_sim *world = host->world;
    host->usage.calls[call]++;
    if (call != ASYNCORE_SIM_ALLOC) {
        host->usage.calls[ASYNCORE_SIM_ANY]++;
        if (world->options.call_ns != 0 && host->map != NULL && !is_engines(call))
            host->worked += sim_mix(world->seed, host->usage.calls[ASYNCORE_SIM_ANY]) % (2 * world->options.call_ns);
    }
    return world->options.script_count != 0 ? scripted(host, call) : 0;
}

static struct sim_socket *socket_of(struct sim_host *host, int fd, int *error)
{
    return *error == 0 ? sim_socket_of(host, fd, error) : NULL;
}

/* What a script says of a connection is true: after an error that means its loss it is lost. */
static void lost(struct sim_host *host, int fd, int error)
{
    int none = 0;
    if (error != -ECONNRESET && error != -EPIPE && error != -ETIMEDOUT && error != -EHOSTUNREACH)
        return;
    struct sim_socket *socket = sim_socket_of(host, fd, &none);
    if (socket != NULL && socket->type == SOCK_STREAM && sim_stream_break(socket))
        sim_take_error(socket); /* it is told by this call */
}

static unsigned number_of(const struct sim_socket *socket)
{
    return socket != NULL ? socket->file.number : 0;
}

/* -- Memory and time -- */

union header {
    size_t size;
    max_align_t align;
};

static void *sim_os_alloc(size_t size, struct os *os)
{
    struct sim_host *host = host_of(os);
    if (sim_enter(host, ASYNCORE_SIM_ALLOC) != 0 || sim_fault(host, NULL, ASYNCORE_SIM_ENOMEM))
        return NULL;
    union header *memory = malloc(sizeof *memory + size);
    if (memory == NULL)
        return NULL;
    memory->size = size;
    host->usage.blocks++;
    host->usage.bytes += size;
    if (host->usage.bytes > host->usage.bytes_most)
        host->usage.bytes_most = host->usage.bytes;
    return memory + 1;
}

static void sim_os_free(void *memory, struct os *os)
{
    struct sim_host *host = host_of(os);
    if (memory == NULL)
        return;
    union header *header = (union header *)memory - 1;
    host->usage.blocks--;
    host->usage.bytes -= header->size;
    free(header);
}

static void *sim_os_realloc(void *memory, size_t size, struct os *os)
{
    void *grown = sim_os_alloc(size, os);
    if (grown == NULL || memory == NULL)
        return grown;
    size_t old = ((union header *)memory - 1)->size;
    memcpy(grown, memory, old < size ? old : size);
    sim_os_free(memory, os);
    return grown;
}

static uint64_t sim_os_now(struct os *os)
{
    struct sim_host *host = host_of(os);
    return BOOT + sim_host_time(host) + host->ahead;
}

/* -- Sockets -- */

static int sim_os_socket(int family, int type, int protocol, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_SOCKET);
    if (result == 0 && sim_fault(host, NULL, ASYNCORE_SIM_EMFILE))
        result = -EMFILE;
    if (result == 0 && sim_fault(host, NULL, ASYNCORE_SIM_ENOBUFS))
        result = -ENOBUFS;
    if (result == 0)
        result = sim_socket_open(host, family, type, protocol);
    sim_trace(host, "#%u socket %d %d = %d", result >= 0 ? sim_file_of(host, result)->number : 0, family, type,
              result < 0 ? result : 0);
    return result;
}

static int sim_os_bind(int fd, const struct sockaddr *address, socklen_t length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_BIND);
    struct sim_socket *socket = socket_of(host, fd, &result);
    if (result == 0)
        result = sim_bind(socket, address, length);
    sim_trace(host, "#%u bind = %d", number_of(socket), result);
    return result;
}

static int sim_os_listen(int fd, int backlog, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_LISTEN);
    struct sim_socket *socket = socket_of(host, fd, &result);
    if (result == 0)
        result = sim_listen(socket, backlog);
    sim_trace(host, "#%u listen %d = %d", number_of(socket), backlog, result);
    return result;
}

static int accept_struck(struct sim_host *host, struct sim_socket *listener)
{
    struct sim_file *file = &listener->file;
    if (sim_fault(host, file, ASYNCORE_SIM_EINTR))
        return -EINTR;
    if (sim_fault(host, file, ASYNCORE_SIM_EAGAIN))
        return -EAGAIN;
    if (sim_fault(host, file, ASYNCORE_SIM_EMFILE))
        return -EMFILE;
    if (sim_fault(host, file, ASYNCORE_SIM_ENOBUFS))
        return -ENOBUFS;
    if (list_empty(&listener->queue) || !sim_fault(host, file, ASYNCORE_SIM_ABORTED))
        return 0;
    sim_stream_drop_first(listener);
    return -ECONNABORTED;
}

static int sim_os_accept(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_ACCEPT);
    struct sim_socket *listener = socket_of(host, fd, &result), *child = NULL;
    if (result == 0 && listener->state == STATE_LISTENING)
        result = accept_struck(host, listener);
    if (result == 0)
        result = sim_stream_accept(listener, &child);
    if (child != NULL) {
        struct sim_address peer = sim_shown(&child->peer, child->family);
        if (peer.length == 0) { /* an unnamed Unix socket */
            peer.storage.ss_family = (sa_family_t)child->family;
            peer.length = sizeof(sa_family_t);
        }
        sim_address_out(&peer, address, length);
        child->told = true;
    }
    sim_trace(host, "#%u accept = %s%d", number_of(listener), child != NULL ? "#" : "",
              child != NULL ? (int)child->file.number : result);
    return result;
}

static int sim_os_connect(int fd, const struct sockaddr *address, socklen_t length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_CONNECT);
    struct sim_socket *socket = socket_of(host, fd, &result);
    if (result == 0 && sim_fault(host, &socket->file, ASYNCORE_SIM_ENOBUFS))
        result = -ENOBUFS;
    if (result == 0)
        result = socket->type == SOCK_STREAM ? sim_stream_connect(socket, address, length)
                                             : sim_dgram_connect(socket, address, length);
    if (result == -EINPROGRESS && sim_fault(host, &socket->file, ASYNCORE_SIM_EINTR))
        result = -EINTR; /* and goes on (connect(2)) */
    sim_trace(host, "#%u connect = %d", number_of(socket), result);
    return result;
}

static int sim_os_shutdown(int fd, int how, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_SHUTDOWN);
    struct sim_socket *socket = socket_of(host, fd, &result);
    if (result == 0)
        result = socket->type == SOCK_STREAM ? sim_stream_shutdown(socket, how) : sim_dgram_shutdown(socket, how);
    sim_trace(host, "#%u shutdown %d = %d", number_of(socket), how, result);
    return result;
}

static int sim_os_setsockopt(int fd, int level, int option, const void *value, socklen_t length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_SETSOCKOPT);
    struct sim_socket *socket = socket_of(host, fd, &result);
    if (result == 0)
        result = sim_setsockopt(socket, level, option, value, length);
    sim_trace(host, "#%u setsockopt %d %d = %d", number_of(socket), level, option, result);
    return result;
}

static int sim_os_getsockopt(int fd, int level, int option, void *value, socklen_t *length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_GETSOCKOPT);
    struct sim_socket *socket = socket_of(host, fd, &result);
    if (result == 0)
        result = sim_getsockopt(socket, level, option, value, length);
    sim_trace(host, "#%u getsockopt %d %d = %d", number_of(socket), level, option, result);
    return result;
}

static int sim_os_getsockname(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_GETSOCKNAME);
    struct sim_socket *socket = socket_of(host, fd, &result);
    return result == 0 ? sim_sockname(socket, address, length) : result;
}

static int sim_os_getpeername(int fd, struct sockaddr *address, socklen_t *length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_GETPEERNAME);
    struct sim_socket *socket = socket_of(host, fd, &result);
    return result == 0 ? sim_peername(socket, address, length) : result;
}

/* -- Bytes -- */

/* What may strike a call that moves bytes, but for a lost connection, which is found by the call itself. */
static int bytes_struck(struct sim_host *host, struct sim_file *file, int no_memory)
{
    if (sim_fault(host, file, ASYNCORE_SIM_EINTR))
        return -EINTR;
    if (sim_fault(host, file, ASYNCORE_SIM_EAGAIN))
        return -EAGAIN;
    return no_memory != 0 && sim_fault(host, file, ASYNCORE_SIM_ENOBUFS) ? no_memory : 0;
}

static size_t shortened(struct sim_host *host, struct sim_file *file, size_t size)
{
    if (size < 2 || !sim_fault(host, file, ASYNCORE_SIM_SHORT))
        return size;
    return 1 + sim_mix(host->world->seed ^ file->number, file->asked[ASYNCORE_SIM_SHORT]) % (size - 1);
}

static ssize_t sim_os_recv(int fd, void *data, size_t size, int flags, struct os *os)
{
    struct sim_host *host = host_of(os);
    int error = sim_enter(host, ASYNCORE_SIM_RECV);
    lost(host, fd, error);
    struct sim_socket *socket = socket_of(host, fd, &error);
    bool stream = error == 0 && socket->type == SOCK_STREAM;
    if (error == 0)
        error = bytes_struck(host, &socket->file, -ENOMEM);
    if (error == 0 && stream && sim_fault(host, &socket->file, ASYNCORE_SIM_RESET))
        sim_stream_break(socket);
    ssize_t n = error == -EINTR ? -EAGAIN : error; /* os.h: recv and send say so themselves */
    if (error == 0 && stream)
        n = sim_stream_recv(socket, data, flags & MSG_PEEK ? size : shortened(host, &socket->file, size), flags);
    else if (error == 0)
        n = sim_dgram_recv(socket, data, size, flags, NULL);
    sim_trace(host, "#%u recv %zu = %zd", number_of(socket), size, n);
    return n;
}

static ssize_t sim_os_send(int fd, const void *data, size_t size, int flags, struct os *os)
{
    struct sim_host *host = host_of(os);
    int error = sim_enter(host, ASYNCORE_SIM_SEND);
    lost(host, fd, error);
    struct sim_socket *socket = socket_of(host, fd, &error);
    bool stream = error == 0 && socket->type == SOCK_STREAM;
    (void)flags;
    if (error == 0)
        error = bytes_struck(host, &socket->file, -ENOBUFS);
    if (error == 0 && stream && sim_fault(host, &socket->file, ASYNCORE_SIM_RESET))
        sim_stream_break(socket);
    ssize_t n = error == -EINTR ? -EAGAIN : error;
    if (error == 0 && stream)
        n = sim_stream_send(socket, data, shortened(host, &socket->file, size));
    else if (error == 0)
        n = sim_dgram_send(socket, data, size, NULL, 0);
    sim_trace(host, "#%u send %zu = %zd", number_of(socket), size, n);
    return n;
}

static ssize_t sim_os_recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length,
                               struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_address from = {.length = 0};
    int error = sim_enter(host, ASYNCORE_SIM_RECVFROM);
    struct sim_socket *socket = socket_of(host, fd, &error);
    if (error == 0)
        error = bytes_struck(host, &socket->file, -ENOMEM);
    ssize_t n = error;
    if (error == 0 && socket->type == SOCK_STREAM) {
        char any;
        n = size == 0 ? sim_stream_recv(socket, &any, 1, MSG_PEEK) : sim_stream_recv(socket, data, size, flags);
        if (n > 0 && socket->family == AF_UNIX) /* TCP does not say who sent it */
            from = socket->peer;
        n = size == 0 && n > 0 ? 0 : n;
    }
    if (error == 0 && socket->type != SOCK_STREAM)
        n = sim_dgram_recv(socket, data, size, flags, &from);
    if (n >= 0) {
        struct sim_address shown = sim_shown(&from, socket->family);
        sim_address_out(&shown, address, length);
    }
    sim_trace(host, "#%u recvfrom %zu = %zd", number_of(socket), size, n);
    return n;
}

static ssize_t sim_os_sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address,
                             socklen_t length, struct os *os)
{
    struct sim_host *host = host_of(os);
    int error = sim_enter(host, ASYNCORE_SIM_SENDTO);
    struct sim_socket *socket = socket_of(host, fd, &error);
    (void)flags;
    if (error == 0)
        error = bytes_struck(host, &socket->file, -ENOBUFS);
    if (address == NULL || length == 0)
        address = NULL;
    if (error == 0 && address != NULL && socket->type == SOCK_STREAM && socket->family == AF_UNIX)
        error = socket->state == STATE_CONNECTED ? -EISCONN : -EOPNOTSUPP; /* TCP takes no notice */
    ssize_t n = error;
    if (error == 0 && socket->type == SOCK_STREAM)
        n = sim_stream_send(socket, data, size);
    else if (error == 0)
        n = sim_dgram_send(socket, data, size, address, length);
    sim_trace(host, "#%u sendto %zu = %zd", number_of(socket), size, n);
    return n;
}

static bool is_pipe_or_stream(const struct sim_file *file)
{
    return file->kind->name[0] == 'p' || file->kind == &sim_stream_kind;
}

static ssize_t sim_os_read(int fd, void *data, size_t size, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    int error = sim_enter(host, ASYNCORE_SIM_READ);
    if (error == 0 && file == NULL)
        error = -EBADF;
    if (error == 0)
        error = bytes_struck(host, file, 0);
    if (error == 0 && is_pipe_or_stream(file))
        size = shortened(host, file, size);
    ssize_t n = error == 0 ? file->kind->read(file, data, size) : error;
    sim_trace(host, "#%u read %zu = %zd", file != NULL ? file->number : 0, size, n);
    return n;
}

static ssize_t sim_os_write(int fd, const void *data, size_t size, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    int error = sim_enter(host, ASYNCORE_SIM_WRITE);
    if (error == 0 && file == NULL)
        error = -EBADF;
    if (error == 0 && is_pipe_or_stream(file)) { /* a wake-up is not lost */
        error = bytes_struck(host, file, 0);
        size = error == 0 ? shortened(host, file, size) : size;
    }
    ssize_t n = error == 0 ? file->kind->write(file, data, size) : error;
    sim_trace(host, "#%u write %zu = %zd", file != NULL ? file->number : 0, size, n);
    return n;
}

/* -- Descriptors -- */

/* Whatever it says, the descriptor is gone (close(2)). */
static int sim_os_close(int fd, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    unsigned number = file != NULL ? file->number : 0;
    int error = sim_enter(host, ASYNCORE_SIM_CLOSE);
    bool interrupted = file != NULL && sim_fault(host, file, ASYNCORE_SIM_EINTR);
    int result = sim_file_close(host, fd);
    if (error == 0 && interrupted)
        error = -EINTR;
    sim_trace(host, "#%u close = %d", number, error != 0 ? error : result);
    return error != 0 ? error : result;
}

static int sim_os_get_flags(int fd, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    int error = sim_enter(host, ASYNCORE_SIM_GET_FLAGS);
    return error != 0 ? error : file == NULL ? -EBADF : file->flags;
}

#define SETTABLE (O_APPEND | O_ASYNC | O_NONBLOCK) /* fcntl(2): the others it ignores */

static int sim_os_set_flags(int fd, int flags, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    int error = sim_enter(host, ASYNCORE_SIM_SET_FLAGS);
    if (error == 0 && file == NULL)
        error = -EBADF;
    if (error == 0)
        file->flags = (file->flags & ~SETTABLE) | (flags & SETTABLE);
    return error;
}

static int sim_os_identity(int fd, uint32_t *identity, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    int error = sim_enter(host, ASYNCORE_SIM_IDENTITY);
    if (error == 0 && file == NULL)
        error = -EBADF;
    if (error == 0)
        *identity = file->number * 2654435761u;
    return error;
}

/* What only makes a descriptor. */
static int made(struct sim_host *host, enum asyncore_sim_call call, int (*make)(struct sim_host *host))
{
    int result = sim_enter(host, call);
    if (result == 0 && sim_fault(host, NULL, ASYNCORE_SIM_EMFILE))
        result = -EMFILE;
    if (result == 0)
        result = make(host);
    sim_trace(host, "%s = %d", call_names[call], result < 0 ? result : 0);
    return result;
}

static int sim_os_eventfd(struct os *os)
{
    return made(host_of(os), ASYNCORE_SIM_EVENTFD, sim_eventfd);
}

static int sim_os_timerfd(struct os *os)
{
    return made(host_of(os), ASYNCORE_SIM_TIMERFD, sim_timerfd);
}

static int sim_os_epoll_create(struct os *os)
{
    return made(host_of(os), ASYNCORE_SIM_EPOLL_CREATE, sim_epoll_create);
}

static int sim_os_timerfd_set(int fd, uint64_t deadline, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, fd);
    int error = sim_enter(host, ASYNCORE_SIM_TIMERFD_SET);
    if (error == 0 && file == NULL)
        error = -EBADF;
    return error != 0 ? error : sim_timerfd_set(file, deadline);
}

static int sim_os_signal_open(int number, int *was_blocked, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_SIGNAL_OPEN);
    if (result == 0 && sim_fault(host, NULL, ASYNCORE_SIM_EMFILE))
        result = -EMFILE;
    return result == 0 ? sim_signalfd(host, number, was_blocked) : result;
}

static void sim_os_signal_close(int fd, int number, int was_blocked, struct os *os)
{
    sim_signalfd_close(host_of(os), fd, number, was_blocked);
}

/* -- Waiting -- */

struct wait {
    struct sim_host *host;
    struct sim_file *set;
    struct epoll_event *events;
    struct pollfd *fds;
    fd_set *sets[3];
    nfds_t count;
};

static int waited(struct sim_host *host, enum asyncore_sim_call call, struct wait *wait, int timeout,
                  int (*ready)(void *arg))
{
    int result = sim_enter(host, call);
    if (result == 0 && sim_fault(host, NULL, ASYNCORE_SIM_EINTR))
        result = -EINTR;
    if (result == 0)
        result = sim_wait(host, timeout, ready, wait);
    if (result != SIM_WOULD_WAIT)
        sim_trace(host, "%s = %d", call_names[call], result);
    return result;
}

static int epoll_ready(void *arg)
{
    struct wait *wait = arg;
    return sim_epoll_wait(wait->set, wait->events, (int)wait->count);
}

static int sim_os_epoll_wait(int set, struct epoll_event *events, int size, int timeout, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct wait wait = {.set = sim_file_of(host, set), .events = events, .count = (nfds_t)size};
    return wait.set == NULL ? -EBADF : waited(host, ASYNCORE_SIM_EPOLL_WAIT, &wait, timeout, epoll_ready);
}

static int sim_os_epoll_ctl(int set, int op, int fd, struct epoll_event *event, struct os *os)
{
    struct sim_host *host = host_of(os);
    struct sim_file *file = sim_file_of(host, set), *target = sim_file_of(host, fd);
    int result = sim_enter(host, ASYNCORE_SIM_EPOLL_CTL);
    if (result != 0 && op == EPOLL_CTL_DEL && file != NULL) /* there is nothing in it that may fail */
        sim_epoll_ctl(file, op, fd, event);
    if (result == 0 && file == NULL)
        result = -EBADF;
    if (result == 0 && op == EPOLL_CTL_ADD && target != NULL && sim_fault(host, target, ASYNCORE_SIM_ENOBUFS))
        result = -ENOMEM;
    if (result == 0)
        result = sim_epoll_ctl(file, op, fd, event);
    sim_trace(host, "#%u epoll_ctl %d 0x%x = %d", target != NULL ? target->number : 0, op,
              op == EPOLL_CTL_DEL ? 0 : event->events, result);
    return result;
}

static int poll_ready(void *arg)
{
    struct wait *wait = arg;
    return sim_poll(wait->host, wait->fds, wait->count);
}

static int sim_os_poll(struct pollfd *fds, nfds_t count, int timeout, struct os *os)
{
    struct wait wait = {.host = host_of(os), .fds = fds, .count = count};
    return waited(wait.host, ASYNCORE_SIM_POLL, &wait, timeout, poll_ready);
}

static int select_ready(void *arg)
{
    struct wait *wait = arg;
    fd_set sets[3];
    fd_set *given[3];
    for (int i = 0; i < 3; i++) {
        given[i] = wait->sets[i] != NULL ? &sets[i] : NULL;
        if (wait->sets[i] != NULL)
            sets[i] = *wait->sets[i];
    }
    int ready = sim_select(wait->host, (int)wait->count, given[0], given[1], given[2]);
    for (int i = 0; i < 3 && ready > 0; i++)
        if (wait->sets[i] != NULL)
            *wait->sets[i] = sets[i];
    return ready;
}

static int sim_os_select(int count, fd_set *reads, fd_set *writes, fd_set *excepts, int timeout, struct os *os)
{
    struct wait wait = {.host = host_of(os), .sets = {reads, writes, excepts}, .count = (nfds_t)count};
    if (count < 0)
        return -EINVAL;
    int result = waited(wait.host, ASYNCORE_SIM_SELECT, &wait, timeout, select_ready);
    for (int i = 0; i < 3 && result == 0; i++)
        if (wait.sets[i] != NULL)
            FD_ZERO(wait.sets[i]);
    return result;
}

/* -- What it has and has not -- */

static unsigned sim_os_interface_index(const char *name, struct os *os)
{
    (void)os;
    return strcmp(name, "lo") == 0 ? 1 : strcmp(name, "eth0") == 0 ? 2 : 0;
}

static char *sim_os_interface_name(unsigned index, char *name, struct os *os)
{
    (void)os;
    return index == 1 ? strcpy(name, "lo") : index == 2 ? strcpy(name, "eth0") : NULL;
}

static int sim_os_pipe(int ends[2], size_t size, struct os *os)
{
    (void)ends, (void)size, (void)os;
    return -ENOSYS;
}

static ssize_t sim_os_splice(int from, int to, size_t size, struct os *os)
{
    (void)from, (void)to, (void)size, (void)os;
    return -ENOSYS;
}

static int sim_os_uring_setup(unsigned entries, struct io_uring_params *params, struct os *os)
{
    (void)entries, (void)params, (void)os;
    return -ENOSYS;
}

static int sim_os_uring_enter(int ring, unsigned submit, unsigned complete, unsigned flags, const void *argument,
                              size_t size, struct os *os)
{
    (void)ring, (void)submit, (void)complete, (void)flags, (void)argument, (void)size, (void)os;
    return -ENOSYS;
}

static int sim_os_uring_register(int ring, unsigned operation, void *argument, unsigned count, struct os *os)
{
    (void)ring, (void)operation, (void)argument, (void)count, (void)os;
    return -ENOSYS;
}

static void *sim_os_uring_map(int ring, size_t size, uint64_t offset, struct os *os)
{
    (void)ring, (void)size, (void)offset, (void)os;
    return NULL;
}

static void sim_os_uring_unmap(void *memory, size_t size, struct os *os)
{
    (void)memory, (void)size, (void)os;
}

/* -- Names -- */

static int sim_os_hosts(const char *name, int family, struct asyncore_address *addresses, size_t size, struct os *os)
{
    struct sim_host *host = host_of(os);
    int result = sim_enter(host, ASYNCORE_SIM_HOSTS);
    return result == 0 ? sim_hosts(host, name, family, addresses, size) : result;
}

static int sim_os_names_open(struct names **ret, struct names_client *client, const char *servers, struct os *os)
{
    (void)servers;
    return sim_names_open(ret, client, host_of(os));
}

void sim_os_fill(struct os *os)
{
    static const struct os table = {
        .alloc = sim_os_alloc,
        .realloc = sim_os_realloc,
        .free = sim_os_free,
        .now = sim_os_now,
        .socket = sim_os_socket,
        .bind = sim_os_bind,
        .listen = sim_os_listen,
        .accept = sim_os_accept,
        .connect = sim_os_connect,
        .recv = sim_os_recv,
        .send = sim_os_send,
        .recvfrom = sim_os_recvfrom,
        .sendto = sim_os_sendto,
        .shutdown = sim_os_shutdown,
        .setsockopt = sim_os_setsockopt,
        .getsockopt = sim_os_getsockopt,
        .getsockname = sim_os_getsockname,
        .getpeername = sim_os_getpeername,
        .read = sim_os_read,
        .write = sim_os_write,
        .close = sim_os_close,
        .pipe = sim_os_pipe,
        .splice = sim_os_splice,
        .get_flags = sim_os_get_flags,
        .set_flags = sim_os_set_flags,
        .identity = sim_os_identity,
        .epoll_create = sim_os_epoll_create,
        .epoll_ctl = sim_os_epoll_ctl,
        .epoll_wait = sim_os_epoll_wait,
        .poll = sim_os_poll,
        .select = sim_os_select,
        .eventfd = sim_os_eventfd,
        .timerfd = sim_os_timerfd,
        .timerfd_set = sim_os_timerfd_set,
        .signal_open = sim_os_signal_open,
        .signal_close = sim_os_signal_close,
        .interface_index = sim_os_interface_index,
        .interface_name = sim_os_interface_name,
        .uring_setup = sim_os_uring_setup,
        .uring_enter = sim_os_uring_enter,
        .uring_register = sim_os_uring_register,
        .uring_map = sim_os_uring_map,
        .uring_unmap = sim_os_uring_unmap,
        .hosts = sim_os_hosts,
        .names_open = sim_os_names_open,
        .names_close = sim_names_close,
        .names_start = sim_names_start,
        .names_cancel = sim_names_cancel,
        .names_event = sim_names_event,
        .names_deadline = sim_names_deadline,
    };
    *os = table;
}
