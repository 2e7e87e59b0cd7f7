/* sim_dgram.c: UDP (udp(7)) and Unix datagrams (unix(7)). A packet is copied when it is sent, travels as an event, and
 * waits in the receiver's queue, which drops what passes its buffer. Over a link packets may be lost, doubled and
 * overtaken, as its chances are. A port where nobody is says so to a connected sender only. */
#include "sim_socket.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OVERHEAD   512   /* what the kernel's bookkeeping of a packet takes of the buffer */
#define UDP_MOST   65507 /* of 65,535 that IP can say */
#define UDP6_MOST  65527 /* there they are without IP's own header */
#define UNIX_QUEUE 11    /* net.unix.max_dgram_qlen is 10, and one more fits */

struct packet {
    link_t link;
    struct sim_host *to_host, *from_host;
    struct sim_address from, to;
    uint32_t sender; /* number of the socket */
    int type;
    size_t size;
    char data[];
};

static void refused_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct packet *packet = object;
    struct sim_socket *sender = NULL; /* whoever such packets would come to: with SO_REUSEADDR maybe another */
    if (!world->closing)
        sender = sim_socket_at(packet->from_host, SOCK_DGRAM, &packet->from, &packet->to);
    (void)argument;
    if (sender != NULL && sim_address_equal(&sender->peer, &packet->to)) {
        sender->error = ECONNREFUSED;
        sim_stir(&sender->file);
    }
    free(packet);
}

static void deliver(struct packet *packet, struct sim_socket *to)
{
    if (to->queued + packet->size + OVERHEAD > to->receive_limit) {
        free(packet);
        return;
    }
    to->queued += packet->size + OVERHEAD;
    list_append(&to->packets, &packet->link);
    sim_stir(&to->file);
}

static void arrive(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct packet *packet = object;
    struct sim_socket *to = NULL;
    if (world->closing || (to = sim_socket_at(packet->to_host, SOCK_DGRAM, &packet->to, &packet->from)) != NULL) {
        if (to == NULL)
            free(packet);
        else
            deliver(packet, to);
        return;
    }
    if (packet->to_host == packet->from_host)
        refused_event(world, packet, argument);
    else
        sim_event_add(world, world->time + sim_link(packet->from_host, packet->to_host)->delay, refused_event, packet,
                      0);
}

static struct packet *packet_new(struct sim_socket *socket, struct sim_host *to_host, const struct sim_address *to,
                                 const void *data, size_t size)
{
    struct packet *packet = sim_alloc(sizeof *packet + size);
    if (packet == NULL)
        return NULL;
    packet->from_host = socket->file.host;
    packet->to_host = to_host;
    packet->from = socket->local;
    packet->to = *to;
    packet->sender = socket->file.number;
    packet->size = size;
    if (size != 0)
        memcpy(packet->data, data, size);
    return packet;
}

static bool strikes(struct asyncore_sim *world, unsigned chance)
{
    return chance != 0 && sim_chance(world) % 1000000 < chance;
}

static void travel(struct sim_socket *socket, struct packet *packet)
{
    struct asyncore_sim *world = socket->file.host->world;
    const struct asyncore_sim_link *link = sim_link(packet->from_host, packet->to_host);
    uint64_t time = sim_host_time(socket->file.host) + link->delay;
    if (link->down != 0 || strikes(world, link->loss)) {
        free(packet);
        return;
    }
    if (link->jitter != 0)
        time += sim_chance(world) % link->jitter;
    if (strikes(world, link->overtake))
        time += link->delay + ASYNCORE_SIM_MS; /* later ones come before it */
    if (link->bandwidth != 0)
        time += packet->size * ASYNCORE_SIM_SECOND / link->bandwidth;
    sim_event_add(world, time, arrive, packet, 0);
}

