/* sim_socket.c: what streams and datagrams have in common: families, addresses, options (socket(7), ip(7), ipv6(7),
 * unix(7)). Inside, v4-mapped addresses are IPv4; a socket of the other family is shown them mapped. */
#include "sim_socket.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- Addresses -- */

struct sim_address sim_plain(const struct sockaddr *address, socklen_t length)
{
    struct sim_address ret = {.length = length};
    memcpy(&ret.storage, address, length < sizeof ret.storage ? length : sizeof ret.storage);
    const struct sockaddr_in6 *in6 = &ret.in6;
    if (length >= sizeof *in6 && in6->sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = in6->sin6_port};
        memcpy(&in.sin_addr, &in6->sin6_addr.s6_addr[12], 4);
        ret.in = in;
        ret.length = sizeof in;
    }
    return ret;
}

struct sim_address sim_shown(const struct sim_address *address, int family)
{
    const struct sockaddr_in *in = &address->in;
    struct sim_address ret = *address;
    if (family != AF_INET6 || address->length == 0 || address->storage.ss_family != AF_INET)
        return ret;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = in->sin_port};
    in6.sin6_addr.s6_addr[10] = in6.sin6_addr.s6_addr[11] = 0xFF;
    memcpy(&in6.sin6_addr.s6_addr[12], &in->sin_addr, 4);
    ret.in6 = in6;
    ret.length = sizeof in6;
    return ret;
}

void sim_address_out(const struct sim_address *from, struct sockaddr *address, socklen_t *length)
{
    if (address == NULL || length == NULL)
        return;
    memcpy(address, &from->storage, from->length < *length ? from->length : *length);
    *length = from->length;
}

static uint16_t port_of(const struct sim_address *address)
{
    return ntohs(address->in.sin_port); /* at the same place in sockaddr_in6 */
}

static void port_set(struct sim_address *address, uint16_t port)
{
    address->in.sin_port = htons(port);
}

static bool is_any4(const struct sim_address *address)
{
    return address->in.sin_addr.s_addr == htonl(INADDR_ANY);
}

static bool is_any(const struct sim_address *address)
{
    if (address->storage.ss_family == AF_INET)
        return is_any4(address);
    return IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr);
}

static bool is_loopback(const struct sim_address *address)
{
    if (address->storage.ss_family == AF_INET)
        return ntohl(address->in.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr);
}

static bool same_host_part(const struct sim_address *a, const struct sim_address *b)
{
    if (a->storage.ss_family != b->storage.ss_family)
        return false;
    if (a->storage.ss_family == AF_INET)
        return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    return IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr);
}

bool sim_address_equal(const struct sim_address *a, const struct sim_address *b)
{
    if (a->length == 0 || b->length == 0 || a->storage.ss_family != b->storage.ss_family)
        return false;
    if (a->storage.ss_family == AF_UNIX)
        return a->length == b->length && memcmp(&a->storage, &b->storage, a->length) == 0;
    return port_of(a) == port_of(b) && same_host_part(a, b);
}

/* A path ends at its first zero, and has one; all of an abstract name counts. */
static void unix_trim(struct sim_address *address)
{
    const struct sockaddr_un *un = &address->un;
    const size_t base = offsetof(struct sockaddr_un, sun_path);
    if (address->length > base && un->sun_path[0] != '\0')
        address->length = (socklen_t)(base + strnlen(un->sun_path, sizeof un->sun_path) + 1);
}

static int unix_in(const struct sockaddr *address, socklen_t length, struct sim_address *ret)
{
    if (length <= sizeof(sa_family_t) || length > sizeof(struct sockaddr_un) || address->sa_family != AF_UNIX)
        return -EINVAL;
    *ret = sim_plain(address, length);
    unix_trim(ret);
    return 0;
}

/* An IPv4 address for an IPv6 socket, as UDP allows it. */
static int inet_for_inet6(const struct sim_socket *socket, const struct sockaddr *address, socklen_t length,
                          enum sim_purpose purpose, struct sim_address *ret)
{
    if (socket->v6only)
        return purpose == SIM_CONNECT ? -EAFNOSUPPORT : -ENETUNREACH;
    if (length < sizeof(struct sockaddr_in))
        return -EINVAL;
    *ret = sim_plain(address, sizeof(struct sockaddr_in));
    return 0;
}

