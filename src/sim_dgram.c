/* sim_dgram.c: UDP (udp(7)) and Unix datagrams (unix(7)). A packet is copied when it is sent, travels as an event, and
 * waits in the receiver's queue, which drops what passes its buffer. Over a link packets may be lost, doubled and
 * overtaken, as its chances are. A port where nobody is says so to a connected sender only. */
#include "sim_socket.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OVERHEAD   512   /* what the kernel's bookkeeping of a packet takes of the buffer */
#define UDP_MOST   65507 /* of 65,535 that IP can say */
#define UNIX_QUEUE 11    /* net.unix.max_dgram_qlen is 10, and one more fits */

struct packet {
    link_t link;
    struct sim_host *to_host, *from_host;
    struct sim_address from, to;
    uint32_t sender; /* number of the socket, for a refusal */
    int type;
    size_t size;
    char data[];
};

static struct sim_socket *sender_of(const struct packet *packet)
{
    for (link_t *link = packet->from_host->sockets.next; link != &packet->from_host->sockets; link = link->next) {
        struct sim_socket *s = owner_of(link, struct sim_socket, link);
        if (s->file.number == packet->sender)
            return s;
    }
    return NULL;
}

static void refused_event(struct asyncore_sim *world, void *object, uint64_t argument)
{
    struct packet *packet = object;
    struct sim_socket *sender = world->closing ? NULL : sender_of(packet);
    (void)argument;
    if (sender != NULL && sim_address_equal(&sender->peer, &packet->to)) {
        sender->error = ECONNREFUSED;
        sim_stir(&sender->file);
    }
    free(packet);
}