/* What a socket that is struck or shut says before anything leaves. */
static int send_blocked(struct sim_socket *socket)
{
    if (socket->error != 0)
        return sim_take_error(socket);
    return socket->shut_write ? -EPIPE : 0;
}

static int udp_target(struct sim_socket *socket, const struct sockaddr *address, socklen_t length,
                      struct sim_address *to)
{
    bool unspecified = address != NULL && socket->family == AF_INET6 && length >= sizeof(sa_family_t) &&
                       address->sa_family == AF_UNSPEC;
    if (address == NULL || unspecified) {
        *to = socket->peer;
        if (unspecified && to->length != 0 && to->storage.ss_family == AF_INET) /* taken for an IPv6 address */
            return -ENETUNREACH;
        return to->length == 0 ? -EDESTADDRREQ : 0;
    }
    int result = sim_address_in(socket, address, length, SIM_SEND, to);
    if (result == -EAFNOSUPPORT && socket->family == AF_INET6) /* from a mapped address: the port is looked at first */
        return ((const struct sockaddr_in6 *)address)->sin6_port == 0 ? -EINVAL : result;
    return result == 0 && to->in.sin_port == 0 ? -EINVAL : result; /* at the same place in sockaddr_in6 */
}

static int udp_send(struct sim_socket *socket, const void *data, size_t size, const struct sockaddr *address,
                    socklen_t length)
{
    struct sim_address to = {.length = 0};
    int result = socket->local.length == 0 || socket->released ? sim_bind_any(socket, NULL) : 0;
    if (result == 0 && size > 65535 && socket->family == AF_INET) /* IPv6 looks later */
        result = -EMSGSIZE;
    if (result == 0)
        result = udp_target(socket, address, length, &to);
    if (result == 0 && size > (to.storage.ss_family == AF_INET ? UDP_MOST : UDP6_MOST))
        result = -EMSGSIZE;
    if (result == 0)
        result = send_blocked(socket);
    if (result < 0)
        return result;
    sim_toward(socket, &to);
    struct sim_host *here = socket->file.host, *there = sim_route_to(here, &to);
    struct packet *packet = packet_new(socket, there, &to, data, size);
    if (packet == NULL)
        return -ENOBUFS;
    packet->from = sim_source(socket, &to);
    struct packet *copy = NULL;
    if (there != NULL && there != here && strikes(here->world, sim_link(here, there)->copy))
        copy = packet_new(socket, there, &to, data, size);
    if (copy != NULL)
        copy->from = packet->from;
    if (there == NULL)
        free(packet);
    else if (there == here)
        arrive(here->world, packet, 0);
    else
        travel(socket, packet);
    if (copy != NULL)
        travel(socket, copy);
    return 0;
}

/* -- Unix -- */

static struct sim_socket *by_number(struct sim_host *host, uint32_t number)
{
    for (link_t *link = host->sockets.next; link != &host->sockets; link = link->next)
        if (owner_of(link, struct sim_socket, link)->file.number == number)
            return owner_of(link, struct sim_socket, link);
    return NULL;
}

static struct sim_socket *unix_peer(struct sim_socket *socket)
{
    return socket->peer.length != 0 ? by_number(socket->file.host, socket->peer_number) : NULL;
}

static void packets_drop(struct sim_socket *socket)
{
    while (!list_empty(&socket->packets)) {
        struct packet *packet = owner_of(socket->packets.next, struct packet, link);
        list_unlink(&packet->link);
        free(packet);
    }
    socket->queued = 0;
}

/* There is room again: those who are connected to it may go on. */
static void unix_room(struct sim_socket *socket)
{
    struct sim_host *host = socket->file.host;
    for (link_t *link = host->sockets.next; link != &host->sockets; link = link->next) {
        struct sim_socket *s = owner_of(link, struct sim_socket, link);
        if (s->family == AF_UNIX && s->peer_number == socket->file.number && s != socket)
            sim_stir(&s->file);
    }
}