/* What is wrong with an address, in the order in which Linux finds it. */
int sim_address_in(const struct sim_socket *socket, const struct sockaddr *address, socklen_t length,
                   enum sim_purpose purpose, struct sim_address *ret)
{
    const bool six = socket->family == AF_INET6;
    const socklen_t need = six ? 24 : sizeof(struct sockaddr_in); /* RFC 2133 had no scope yet */
    if (length < sizeof(sa_family_t) || length > sizeof ret->storage)
        return -EINVAL;
    if (socket->family == AF_UNIX)
        return unix_in(address, length, ret);
    int family = address->sa_family;
    if (six && socket->type == SOCK_DGRAM && family == AF_INET && purpose != SIM_BIND)
        return inet_for_inet6(socket, address, length, purpose, ret);
    if (six && purpose == SIM_SEND && family != AF_INET6)
        return -EINVAL;
    if (length < need)
        return -EINVAL;
    struct sim_address whole = {.length = six ? sizeof(struct sockaddr_in6) : need};
    memcpy(&whole.storage, address, length < whole.length ? length : whole.length);
    bool unspecified = family == AF_UNSPEC && !six && (purpose == SIM_SEND || (purpose == SIM_BIND && is_any4(&whole)));
    if (unspecified)
        family = whole.in.sin_family = AF_INET;
    if (family != socket->family)
        return -EAFNOSUPPORT;
    *ret = sim_plain((const struct sockaddr *)&whole.storage, whole.length);
    bool mapped_source = six && socket->local.length != 0 && socket->local.storage.ss_family == AF_INET;
    if (purpose != SIM_BIND && mapped_source && ret->storage.ss_family == AF_INET6) {
        if (!is_any(ret))
            return -EAFNOSUPPORT;
        struct sim_address any = {.in = {.sin_family = AF_INET, .sin_port = ret->in6.sin6_port},
                                  .length = sizeof any.in};
        *ret = any;
    }
    if (socket->v6only && six && ret->storage.ss_family == AF_INET)
        return purpose == SIM_BIND ? -EINVAL : -ENETUNREACH;
    return 0;
}

struct sim_host *sim_route_to(struct sim_host *from, const struct sim_address *to)
{
    if (is_loopback(to) || is_any(to))
        return from;
    return to->storage.ss_family == AF_INET ? sim_host_at(from->world, AF_INET, &to->in.sin_addr)
                                            : sim_host_at(from->world, AF_INET6, &to->in6.sin6_addr);
}

/* Whether packets for `to` are for a socket that is bound to `local`: 0 not, else how exactly. */
static int serves(const struct sim_socket *socket, const struct sim_address *to)
{
    const struct sim_address *local = &socket->local;
    if (local->length == 0 || port_of(local) != port_of(to))
        return 0;
    if (is_any(local)) {
        bool mapped = socket->family == AF_INET6 && !socket->v6only && to->storage.ss_family == AF_INET;
        return local->storage.ss_family == to->storage.ss_family ? 2 : mapped ? 1 : 0;
    }
    return same_host_part(local, to) ? 3 : 0;
}

static struct sim_path *path_find(struct sim_host *host, const struct sim_address *address)
{
    for (link_t *link = host->paths.next; link != &host->paths; link = link->next) {
        struct sim_path *path = owner_of(link, struct sim_path, link);
        if (path->length == address->length && memcmp(&path->address, &address->un, path->length) == 0)
            return path;
    }
    return NULL;
}

