/* sock.c: a channel's socket: made, bound, connected, read and written.
 *
 * CONNECTING goes through a list of addresses: one that was given, or those that a name was found to have. Each gets
 * a socket of its own (the one that create_socket made serves the first of its family), and the loop waits until it
 * is writable. What connected at once is connected, and so is TCP that is writable and neither failed nor hung up; in
 * every other case a second connect(2) tells what came of it. Failures are recorded and told by the loop, even those
 * that the kernel knows at once.
 *
 * READING AND WRITING ask the kernel not to wait for this call (MSG_DONTWAIT), so that descriptors from elsewhere
 * need no fcntl. What recv and send find out about the connection is recorded here and told by settle() in
 * channel.c. */
#include "address.h"
#include "channel.h"
#include "engine.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

_Static_assert((unsigned)S_MORE == (unsigned)MSG_MORE, "the bit is handed to send(2)");

/* -- Sockets -- */

static int reuse(struct asyncore_dispatcher *d, int fd)
{
    int one = 1;
    return d->map->os->setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one, d->map->os);
}

/* The socket is the channel's while handle_socket runs, so that asyncore_setsockopt() finds it, and not yet in the map.
 * *fd is -1 afterwards if the handler closed the channel, and the socket with it. */
static int socket_made(struct asyncore_dispatcher *d, int *fd)
{
    struct asyncore_map *map = d->map;
    struct making made = {d, map->making};
    map->making = &made;
    d->fd = *fd;
    int result = call(d, handle_socket, *fd);
    map->making = made.outer;
    if (d->fd != *fd) {
        *fd = -1;
        return -ECANCELED;
    }
    d->fd = -1;
    return result;
}

static int socket_make(struct asyncore_dispatcher *d, int family)
{
    struct asyncore_map *map = d->map;
    if (being_made(d))
        return -EBUSY;
    int fd = map->os->socket(family, d->type_, 0, map->os);
    if (fd < 0)
        return fd;
    d->state_ &= ~(uint32_t)(S_EOF | S_EOF_TOLD); /* of the socket before; handle_socket may shut this one down */
    int result = d->state_ & S_REUSE ? reuse(d, fd) : 0;
    if (result == 0)
        result = socket_made(d, &fd);
    if (result >= 0)
        result = channel_attach(d, fd);
    if (result < 0) {
        if (fd >= 0)
            map->os->close(fd, map->os);
        return result;
    }
    d->family_ = (uint8_t)family;
    return 0;
}

int asyncore_create_socket(struct asyncore_dispatcher *d, int family, int type)
{
    int result = channel_usable(d);
    if (result < 0)
        return result;
    if (d->fd >= 0 || d->state_ & S_CONNECTING)
        return -EEXIST;
    d->state_ &= S_CLASS | S_REUSE | S_BORROWED | S_IDLE | S_ADDED | S_COUNTED | S_ANY_PENDING;
    d->error_ = 0;
    d->type_ = (uint8_t)type;
    return family == AF_UNSPEC ? 0 : socket_make(d, family);
}

/* For bind and connect: the socket is there already, or is made now that the family is known. */
static int socket_for(struct asyncore_dispatcher *d, int family)
{
    if (d->fd >= 0)
        return 0;
    if (d->type_ == 0)
        d->type_ = SOCK_STREAM;
    return socket_make(d, family);
}

/* For what only looks at the socket, or sets it: 0, -EBADF, or -ECHILD in a child, whose socket is its parent's too. */
static int socket_there(const struct asyncore_dispatcher *d)
{
    return d->fd < 0 ? -EBADF : map_forked(d->map);
}

int asyncore_set_reuse_addr(struct asyncore_dispatcher *d)
{
    int result = socket_there(d);
    if (result == 0)
        result = reuse(d, d->fd);
    else if (result == -EBADF)
        result = 0; /* once there is one */
    if (result == 0)
        d->state_ |= S_REUSE;
    return result;
}