/* What came so far is lost, and if that was anything the one that it was connected to is told. */
static void unix_disconnect(struct sim_socket *socket)
{
    struct sim_socket *old = unix_peer(socket);
    bool was_connected = socket->peer.length != 0;
    socket->peer.length = 0;
    if (!was_connected || list_empty(&socket->packets))
        return;
    packets_drop(socket);
    unix_room(socket);
    if (old != NULL && old->peer.length != 0 && old->peer_number == socket->file.number) {
        old->error = ECONNRESET;
        sim_stir(&old->file);
    }
}

static bool may_send(const struct sim_socket *socket, const struct sim_socket *target)
{
    return target->peer.length == 0 || target->peer_number == socket->file.number;
}

static bool is_full(const struct sim_socket *target)
{
    unsigned waiting = 0;
    for (const link_t *link = target->packets.next; link != &target->packets; link = link->next)
        waiting++;
    return waiting >= UNIX_QUEUE;
}

static int unix_send(struct sim_socket *socket, const void *data, size_t size, const struct sockaddr *address,
                     socklen_t length)
{
    struct sim_address to = {.length = 0};
    struct sim_socket *target = unix_peer(socket);
    int result = address != NULL ? sim_address_in(socket, address, length, SIM_SEND, &to) : 0;
    if (result == 0 && size > socket->send_limit - 32)
        result = -EMSGSIZE;
    if (result == 0)
        result = send_blocked(socket);
    if (result == 0 && address == NULL && socket->peer.length == 0)
        result = -ENOTCONN;
    if (result == 0 && address != NULL)
        result = sim_unix_find(socket->file.host, SOCK_DGRAM, &to, &target);
    if (result < 0)
        return result;
    if (target == NULL) { /* closed meanwhile: so is the connection */
        socket->peer.length = 0;
        packets_drop(socket);
        return -ECONNREFUSED;
    }
    if (!may_send(socket, target))
        return -EPERM;
    if (target->shut_read)
        return -EPIPE;
    bool mutual = target->peer.length != 0; /* as may_send() has it: with this socket */
    if (!mutual && target != socket && is_full(target))
        return -EAGAIN;
    struct packet *packet = packet_new(socket, socket->file.host, &target->local, data, size);
    if (packet == NULL)
        return -ENOBUFS;
    list_append(&target->packets, &packet->link);
    target->queued += size + OVERHEAD;
    sim_stir(&target->file);
    return 0;
}

static int unix_connect(struct sim_socket *socket, const struct sockaddr *address, socklen_t length)
{
    struct sim_address to = {.length = 0};
    struct sim_socket *target = NULL;
    int result = 0;
    if (length < sizeof(sa_family_t))
        return -EINVAL;
    if (address->sa_family != AF_UNSPEC) {
        result = sim_address_in(socket, address, length, SIM_CONNECT, &to);
        if (result == 0)
            result = sim_unix_find(socket->file.host, SOCK_DGRAM, &to, &target);
        if (result == 0 && !may_send(socket, target))
            result = -EPERM;
    }
    if (result < 0)
        return result;
    if (target == NULL || target != unix_peer(socket))
        unix_disconnect(socket);
    socket->peer = to;
    socket->peer_number = target != NULL ? target->file.number : 0;
    sim_stir(&socket->file);
    return 0;
}

void sim_dgram_named(struct sim_socket *socket)
{
    struct sim_host *host = socket->file.host;
    for (link_t *link = host->sockets.next; link != &host->sockets; link = link->next) {
        struct sim_socket *s = owner_of(link, struct sim_socket, link);
        for (link_t *waiting = s->packets.next; s->family == AF_UNIX && waiting != &s->packets;
             waiting = waiting->next) {
            struct packet *packet = owner_of(waiting, struct packet, link);
            if (packet->sender == socket->file.number)
                packet->from = socket->local;
        }
    }
}

/* -- Both -- */