/* Whom a Unix address means: abstract names are each type's own, a path has one socket. */
int sim_unix_find(struct sim_host *host, int type, const struct sim_address *to, struct sim_socket **ret)
{
    if (to->un.sun_path[0] == '\0') {
        for (link_t *link = host->sockets.next; link != &host->sockets; link = link->next) {
            struct sim_socket *s = owner_of(link, struct sim_socket, link);
            if (s->listener == NULL && !s->accepted && s->type == type && sim_address_equal(&s->local, to)) {
                *ret = s;
                return 0;
            }
        }
        return -ECONNREFUSED;
    }
    struct sim_path *path = path_find(host, to);
    if (path == NULL)
        return -ENOENT;
    if (path->socket == NULL)
        return -ECONNREFUSED;
    *ret = path->socket;
    return path->socket->type == type ? 0 : -EPROTOTYPE;
}

/* Among equals, those of SO_REUSEPORT, the sender's address decides. */
struct sim_socket *sim_socket_at(struct sim_host *host, int type, const struct sim_address *to,
                                 const struct sim_address *from)
{
    struct sim_socket *best = NULL;
    int best_score = 0;
    unsigned equals = 0;
    for (link_t *link = host->sockets.next; link != &host->sockets; link = link->next) {
        struct sim_socket *s = owner_of(link, struct sim_socket, link);
        if (s->family == AF_UNIX || s->type != type || s->file.fd < 0 ||
            (type == SOCK_STREAM && s->state != STATE_LISTENING))
            continue;
        int score = serves(s, to);
        if (score != 0 && type == SOCK_DGRAM && s->peer.length != 0)
            score = sim_address_equal(&s->peer, from) ? 10 : 0;
        equals = score > best_score ? 1 : equals + (score == best_score);
        if (score > best_score ||
            (score != 0 && score == best_score && sim_mix(host->world->seed, port_of(from)) % equals == 0)) {
            best = s;
            best_score = score;
        }
    }
    return best;
}

/* -- Binding -- */

static bool overlap(const struct sim_socket *a, const struct sim_address *address, bool v6only)
{
    const struct sim_address *b = &a->local;
    bool any_a = is_any(address), any_b = is_any(b);
    if (address->storage.ss_family == b->storage.ss_family)
        return any_a || any_b || same_host_part(address, b);
    /* One is IPv6: it has IPv4's ports too if it is any address, and not IPv6 only. */
    return address->storage.ss_family == AF_INET6 ? any_a && !v6only : (any_a || any_b) && !a->v6only;
}

static bool taken(struct sim_socket *socket, const struct sim_address *address)
{
    struct sim_host *host = socket->file.host;
    for (link_t *link = host->sockets.next; link != &host->sockets; link = link->next) {
        struct sim_socket *s = owner_of(link, struct sim_socket, link);
        if (s == socket || s->released || s->family == AF_UNIX || s->type != socket->type || s->local.length == 0 ||
            port_of(&s->local) != port_of(address) || !overlap(s, address, socket->v6only))
            continue;
        if (s->reuse_port && socket->reuse_port)
            continue;
        bool shares = s->reuse_address && socket->reuse_address;
        if (!(shares && (socket->type == SOCK_DGRAM || s->state != STATE_LISTENING)))
            return true;
    }
    return false;
}

static int pick_port(struct sim_socket *socket, struct sim_address *address)
{
    struct sim_host *host = socket->file.host;
    for (int tries = 0; tries < 28232; tries++) {
        port_set(address, host->next_port);
        host->next_port = host->next_port >= 60999 ? 32768 : (uint16_t)(host->next_port + 1);
        if (!taken(socket, address))
            return 0;
    }
    return -EADDRINUSE;
}

static int bind_abstract(struct sim_socket *socket, const struct sim_address *address)
{
    struct sim_socket *other;
    if (socket->local.length != 0)
        return -EINVAL;
    if (sim_unix_find(socket->file.host, socket->type, address, &other) == 0)
        return -EADDRINUSE;
    socket->local = *address;
    return 0;
}

static void unix_named(struct sim_socket *socket)
{
    if (socket->type == SOCK_STREAM)
        sim_stream_named(socket);
    else
        sim_dgram_named(socket);
}