int asyncore_bind_sockaddr(struct asyncore_dispatcher *d, const struct sockaddr *address, socklen_t length)
{
    int result = channel_usable(d);
    if (result == 0)
        result = socket_for(d, address->sa_family);
    return result < 0 ? result : d->map->os->bind(d->fd, address, length, d->map->os);
}

/* A name of /etc/hosts: the first address of the socket's family. */
static int host_known(struct asyncore_dispatcher *d, const char *host, struct asyncore_address *ret)
{
    int family = d->fd >= 0 ? d->family_ : AF_UNSPEC;
    int count = d->map->os->hosts(host, family, ret, 1, d->map->os);
    return count > 0 ? 0 : ASYNCORE_EHOST;
}

int asyncore_bind(struct asyncore_dispatcher *d, const char *host, const char *port)
{
    struct asyncore_address address;
    uint16_t number = 0;
    int result = channel_usable(d);
    if (result < 0)
        return result;
    if (host == NULL)
        host = "";
    result = address_numeric(d->family_ == AF_INET6 && d->fd >= 0 && (!*host || !strcmp(host, "*")) ? "::" : host,
                             &address, d->map->os);
    if (result == ASYNCORE_EHOST)
        result = host_known(d, host, &address);
    if (result == 0 && address.address.ss_family != AF_UNIX)
        result = address_port(port, &number);
    if (result < 0)
        return result;
    address_set_port(&address, number);
    return asyncore_bind_sockaddr(d, (struct sockaddr *)&address.address, address.length);
}

/* A socket from elsewhere may be a blocking one, and accept(2) has no flag against that. */
int socket_unblock(struct asyncore_dispatcher *d)
{
    struct os *os = d->map->os;
    int flags = os->get_flags(d->fd, os);
    return flags < 0 || flags & O_NONBLOCK ? flags : os->set_flags(d->fd, flags | O_NONBLOCK, os);
}

/* A listener from elsewhere: its type is its clients' too, and asked here it need not be asked for each. */
static int adopt(struct asyncore_dispatcher *d)
{
    datagrams(d);
    return socket_unblock(d);
}

int asyncore_listen(struct asyncore_dispatcher *d, int backlog)
{
    int result = channel_usable(d);
    if (result < 0 || d->fd < 0)
        return result < 0 ? result : -EBADF;
    struct os *os = d->map->os;
    result = d->state_ & S_CONNECTED ? adopt(d) : 0;
    if (result >= 0)
        result = os->listen(d->fd, backlog, os);
    if (result < 0)
        return result;
    d->state_ = (d->state_ & ~(uint32_t)S_CONNECTED) | S_ACCEPTING;
    if (d->family_ == AF_INET || d->family_ == AF_INET6) /* a Unix listener that was shut down stays so */
        d->state_ &= ~(uint32_t)(S_EOF | S_EOF_TOLD);
    channel_interest(d);
    return 0;
}

/* The kernel calls a datagram socket that was shut down readable for ever, whatever recv says, and so one that is not
 * connected, though it says ENOTCONN; and a Unix listener, whatever accept says. To the channel its input is over, and
 * nobody has to be told. */
int asyncore_shutdown(struct asyncore_dispatcher *d, int how)
{
    int result = channel_usable(d);
    if (result < 0 || d->fd < 0)
        return result < 0 ? result : -EBADF;
    /* Linux says so too, or stops connecting, but remembers it, and calls the socket hung up while it connects again. */
    if (!(d->state_ & (S_CONNECTED | S_ACCEPTING)) && d->type_ == SOCK_STREAM)
        return -ENOTCONN;
    result = d->map->os->shutdown(d->fd, how, d->map->os);
    if ((result == 0 || result == -ENOTCONN) && how != SHUT_WR && (d->state_ & S_ACCEPTING || datagrams(d))) {
        d->state_ |= S_EOF | S_EOF_TOLD;
        channel_interest(d);
    }
    return result;
}