ssize_t sim_dgram_send(struct sim_socket *socket, const void *data, size_t size, const struct sockaddr *address,
                       socklen_t length)
{
    int result = socket->family == AF_UNIX ? unix_send(socket, data, size, address, length)
                                           : udp_send(socket, data, size, address, length);
    return result < 0 ? result : (ssize_t)size;
}

ssize_t sim_dgram_recv(struct sim_socket *socket, void *data, size_t size, int flags, struct sim_address *from)
{
    if (socket->error != 0)
        return sim_take_error(socket);
    if (list_empty(&socket->packets))
        return -EAGAIN; /* after shutdown(2), too, where no call may wait */
    struct packet *packet = owner_of(socket->packets.next, struct packet, link);
    size_t n = packet->size < size ? packet->size : size, whole = packet->size;
    if (n != 0)
        memcpy(data, packet->data, n);
    if (from != NULL)
        *from = packet->from;
    if (!(flags & MSG_PEEK)) {
        bool was_full = socket->family == AF_UNIX && is_full(socket);
        list_unlink(&packet->link);
        socket->queued -= packet->size + OVERHEAD;
        free(packet);
        if (was_full)
            unix_room(socket);
    }
    return (ssize_t)(flags & MSG_TRUNC ? whole : n);
}

int sim_dgram_connect(struct sim_socket *socket, const struct sockaddr *address, socklen_t length)
{
    struct sim_address to = {.length = 0};
    if (socket->family == AF_UNIX)
        return unix_connect(socket, address, length);
    if (length < sizeof(sa_family_t))
        return -EINVAL;
    if (address->sa_family == AF_UNSPEC) {
        socket->peer.length = 0;
        sim_unbind(socket, true);
        return 0;
    }
    int result = sim_address_in(socket, address, length, SIM_CONNECT, &to);
    if (result < 0) /* which is found after it got its port */
        sim_bind_any(socket, NULL);
    if (result < 0)
        return result;
    sim_toward(socket, &to);
    result = sim_bind_any(socket, &to);
    if (result == 0)
        socket->peer = to;
    return result;
}

int sim_dgram_shutdown(struct sim_socket *socket, int how)
{
    bool fails = socket->family != AF_UNIX && socket->peer.length == 0;
    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    socket->shut_read |= how != SHUT_WR; /* also where it fails */
    socket->shut_write |= how != SHUT_RD;
    sim_stir(&socket->file);
    return fails ? -ENOTCONN : 0;
}

static unsigned dgram_ready(struct sim_file *file)
{
    struct sim_socket *socket = (struct sim_socket *)file;
    struct sim_socket *peer = socket->family == AF_UNIX ? unix_peer(socket) : NULL;
    unsigned bits = socket->error != 0 ? POLLERR : 0;
    if (!list_empty(&socket->packets))
        bits |= POLLIN | POLLRDNORM;
    if (socket->shut_read)
        bits |= POLLIN | POLLRDNORM | POLLRDHUP | (socket->shut_write ? POLLHUP : 0);
    if (peer != NULL && is_full(peer) && unix_peer(peer) != socket)
        return bits;
    return bits | POLLOUT | POLLWRNORM | POLLWRBAND;
}

static ssize_t dgram_read(struct sim_file *file, void *data, size_t size)
{
    if (size == 0) /* read(2) of a socket, unlike recv(2), looks no further */
        return 0;
    return sim_dgram_recv((struct sim_socket *)file, data, size, 0, NULL);
}

static ssize_t dgram_write(struct sim_file *file, const void *data, size_t size)
{
    return sim_dgram_send((struct sim_socket *)file, data, size, NULL, 0);
}

static void dgram_close(struct sim_file *file)
{
    struct sim_socket *socket = (struct sim_socket *)file;
    packets_drop(socket);
    sim_socket_free(socket);
}

const struct sim_kind sim_dgram_kind = {"dgram", dgram_ready, dgram_read, dgram_write, dgram_close};