/* unix(7), autobind: five hexadecimal digits of the kernel's choice. */
static int bind_auto(struct sim_socket *socket)
{
    struct sim_address address = {.length = sizeof(sa_family_t) + 6};
    address.un.sun_family = AF_UNIX;
    for (unsigned i = 0; socket->local.length == 0; i++) {
        int other = socket->type == SOCK_STREAM ? SOCK_DGRAM : SOCK_STREAM;
        struct sim_socket *found;
        snprintf(&address.un.sun_path[1], 6, "%05x", i & 0xFFFFF);
        if (sim_unix_find(socket->file.host, other, &address, &found) < 0) /* or the same name would mean two */
            bind_abstract(socket, &address);
    }
    unix_named(socket);
    return 0;
}

static int bind_unix(struct sim_socket *socket, const struct sim_address *address)
{
    struct sim_host *host = socket->file.host;
    if (address->un.sun_path[0] == '\0')
        return bind_abstract(socket, address);
    if (path_find(host, address) != NULL)
        return -EADDRINUSE;
    if (socket->local.length != 0)
        return -EINVAL;
    struct sim_path *path = sim_alloc(sizeof *path);
    if (path == NULL)
        return -ENOMEM;
    memcpy(&path->address, &address->un, address->length);
    path->length = address->length;
    path->socket = socket;
    list_append(&host->paths, &path->link);
    socket->path = path;
    socket->local = *address;
    return 0;
}

static struct sim_address any_address(const struct sim_socket *socket)
{
    struct sim_address any = {.length = socket->family == AF_INET ? sizeof any.in : sizeof any.in6};
    any.storage.ss_family = (sa_family_t)socket->family;
    return any;
}

/* What a connection that failed has left of its address. */
static void forget_address(struct sim_socket *socket)
{
    uint16_t port = port_of(&socket->local);
    if (socket->local.length == 0)
        return;
    socket->local = any_address(socket);
    port_set(&socket->local, port);
}

int sim_bind(struct sim_socket *socket, const struct sockaddr *address, socklen_t length)
{
    struct sim_address wanted = {.length = 0};
    if (socket->family == AF_UNIX && length == sizeof(sa_family_t) && address->sa_family == AF_UNIX)
        return bind_auto(socket);
    int result = sim_address_in(socket, address, length, SIM_BIND, &wanted);
    if (result < 0)
        return result;
    if (socket->family == AF_UNIX) {
        result = bind_unix(socket, &wanted);
        if (result == 0)
            unix_named(socket);
        return result;
    }
    bool is_bound = socket->local.length != 0 && !socket->released;
    if (is_bound && socket->family == AF_INET6)
        return -EINVAL;
    if (!is_any(&wanted) && sim_route_to(socket->file.host, &wanted) != socket->file.host)
        return -EADDRNOTAVAIL;
    if (is_bound)
        return -EINVAL;
    bool named = port_of(&wanted) != 0;
    if (!named)
        result = pick_port(socket, &wanted);
    else if (taken(socket, &wanted))
        result = -EADDRINUSE;
    if (result < 0) {
        forget_address(socket);
        return result;
    }
    socket->own_port = named;
    socket->own_address = !is_any(&wanted);
    socket->released = false;
    socket->local = wanted;
    if (wanted.storage.ss_family == AF_INET6 && socket->own_address)
        socket->v6only = true; /* getsockopt(2) says so, too */
    return 0;
}

/* The address that packets toward there come from. */
static struct sim_address source_for(struct sim_host *host, const struct sim_address *toward)
{
    struct sim_address source = *toward;
    if (toward->storage.ss_family == AF_INET) {
        struct sockaddr_in *in = &source.in;
        in->sin_addr.s_addr = is_loopback(toward) || is_any(toward) ? htonl(INADDR_LOOPBACK) : host->address4.s_addr;
    } else {
        struct sockaddr_in6 *in6 = &source.in6;
        in6->sin6_addr =
            is_loopback(toward) || is_any(toward) ? (struct in6_addr)IN6ADDR_LOOPBACK_INIT : host->address6;
    }
    return source;
}

struct sim_address sim_source(const struct sim_socket *socket, const struct sim_address *to)
{
    struct sim_address source = socket->local;
    if (!is_any(&source) && source.storage.ss_family == to->storage.ss_family)
        return source;
    source = source_for(socket->file.host, to);
    port_set(&source, port_of(&socket->local));
    return source;
}