int asyncore_setsockopt(struct asyncore_dispatcher *d, int level, int option, const void *value, socklen_t length)
{
    int result = socket_there(d);
    return result < 0 ? result : d->map->os->setsockopt(d->fd, level, option, value, length, d->map->os);
}

int asyncore_getsockopt(struct asyncore_dispatcher *d, int level, int option, void *value, socklen_t *length)
{
    int result = socket_there(d);
    return result < 0 ? result : d->map->os->getsockopt(d->fd, level, option, value, length, d->map->os);
}

int asyncore_sockname(struct asyncore_dispatcher *d, struct sockaddr_storage *address, socklen_t *length)
{
    socklen_t size = sizeof *address;
    int result = socket_there(d);
    if (result == 0)
        result = d->map->os->getsockname(d->fd, (struct sockaddr *)address, &size, d->map->os);
    if (result == 0)
        *length = size;
    return result;
}

int asyncore_peername(struct asyncore_dispatcher *d, struct sockaddr_storage *address, socklen_t *length)
{
    socklen_t size = sizeof *address;
    int result = socket_there(d);
    if (result == 0)
        result = d->map->os->getpeername(d->fd, (struct sockaddr *)address, &size, d->map->os);
    if (result == 0)
        *length = size;
    return result;
}

/* -- Accepting -- */

int asyncore_accept(struct asyncore_dispatcher *d, struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    if (d->fd < 0)
        return -EBADF;
    struct os *os = d->map->os;
    int fd = os->accept(d->fd, (struct sockaddr *)&from, &size, os);
    if (exhausted(fd))
        channel_rest(d);
    if (fd < 0)
        return fd == -EINTR ? -EAGAIN : fd;
    if (address != NULL) {
        memcpy(address, &from, size);
        *length = size;
    }
    return fd;
}

/* Errors that Linux passes on from a connection that is gone already (accept(2)): that client's. */
static bool clients_error(int error)
{
    static const int errors[] = {ECONNABORTED, ENETDOWN,     EPROTO,     ENOPROTOOPT, EHOSTDOWN,
                                 ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (error == -errors[i])
            return true;
    return false;
}

/* To find nobody costs a call; to leave some, a turn. So as many are accepted as came last time, and twice as many where
 * that left some: then the listener is ready again in the next turn. (Rounds count turns by their work, of which an
 * accepted client makes some, after its turn and before the next wait.) */
static unsigned clients_expected(const struct asyncore_dispatcher *d)
{
    unsigned bound = d->map->options.accepts_per_turn, count = d->clients_;
    if (count == 0 || count >= bound)
        return bound;
    if (d->map->rounds - d->round_ <= 2)
        count *= 2;
    return count < bound ? count : bound;
}

int default_accept(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    struct sockaddr_storage from;
    socklen_t length;
    unsigned expected = clients_expected(d);
    d->clients_ = expected;
    d->round_ = map->rounds;
    for (unsigned i = 0; i < expected && map->open; i++) {
        int fd = asyncore_accept(d, &from, &length);
        if (fd < 0 && clients_error(fd))
            continue;
        if (fd < 0) {
            d->clients_ = i;
            d->round_ = map->rounds - 3; /* none was left */
            return fd;
        }
        map->accepted = fd;
        map->accepted_type = d->type_;
        int result = call(d, handle_accepted, fd, (struct sockaddr *)&from, length);
        map->accepted = -1;
        if (result < 0 && result != -EAGAIN && map->open)
            asyncore_log_info(d, "error", "%s: a client was refused: %s", d->class_->name, asyncore_strerror(result));
        if (exhausted(result))
            return result;
        if (!(d->state_ & S_ASK_READ) && !(d->want_ & ASYNCORE_READ)) /* that was enough: the queue keeps the rest */
            return 0;
    }
    return 0;
}

int default_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    char text[128];
    d->map->os->close(fd, d->map->os);
    asyncore_address_text(address, length, text, sizeof text);
    asyncore_log_info(d, "warning", "%s: unhandled accepted event from %s", d->class_->name, text);
    return 0;
}