static void deliver(struct packet *packet, struct sim_socket *to)
{
    if (to->shut_read || to->queued + packet->size + OVERHEAD > to->receive_limit) {
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

static int udp_send(struct sim_socket *socket, const void *data, size_t size, const struct sim_address *to)
{
    struct sim_host *here = socket->file.host, *there = sim_route_to(here, to);
    if (size > UDP_MOST)
        return -EMSGSIZE;
    int result = socket->local.length == 0 ? sim_bind_any(socket, NULL) : 0;
    if (result < 0)
        return result;
    struct packet *packet = packet_new(socket, there, to, data, size);
    if (packet == NULL)
        return -ENOBUFS;
    struct sim_socket from = {.file.host = here, .local = socket->local};
    sim_bind_any(&from, to); /* the address that it leaves from */
    packet->from = from.local;
    struct packet *copy = NULL;
    if (there != NULL && there != here && strikes(here->world, sim_link(here, there)->copy))
        copy = packet_new(socket, there, to, data, size);
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

static int unix_send(struct sim_socket *socket, const void *data, size_t size, const struct sim_address *to)
{
    struct sim_host *host = socket->file.host;
    const char *path = to->un.sun_path;
    struct sim_socket *target = sim_socket_at(host, SOCK_DGRAM, to, &socket->local);
    unsigned waiting = 0;
    if (target == NULL) {
        for (link_t *link = host->paths.next; *path != '\0' && link != &host->paths; link = link->next)
            if (strcmp(owner_of(link, struct sim_path, link)->address.sun_path, path) == 0)
                return -ECONNREFUSED;
        return *path != '\0' ? -ENOENT : -ECONNREFUSED;
    }
    if (target->peer.length != 0 && !sim_address_equal(&target->peer, &socket->local))
        return -EPERM;
    if (size > socket->send_limit - 32)
        return -EMSGSIZE;
    if (target->shut_read)
        return -EPIPE;
    for (link_t *link = target->packets.next; link != &target->packets; link = link->next)
        waiting++;
    if (waiting >= UNIX_QUEUE)
        return -EAGAIN;
    struct packet *packet = packet_new(socket, host, to, data, size);
    if (packet == NULL)
        return -ENOBUFS;
    list_append(&target->packets, &packet->link);
    target->queued += size + OVERHEAD;
    sim_stir(&target->file);
    return 0;
}

ssize_t sim_dgram_send(struct sim_socket *socket, const void *data, size_t size, const struct sim_address *to)
{
    bool is_unix = socket->family == AF_UNIX;
    if (to == NULL && socket->peer.length == 0)
        return is_unix ? -ENOTCONN : -EDESTADDRREQ;
    if (to != NULL && socket->peer.length != 0 && is_unix)
        return -EISCONN;
    if (!is_unix && size > UDP_MOST)
        return -EMSGSIZE;
    if (socket->error != 0)
        return sim_take_error(socket);
    if (socket->shut_write)
        return -EPIPE;
    if (to == NULL)
        to = &socket->peer;
    int result = is_unix ? unix_send(socket, data, size, to) : udp_send(socket, data, size, to);
    return result < 0 ? result : (ssize_t)size;
}

ssize_t sim_dgram_recv(struct sim_socket *socket, void *data, size_t size, int flags, struct sim_address *from)
{
    if (socket->error != 0)
        return sim_take_error(socket);
    if (list_empty(&socket->packets))
        return socket->shut_read ? 0 : -EAGAIN;
    struct packet *packet = owner_of(socket->packets.next, struct packet, link);
    size_t n = packet->size < size ? packet->size : size;
    if (n != 0)
        memcpy(data, packet->data, n);
    if (from != NULL)
        *from = packet->from;
    if (!(flags & MSG_PEEK)) {
        list_unlink(&packet->link);
        socket->queued -= packet->size + OVERHEAD;
        free(packet);
    }
    return (ssize_t)n;
}

int sim_dgram_connect(struct sim_socket *socket, const struct sim_address *to)
{
    if (socket->family == AF_UNIX) {
        struct sim_socket *target = sim_socket_at(socket->file.host, SOCK_DGRAM, to, &socket->local);
        if (target == NULL)
            return to->un.sun_path[0] != '\0' ? -ENOENT : -ECONNREFUSED;
    } else {
        int result = sim_bind_any(socket, to);
        if (result < 0)
            return result;
    }
    socket->peer = *to;
    return 0;
}

int sim_dgram_shutdown(struct sim_socket *socket, int how)
{
    bool connected = socket->peer.length != 0;
    if (how < SHUT_RD || how > SHUT_RDWR)
        return -EINVAL;
    if (socket->family != AF_UNIX || connected) {
        socket->shut_read |= how != SHUT_WR;
        socket->shut_write |= how != SHUT_RD;
        sim_stir(&socket->file);
    }
    return connected ? 0 : -ENOTCONN;
}

static unsigned dgram_ready(struct sim_file *file)
{
    struct sim_socket *socket = (struct sim_socket *)file;
    unsigned bits = socket->error != 0 ? POLLERR : 0;
    if (!list_empty(&socket->packets))
        bits |= POLLIN | POLLRDNORM;
    if (socket->shut_read)
        bits |= POLLIN | POLLRDNORM | POLLRDHUP | (socket->shut_write ? POLLHUP : 0);
    return bits | POLLOUT | POLLWRNORM | POLLWRBAND;
}

static ssize_t dgram_read(struct sim_file *file, void *data, size_t size)
{
    return sim_dgram_recv((struct sim_socket *)file, data, size, 0, NULL);
}

static ssize_t dgram_write(struct sim_file *file, const void *data, size_t size)
{
    return sim_dgram_send((struct sim_socket *)file, data, size, NULL);
}

static void dgram_close(struct sim_file *file)
{
    struct sim_socket *socket = (struct sim_socket *)file;
    while (!list_empty(&socket->packets)) {
        struct packet *packet = owner_of(socket->packets.next, struct packet, link);
        list_unlink(&packet->link);
        free(packet);
    }
    sim_socket_free(socket);
}

const struct sim_kind sim_dgram_kind = {"dgram", dgram_ready, dgram_read, dgram_write, dgram_close};