int sim_bind_any(struct sim_socket *socket, const struct sim_address *toward)
{
    bool held = socket->local.length != 0 && !socket->released;
    struct sim_address source = socket->local;
    if (source.length == 0)
        source = any_address(socket);
    if (toward != NULL && is_any(&source)) {
        source = source_for(socket->file.host, toward);
        port_set(&source, port_of(&socket->local));
    }
    int result = held ? 0 : pick_port(socket, &source);
    if (result < 0)
        return result == -EADDRINUSE ? -EADDRNOTAVAIL : result;
    socket->local = source;
    socket->released = false;
    return 0;
}

/* Who asks for any address means this host: at the address that he has, or at the loopback one. */
void sim_toward(const struct sim_socket *socket, struct sim_address *to)
{
    uint16_t port = port_of(to);
    if (!is_any(to))
        return;
    if (socket->local.length != 0 && !is_any(&socket->local))
        *to = socket->local;
    else
        *to = source_for(socket->file.host, to);
    port_set(to, port);
}

void sim_release(struct sim_socket *socket)
{
    socket->released = socket->family != AF_UNIX && !socket->own_port;
}

void sim_unbind(struct sim_socket *socket, bool was_connected)
{
    uint16_t port = socket->type == SOCK_STREAM || socket->own_port ? port_of(&socket->local) : 0;
    if (was_connected)
        sim_release(socket);
    if (socket->local.length == 0)
        return;
    if (!socket->own_address)
        socket->local = any_address(socket);
    port_set(&socket->local, port);
}

int sim_listen(struct sim_socket *socket, int backlog)
{
    if (socket->type != SOCK_STREAM)
        return -EOPNOTSUPP;
    if (socket->state != STATE_NEW && socket->state != STATE_LISTENING) /* refused ones too, until connect(2) told it */
        return -EINVAL;
    if (socket->family == AF_UNIX && socket->local.length == 0)
        return -EINVAL;
    if (socket->family != AF_UNIX) {
        int result = socket->local.length == 0 || socket->released ? sim_bind_any(socket, NULL) : 0;
        if (result < 0)
            return result;
    }
    if (socket->state != STATE_LISTENING && socket->family != AF_UNIX && taken(socket, &socket->local))
        return -EADDRINUSE;
    socket->state = STATE_LISTENING;
    socket->backlog = (unsigned)backlog > 4096 ? 4096 : (unsigned)backlog; /* net.core.somaxconn */
    sim_stir(&socket->file);
    return 0;
}

int sim_sockname(struct sim_socket *socket, struct sockaddr *address, socklen_t *length)
{
    struct sim_address shown = sim_shown(&socket->local, socket->family);
    if (shown.length == 0) {
        shown.storage.ss_family = (sa_family_t)socket->family;
        shown.length = socket->family == AF_INET    ? sizeof(struct sockaddr_in)
                       : socket->family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                    : sizeof(sa_family_t);
    }
    sim_address_out(&shown, address, length);
    return 0;
}

int sim_peername(struct sim_socket *socket, struct sockaddr *address, socklen_t *length)
{
    bool connected = socket->type == SOCK_DGRAM ? socket->peer.length != 0 : socket->state == STATE_CONNECTED;
    if (!connected)
        return -ENOTCONN;
    struct sim_address shown = sim_shown(&socket->peer, socket->family);
    if (shown.length == 0) {
        shown.storage.ss_family = AF_UNIX;
        shown.length = sizeof(sa_family_t);
    }
    sim_address_out(&shown, address, length);
    return 0;
}

/* -- Options -- */

int sim_take_error(struct sim_socket *socket)
{
    int error = socket->error;
    socket->error = 0;
    return -error;
}

/* socket(7): doubled, and no less than that. */
static size_t buffer_size(int value, size_t least)
{
    size_t size = value < 0 || value > 212992 ? 425984 : (size_t)value * 2;
    return size < least ? least : size;
}