/* -- Connecting -- */

void connect_forget(struct asyncore_dispatcher *d)
{
    struct extra *extra = d->extra_;
    if (extra == NULL)
        return;
    asyncore_resolve_cancel(&extra->lookup);
    map_release(d->map, extra->addresses);
    extra->addresses = NULL;
    extra->count = extra->next = 0;
    if (!(d->state_ & S_IDLE)) {
        map_release(d->map, extra);
        d->extra_ = NULL;
    }
}

static void connect_failed(struct asyncore_dispatcher *d, int error)
{
    d->state_ &= ~(uint32_t)(S_CONNECTING | S_LOOKUP);
    connect_forget(d);
    channel_broken(d, error);
}

/* One address: the socket that is there serves it if it was not used yet. */
static int attempt(struct asyncore_dispatcher *d, const struct asyncore_address *address, bool fresh)
{
    struct os *os = d->map->os;
    int family = address->address.ss_family, result;
    if (d->fd >= 0 && !fresh) {
        channel_detach(d, true);
        os->close(d->fd, os);
        d->fd = -1;
    }
    if (d->fd >= 0 && d->family_ != family && d->family_ != 0)
        return -EAFNOSUPPORT;
    result = socket_for(d, family);
    if (result < 0)
        return result;
    result = os->connect(d->fd, (const struct sockaddr *)&address->address, address->length, os);
    ((struct extra *)d->extra_)->stands = result == 0;
    return result == -EINPROGRESS || result == -EINTR ? 0 : result;
}

/* The next address that can at least be begun with; the first may use the socket that was made before. */
static void connect_next(struct asyncore_dispatcher *d, bool fresh, int error)
{
    struct extra *extra = d->extra_;
    while (extra->next < extra->count) {
        const struct asyncore_address *address = &extra->addresses[extra->next++];
        error = attempt(d, address, fresh);
        fresh = fresh && error == -EAFNOSUPPORT;
        if (error >= 0 || !(d->state_ & S_CONNECTING)) /* begun; or handle_socket closed the channel */
            return;
    }
    connect_failed(d, error);
}

/* TCP is not writable before it is connected, and the kernel looks again before it reports. */
static bool connected_already(struct asyncore_dispatcher *d, unsigned events)
{
    struct asyncore_map *map = d->map;
    if (map->engine->errors != NULL && map->engine->errors(map, d->fd) != 0)
        return false;
    return d->type_ == SOCK_STREAM && (d->family_ == AF_INET || d->family_ == AF_INET6) &&
           events & ASYNCORE_WRITE && !(events & (ASYNCORE_ERROR | ASYNCORE_HANGUP));
}

static int connect_again(struct asyncore_dispatcher *d)
{
    struct os *os = d->map->os;
    struct extra *extra = d->extra_;
    const struct asyncore_address *address = &extra->addresses[extra->next - 1];
    return os->connect(d->fd, (const struct sockaddr *)&address->address, address->length, os);
}

/* The socket became writable, or failed. Returns the handler's result. */
int connect_event(struct asyncore_dispatcher *d, unsigned events)
{
    const struct extra *extra = d->extra_;
    int result = extra->stands || connected_already(d, events) ? 0 : connect_again(d);
    if (result == -EALREADY || result == -EINPROGRESS || result == -EINTR)
        return 0;
    if (result < 0 && result != -EISCONN) {
        connect_next(d, false, result);
        return 0;
    }
    d->state_ = (d->state_ & ~(uint32_t)S_CONNECTING) | S_CONNECTED;
    connect_forget(d);
    channel_interest(d);
    if (d->state_ & S_IDLE)
        channel_active(d);
    return call(d, handle_connect);
}