/* Options that only have to be told again. Those that would do something that is not simulated are not known. */
static const struct known {
    int level, option;
    int least, most, otherwise;
} known_options[] = {
    {SOL_SOCKET, SO_KEEPALIVE, 0, 1, 0},
    {SOL_SOCKET, SO_BROADCAST, 0, 1, 0},
    {SOL_SOCKET, SO_OOBINLINE, 0, 1, 0},
    {SOL_SOCKET, SO_DONTROUTE, 0, 1, 0},
    {SOL_SOCKET, SO_PRIORITY, INT_MIN, INT_MAX, 0},
    {SOL_SOCKET, SO_MARK, INT_MIN, INT_MAX, 0},
    {IPPROTO_TCP, TCP_NODELAY, 0, 1, 0},
    {IPPROTO_TCP, TCP_CORK, 0, 1, 0},
    {IPPROTO_TCP, TCP_QUICKACK, 0, 1, 1},
    {IPPROTO_TCP, TCP_KEEPIDLE, 1, 32767, 7200},
    {IPPROTO_TCP, TCP_KEEPINTVL, 1, 32767, 75},
    {IPPROTO_TCP, TCP_KEEPCNT, 1, 127, 9},
    {IPPROTO_TCP, TCP_SYNCNT, 1, 127, 6},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 0, INT_MAX, 0},
    {IPPROTO_IP, IP_TOS, INT_MIN, INT_MAX, 0},
    {IPPROTO_IP, IP_TTL, 1, 255, 64},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 0, 255, 64},
    {IPPROTO_IPV6, IPV6_TCLASS, 0, 255, 0},
};

static bool has_level(const struct sim_socket *socket, int level)
{
    if (level == SOL_SOCKET || socket->family == AF_UNIX)
        return level == SOL_SOCKET;
    return level == IPPROTO_IP || (level == IPPROTO_TCP && socket->type == SOCK_STREAM) ||
           (level == IPPROTO_UDP && socket->type == SOCK_DGRAM) ||
           (level == IPPROTO_IPV6 && socket->family == AF_INET6);
}

static const struct known *known_find(const struct sim_socket *socket, int level, int option)
{
    bool has = has_level(socket, level);
    for (size_t i = 0; has && i < sizeof known_options / sizeof *known_options; i++)
        if (known_options[i].level == level && known_options[i].option == option)
            return &known_options[i];
    return NULL;
}

/* What ip(7) and ipv6(7) make of a value: -1 is the default, and TCP keeps the two bits of congestion to itself. */
static int ip_value(const struct sim_socket *socket, const struct known *known, int value)
{
    bool class = (known->level == IPPROTO_IP && known->option == IP_TOS) ||
                 (known->level == IPPROTO_IPV6 && known->option == IPV6_TCLASS);
    if (known->level == IPPROTO_IP && known->option == IP_TOS)
        value &= 0xFF;
    if (value == -1)
        return known->otherwise;
    return class && socket->type == SOCK_STREAM && value >= 0 ? value & ~3 : value;
}

static int option_store(struct sim_socket *socket, int level, int option, int value)
{
    const struct known *known = known_find(socket, level, option);
    unsigned i = 0;
    if (known == NULL)
        return -ENOPROTOOPT;
    if (known->least == 0 && known->most == 1)
        value = value != 0;
    if (level == IPPROTO_IP || level == IPPROTO_IPV6)
        value = ip_value(socket, known, value);
    if (value < known->least || value > known->most)
        return -EINVAL;
    while (i < socket->option_count && !(socket->options[i].level == level && socket->options[i].option == option))
        i++;
    if (i == sizeof socket->options / sizeof *socket->options)
        return -ENOMEM;
    if (i == socket->option_count)
        socket->option_count++;
    socket->options[i] = (struct sim_option){level, option, value};
    return 0;
}

static int set_socket_option(struct sim_socket *socket, int option, int value)
{
    switch (option) {
    case SO_REUSEADDR:
        socket->reuse_address = value != 0;
        return 0;
    case SO_REUSEPORT:
        if (value != 0 && socket->family == AF_UNIX)
            return -EOPNOTSUPP;
        socket->reuse_port = value != 0;
        return 0;
    case SO_SNDBUF:
        socket->send_limit = buffer_size(value, 4608);
        return 0;
    case SO_RCVBUF:
        socket->receive_limit = buffer_size(value, 2304);
        return 0;
    default:
        return option_store(socket, SOL_SOCKET, option, value);
    }
}

/* Switched off, its time stays what it was. */
static void set_linger(struct sim_socket *socket, const void *value)
{
    struct linger linger;
    memcpy(&linger, value, sizeof linger);
    if (linger.l_onoff != 0)
        socket->linger.l_linger = linger.l_linger;
    socket->linger.l_onoff = linger.l_onoff != 0;
}

int sim_setsockopt(struct sim_socket *socket, int level, int option, const void *value, socklen_t length)
{
    int number;
    if (level != SOL_SOCKET && socket->family == AF_UNIX)
        return -EOPNOTSUPP;
    if ((level == IPPROTO_TCP || level == IPPROTO_UDP) && has_level(socket, level) && length < sizeof number)
        return -EINVAL;
    if (level != SOL_SOCKET && known_find(socket, level, option) == NULL &&
        !(level == IPPROTO_IPV6 && option == IPV6_V6ONLY && socket->family == AF_INET6))
        return -ENOPROTOOPT;
    if (level == IPPROTO_IP && length < sizeof number) { /* a byte will do, and nothing is 0 */
        number = length > 0 ? *(const unsigned char *)value : 0;
        return option_store(socket, level, option, number);
    }
    if (length < sizeof number)
        return -EINVAL;
    memcpy(&number, value, sizeof number);
    if (level == SOL_SOCKET && option == SO_LINGER) {
        if (length < sizeof socket->linger)
            return -EINVAL;
        set_linger(socket, value);
        return 0;
    }
    if (level == SOL_SOCKET)
        return set_socket_option(socket, option, number);
    if (level == IPPROTO_IPV6 && option == IPV6_V6ONLY) {
        if (socket->local.length != 0 && !socket->released) /* the kernel has looked at it already */
            return -EINVAL;
        socket->v6only = number != 0;
        return 0;
    }
    return option_store(socket, level, option, number);
}

static int get_socket_option(struct sim_socket *socket, int option, int *value)
{
    switch (option) {
    case SO_ERROR:
        *value = -sim_take_error(socket);
        return 0;
    case SO_TYPE:
        *value = socket->type;
        return 0;
    case SO_DOMAIN:
        *value = socket->family;
        return 0;
    case SO_PROTOCOL:
        *value = socket->protocol;
        return 0;
    case SO_ACCEPTCONN:
        *value = socket->state == STATE_LISTENING;
        return 0;
    case SO_REUSEADDR:
        *value = socket->reuse_address;
        return 0;
    case SO_REUSEPORT:
        *value = socket->reuse_port;
        return 0;
    case SO_SNDBUF:
        *value = (int)socket->send_limit;
        return 0;
    case SO_RCVBUF:
        *value = (int)socket->receive_limit;
        return 0;
    default:
        return -ENOPROTOOPT;
    }
}

static int option_value(struct sim_socket *socket, int level, int option, int *value)
{
    for (unsigned i = 0; i < socket->option_count; i++)
        if (socket->options[i].level == level && socket->options[i].option == option) {
            *value = socket->options[i].value;
            return 0;
        }
    const struct known *known = known_find(socket, level, option);
    if (known != NULL) {
        *value = known->otherwise;
        return 0;
    }
    if (level == IPPROTO_IPV6 && option == IPV6_V6ONLY && socket->family == AF_INET6) {
        *value = socket->v6only;
        return 0;
    }
    if (level == SOL_SOCKET)
        return get_socket_option(socket, option, value);
    return -ENOPROTOOPT;
}