static int addresses_take(struct asyncore_dispatcher *d, const struct asyncore_address *addresses, size_t count)
{
    struct extra *extra = d->extra_;
    extra->addresses = map_alloc(d->map, count * sizeof *addresses);
    if (extra->addresses == NULL)
        return -ENOMEM;
    memcpy(extra->addresses, addresses, count * sizeof *addresses);
    extra->count = count;
    extra->next = 0;
    return 0;
}

static void looked_up(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count,
                      void *arg)
{
    struct asyncore_dispatcher *d = arg;
    (void)lookup;
    d->state_ &= ~(uint32_t)S_LOOKUP;
    if (error == 0)
        error = addresses_take(d, addresses, count);
    if (error == 0)
        connect_next(d, true, 0);
    else
        connect_failed(d, error);
    channel_interest(d);
}

static int connect_begin(struct asyncore_dispatcher *d, struct extra **extra)
{
    int result = channel_usable(d);
    if (result < 0)
        return result;
    if (d->state_ & (S_CONNECTED | S_CONNECTING | S_ACCEPTING))
        return d->state_ & S_CONNECTING ? -EALREADY : -EISCONN;
    if (being_made(d))
        return -EBUSY;
    result = channel_extra(d, extra);
    if (result < 0)
        return result;
    uint32_t ends = d->fd >= 0 && d->type_ == SOCK_DGRAM ? 0 : S_EOF | S_EOF_TOLD; /* that socket stays shut down */
    d->state_ &= ~(ends | (uint32_t)(S_BROKEN | S_BROKEN_TOLD | S_SEND_FAILED));
    d->error_ = 0;
    return 0;
}

static int connect_one(struct asyncore_dispatcher *d, const struct asyncore_address *address)
{
    struct extra *extra;
    int result = connect_begin(d, &extra);
    if (result < 0)
        return result;
    result = addresses_take(d, address, 1);
    if (result < 0) {
        connect_forget(d);
        return result;
    }
    d->state_ |= S_CONNECTING;
    channel_enlist(d);
    connect_next(d, true, 0);
    channel_interest(d);
    return 0;
}

int asyncore_connect_sockaddr(struct asyncore_dispatcher *d, const struct sockaddr *address, socklen_t length)
{
    struct asyncore_address one = {.length = length};
    if (length < sizeof(sa_family_t) || length > sizeof one.address)
        return -EINVAL;
    memcpy(&one.address, address, length);
    return connect_one(d, &one);
}

int asyncore_connect(struct asyncore_dispatcher *d, const char *host, const char *port)
{
    struct asyncore_address one;
    struct extra *extra;
    int result = channel_usable(d);
    if (result == 0)
        result = address_parse(host, port, &one, d->map->os);
    if (result == 0)
        return connect_one(d, &one);
    if (result != ASYNCORE_EHOST || host == NULL)
        return result;
    result = connect_begin(d, &extra);
    if (result < 0)
        return result;
    result = asyncore_resolve(d->map, &extra->lookup, host, port, d->fd >= 0 ? d->family_ : AF_UNSPEC, looked_up, d);
    if (result < 0) {
        connect_forget(d);
        return result;
    }
    d->state_ |= S_CONNECTING | S_LOOKUP;
    channel_enlist(d);
    channel_interest(d);
    return 0;
}

/* -- Bytes -- */

FAST ssize_t default_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    struct os *os = d->map->os;
    return os->recv(d->fd, data, size, MSG_DONTWAIT, os);
}

FAST ssize_t default_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    struct os *os = d->map->os;
    return os->send(d->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL | (int)(d->state_ & S_MORE), os);
}

/* An empty datagram, or the end? Channels of sockets from elsewhere do not know their type until somebody has to; a
 * client's is its listener's. */
bool datagrams(struct asyncore_dispatcher *d)
{
    int type = SOCK_STREAM;
    socklen_t length = sizeof type;
    if (d->type_ == 0) {
        if (!(d->state_ & S_NO_SOCKET))
            d->map->os->getsockopt(d->fd, SOL_SOCKET, SO_TYPE, &type, &length, d->map->os);
        d->type_ = (uint8_t)type;
    }
    return d->type_ == SOCK_DGRAM;
}

RARE ssize_t recv_ended(struct asyncore_dispatcher *d, ssize_t n)
{
    if (n == -ECHILD || datagrams(d))
        return n;
    if (n == 0 && d->state_ & S_SEND_FAILED)
        n = d->error_;
    if (n < 0) {
        channel_broken(d, (int)n);
        return n;
    }
    d->state_ |= S_EOF;
    channel_interest(d);
    if (!told_after_handler(d))
        channel_pend(d, S_TELL);
    return 0;
}

RARE ssize_t recv_refused(const struct asyncore_dispatcher *d, size_t size)
{
    if (d->fd < 0)
        return -EBADF;
    if (size == 0)
        return -EINVAL;
    return d->state_ & S_BROKEN ? d->error_ : d->state_ & S_EOF ? 0 : -ENOTCONN;
}

HOT ssize_t receive(struct asyncore_dispatcher *d, void *data, size_t size)
{
    if (d->fd < 0 || size == 0 || d->state_ & (S_EOF | S_BROKEN | S_CONNECTING))
        return recv_refused(d, size);
    ssize_t n = call(d, recv, data, size);
    if (n <= 0)
        return n == -EAGAIN ? n : recv_ended(d, n);
    if (d->state_ & S_IDLE)
        channel_active(d);
    return n;
}

ssize_t asyncore_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    return receive(d, data, size);
}

static RARE bool view_make(struct asyncore_map *map)
{
    map->view = map_alloc(map, VIEW_SIZE);
    return map->view != NULL;
}

FAST ssize_t asyncore_recv_view(struct asyncore_dispatcher *d, const void **data)
{
    struct asyncore_map *map = d->map;
    if (map->view == NULL && !view_make(map))
        return -ENOMEM;
    ssize_t n = receive(d, map->view, VIEW_SIZE);
    if (n > 0)
        *data = map->view;
    return n;
}

/* What was received before may still be read: then recv will come upon the end. */
RARE ssize_t send_failed(struct asyncore_dispatcher *d, ssize_t n)
{
    if (n == -ECHILD || datagrams(d))
        return n;
    uint32_t reads = d->state_ & S_ASK_READ ? d->state_ & S_SAYS_READ : d->want_ & ASYNCORE_READ;
    if (reads && !(d->state_ & (S_EOF | S_BROKEN))) {
        d->state_ |= S_SEND_FAILED;
        d->error_ = (int)n;
        channel_interest(d);
    } else {
        channel_broken(d, (int)n);
    }
    return n;
}

ssize_t asyncore_sendto(struct asyncore_dispatcher *d, const void *data, size_t size, const struct sockaddr *address,
                        socklen_t length)
{
    if (d->fd < 0)
        return -EBADF;
    struct os *os = d->map->os;
    ssize_t n = os->sendto(d->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, address, length, os);
    if (n >= 0 && d->state_ & S_IDLE)
        channel_active(d);
    return n == -EINTR ? -EAGAIN : n;
}

ssize_t asyncore_recvfrom(struct asyncore_dispatcher *d, void *data, size_t size, struct sockaddr_storage *address,
                          socklen_t *length)
{
    struct sockaddr_storage from;
    socklen_t n_from = sizeof from;
    if (d->fd < 0)
        return -EBADF;
    struct os *os = d->map->os;
    ssize_t n = os->recvfrom(d->fd, data, size, MSG_DONTWAIT, (struct sockaddr *)&from, &n_from, os);
    if (n < 0)
        return n == -EINTR ? -EAGAIN : n;
    if (address != NULL) {
        memcpy(address, &from, n_from);
        *length = n_from;
    }
    if (d->state_ & S_IDLE)
        channel_active(d);
    return n;
}