int sim_getsockopt(struct sim_socket *socket, int level, int option, void *value, socklen_t *length)
{
    int number;
    if (!has_level(socket, level))
        return socket->family == AF_INET6 ? -ENOPROTOOPT : -EOPNOTSUPP;
    if ((int)*length < 0 && level != IPPROTO_IPV6)
        return -EINVAL;
    if (level == SOL_SOCKET && option == SO_LINGER) {
        socklen_t n = *length < sizeof socket->linger ? *length : (socklen_t)sizeof socket->linger;
        memcpy(value, &socket->linger, n);
        *length = n;
        return 0;
    }
    int result = option_value(socket, level, option, &number);
    if (result < 0)
        return result;
    if (level == IPPROTO_IP && *length > 1 && *length < sizeof number && number <= 255)
        *length = 1;
    *length = *length < sizeof number ? *length : (socklen_t)sizeof number;
    memcpy(value, &number, *length);
    return 0;
}

/* -- Making and freeing -- */

struct sim_socket *sim_socket_new(struct sim_host *host, int family, int type, int protocol)
{
    const struct sim_kind *kind = type == SOCK_STREAM ? &sim_stream_kind : &sim_dgram_kind;
    struct sim_socket *socket = sim_file_new(sizeof *socket, kind, host, O_RDWR | O_NONBLOCK);
    if (socket == NULL)
        return NULL;
    socket->family = family;
    socket->type = type;
    socket->protocol = family == AF_UNIX     ? 0
                       : protocol != 0       ? protocol
                       : type == SOCK_STREAM ? IPPROTO_TCP
                                             : IPPROTO_UDP;
    socket->send_limit = host->world->options.send_buffer;
    socket->receive_limit = host->world->options.receive_buffer;
    list_init(&socket->queue);
    list_init(&socket->packets);
    list_append(&host->sockets, &socket->link);
    return socket;
}

void sim_socket_free(struct sim_socket *socket)
{
    if (socket->path != NULL)
        socket->path->socket = NULL;
    list_unlink(&socket->link);
    list_unlink(&socket->in_queue);
    free(socket);
}

/* In the order in which Linux looks at them. */
static int kind_check(int family, int *type, int protocol)
{
    if ((*type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) > 15)
        return -EINVAL;
    *type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return -EAFNOSUPPORT;
    if (*type > SOCK_PACKET)
        return -EINVAL;
    if (family == AF_UNIX && protocol != 0 && protocol != AF_UNIX)
        return -EPROTONOSUPPORT;
    if (family == AF_UNIX && *type == SOCK_RAW)
        *type = SOCK_DGRAM;
    if (family != AF_UNIX && (protocol < 0 || protocol >= 263)) /* IPPROTO_MAX */
        return -EINVAL;
    if (*type != SOCK_STREAM && *type != SOCK_DGRAM)
        return *type == SOCK_RAW ? -EPROTONOSUPPORT : -ESOCKTNOSUPPORT;
    int natural = *type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
    return family == AF_UNIX || protocol == 0 || protocol == natural ? 0 : -EPROTONOSUPPORT;
}

int sim_socket_open(struct sim_host *host, int family, int type, int protocol)
{
    int result = kind_check(family, &type, protocol);
    if (result < 0)
        return result;
    if (!sim_room_for_one(host))
        return -EMFILE;
    struct sim_socket *socket = sim_socket_new(host, family, type, protocol);
    if (socket == NULL)
        return -ENOBUFS;
    int fd = sim_file_open(&socket->file);
    if (fd < 0)
        sim_socket_free(socket);
    return fd;
}

struct sim_socket *sim_socket_of(struct sim_host *host, int fd, int *error)
{
    struct sim_file *file = sim_file_of(host, fd);
    if (file != NULL && (file->kind == &sim_stream_kind || file->kind == &sim_dgram_kind))
        return (struct sim_socket *)file;
    *error = file == NULL ? -EBADF : -ENOTSOCK;
    return NULL;
}

void sim_sockets_clear(struct sim_host *host)
{
    for (unsigned fd = 0; fd < host->file_room; fd++)
        if (host->files[fd] != NULL)
            sim_file_close(host, (int)fd);
    while (!list_empty(&host->paths)) {
        struct sim_path *path = owner_of(host->paths.next, struct sim_path, link);
        list_unlink(&path->link);
        free(path);
    }
}
