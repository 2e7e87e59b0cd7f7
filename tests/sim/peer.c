/* peer.c: the raw hosts' steps. A step asks the host's poll once which peers have something to do, and does it until
 * the kernel has no more. Peers that pause are left out of that, and the host is woken when they go on. */
#include "peer.h"

#include "oracle.h"
#include "sim.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct peer_host {
    struct run *run;
    struct os *os;
    struct peer *peers; /* the last that came first */
    size_t count;
    struct pollfd *fds;
    struct peer **polled;
    size_t room;
    char name[32];
    struct peer_host *next;
};

struct run *peer_run(const struct peer *peer)
{
    return peer->host->run;
}

/* A host remembers its nearest wake only, and forgets it when its step begins: each step asks anew. */
static void wake_at(struct peer_host *host, uint64_t time)
{
    sim_wake(host->run->world, host->name, time);
}

void peer_touch(struct peer *peer)
{
    wake_at(peer->host, run_now(peer->host->run));
}

/* -- Ends -- */

static void done(struct peer *peer)
{
    if (peer->fd >= 0)
        peer->host->os->close(peer->fd, peer->host->os);
    peer->fd = -1;
    peer->state = PEER_DONE;
    peer->ended = run_now(peer->host->run);
    if (peer->class_ != NULL && peer->class_->done != NULL)
        peer->class_->done(peer);
}

static void failed(struct peer *peer, int error)
{
    if (peer->error == 0)
        peer->error = error;
    done(peer);
}

void peer_end(struct peer *peer, enum peer_end how)
{
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    struct os *os = peer->host->os;

    if (peer->state == PEER_DONE || how == PEER_WAITS)
        return;
    if (how == PEER_SHUTS && !peer->sent_end && !peer->send_failed) {
        int result = os->shutdown(peer->fd, SHUT_WR, os);
        peer->sent_end = result == 0;
        if (result < 0)
            failed(peer, result);
        else if (peer->got_end)
            done(peer);
    } else if (how == PEER_RESETS || how == PEER_CLOSES) {
        peer->rude = how == PEER_RESETS || !peer->got_end;
        if (how == PEER_RESETS)
            os->setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once, os);
        else
            peer->sent_end = true;
        done(peer);
    }
}

/* -- What an open peer does -- */

static uint64_t now_of(const struct peer *peer)
{
    return run_now(peer->host->run);
}

static bool wants_read(const struct peer *peer)
{
    return !peer->got_end && now_of(peer) >= peer->next_read && now_of(peer) >= peer->plan.read_start;
}

/* What comes after the last byte is something to do as well. */
static bool wants_send(const struct peer *peer)
{
    return !peer->sent_end && !peer->send_failed && now_of(peer) >= peer->next_send &&
           (peer->sent < peer->plan.total || peer->plan.end != PEER_WAITS || peer->got_end);
}

static size_t output(struct peer *peer, unsigned char *data, size_t size)
{
    uint64_t left = peer->plan.total - peer->sent;

    if (size > left)
        size = (size_t)left;
    if (peer->appetite != 0 && size > peer->appetite)
        size = peer->appetite;
    if (peer->plan.send_piece != 0 && size > peer->plan.send_piece)
        size = peer->plan.send_piece;
    if (peer->class_ != NULL && peer->class_->output != NULL)
        return peer->class_->output(peer, data, size);
    stream_fill(peer->salt, peer->sent, data, size);
    return size;
}

static void all_sent(struct peer *peer)
{
    if (peer->plan.end_pause > 0) {
        peer->next_send = now_of(peer) + peer->plan.end_pause;
        peer->plan.end_pause = 0;
    } else if (peer->plan.end == PEER_WAITS && peer->got_end) {
        peer_end(peer, PEER_CLOSES);
    } else {
        peer_end(peer, peer->plan.end);
    }
}

static void send_some(struct peer *peer)
{
    static unsigned char data[PEER_BUFFER];
    struct os *os = peer->host->os;

    while (peer->state == PEER_OPEN && wants_send(peer)) {
        if (peer->sent == peer->plan.total) {
            all_sent(peer);
            return;
        }
        size_t size = output(peer, data, sizeof data);
        ssize_t n = size > 0 ? os->send(peer->fd, data, size, MSG_NOSIGNAL, os) : -EAGAIN;
        if (n == -EAGAIN)
            return;
        if (n < 0) { /* what had come before may still be read; the error is told once */
            peer->error = (int)n;
            peer->send_failed = true;
            if (peer->got_end)
                done(peer);
            return;
        }
        peer->sent += (size_t)n;
        peer->appetite = (size_t)n < size ? (size_t)n + 64 : 2 * size + 64;
        if (peer->plan.send_pause > 0)
            peer->next_send = now_of(peer) + peer->plan.send_pause;
    }
}

static void took(struct peer *peer, const unsigned char *data, size_t n)
{
    if (peer->class_ != NULL && peer->class_->input != NULL)
        peer->class_->input(peer, data, n);
    peer->received += n;
    if (peer->plan.read_pause > 0)
        peer->next_read = now_of(peer) + peer->plan.read_pause;
    if (peer->plan.enough > 0 && peer->received >= peer->plan.enough)
        peer_end(peer, peer->plan.enough_end);
}

static void read_some(struct peer *peer)
{
    static unsigned char data[PEER_BUFFER];
    struct os *os = peer->host->os;
    size_t size = peer->plan.read_piece != 0 ? peer->plan.read_piece : sizeof data;

    while (peer->state == PEER_OPEN && wants_read(peer)) {
        ssize_t n = os->recv(peer->fd, data, size < sizeof data ? size : sizeof data, 0, os);
        if (n == -EAGAIN)
            return;
        if (n > 0) {
            took(peer, data, (size_t)n);
        } else if (n < 0) {
            failed(peer, (int)n);
        } else if (peer->send_failed) { /* an error reads as an end, once it was told */
            done(peer);
        } else {
            peer->got_end = true;
            if (peer->sent_end)
                done(peer);
        }
    }
}

static void connecting(struct peer *peer)
{
    struct os *os = peer->host->os;
    int error = 0;
    socklen_t length = sizeof error;
    struct sockaddr_storage address;
    socklen_t size = sizeof address;

    os->getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &error, &length, os);
    if (error != 0) {
        failed(peer, -error);
    } else if (os->getpeername(peer->fd, (struct sockaddr *)&address, &size, os) == 0) {
        peer->state = PEER_OPEN;
        peer->opened = now_of(peer);
        if (peer->class_ != NULL && peer->class_->connected != NULL)
            peer->class_->connected(peer);
    }
}

/* -- Beginnings -- */

static void start(struct peer *peer)
{
    struct os *os = peer->host->os;
    int result = os->socket(peer->to.ss_family, SOCK_STREAM, 0, os);

    if (result >= 0) {
        peer->fd = result;
        peer->state = PEER_CONNECTING;
        result = os->connect(peer->fd, (struct sockaddr *)&peer->to, peer->to_length, os);
    }
    if (result < 0 && result != -EINPROGRESS)
        failed(peer, result);
    else if (result == 0)
        connecting(peer);
}

static void add(struct peer *peer, struct peer_host *host)
{
    peer->host = host;
    peer->fd = -1;
    peer->next = host->peers;
    host->peers = peer;
    host->count++;
    wake_at(host, peer->plan.start);
}

void peer_connect(struct peer *peer, struct peer_host *host, const char *name, const char *to, uint16_t port)
{
    char text[8];

    snprintf(peer->name, sizeof peer->name, "%s", name);
    snprintf(text, sizeof text, "%u", port);
    peer->to_length = sizeof peer->to;
    asyncore_parse_address(to, text, &peer->to, &peer->to_length);
    add(peer, host);
}

void peer_address(const struct peer *peer, struct sockaddr_in *address)
{
    struct os *os = peer->host->os;
    socklen_t length = sizeof *address;

    os->getsockname(peer->fd, (struct sockaddr *)address, &length, os);
}

void peer_listen(struct peer *listener, struct peer_host *host, uint16_t port,
                 struct peer *(*accepted)(struct peer *listener))
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct os *os = host->os;
    int result;

    snprintf(listener->name, sizeof listener->name, "listener");
    listener->accepted = accepted;
    add(listener, host);
    listener->fd = os->socket(AF_INET, SOCK_STREAM, 0, os);
    listener->state = PEER_OPEN;
    result = os->bind(listener->fd, (struct sockaddr *)&any, sizeof any, os);
    if (result == 0)
        result = os->listen(listener->fd, 128, os);
    oracle_that(host->run, result == 0, "peer", "%s cannot listen: %s", host->name, asyncore_strerror(result));
}

void peer_close_listener(struct peer *listener)
{
    if (listener->state == PEER_OPEN)
        done(listener);
}

static void accept_all(struct peer *listener)
{
    struct os *os = listener->host->os;
    int fd;

    while (listener->state == PEER_OPEN && (fd = os->accept(listener->fd, NULL, NULL, os)) >= 0) {
        struct peer *peer = listener->accepted(listener);
        listener->accepts++;
        if (peer == NULL) {
            os->close(fd, os);
            continue;
        }
        snprintf(peer->name, sizeof peer->name, "server %zu", listener->accepts - 1);
        peer->plan.start = 0;
        add(peer, listener->host);
        peer->fd = fd;
        peer->state = PEER_OPEN;
        peer->opened = now_of(peer);
        if (peer->class_ != NULL && peer->class_->connected != NULL)
            peer->class_->connected(peer);
    }
}

/* -- Steps -- */

static short wanted(const struct peer *peer)
{
    if (peer->accepted != NULL)
        return POLLIN;
    if (peer->state == PEER_CONNECTING)
        return POLLOUT;
    return (short)((wants_read(peer) ? POLLIN : 0) | (wants_send(peer) ? POLLOUT : 0));
}

static void serve(struct peer *peer)
{
    if (peer->accepted != NULL) {
        accept_all(peer);
        return;
    }
    if (peer->state == PEER_CONNECTING)
        connecting(peer);
    if (peer->state == PEER_OPEN)
        read_some(peer);
    if (peer->state == PEER_OPEN)
        send_some(peer);
    if (peer->state == PEER_OPEN && peer->send_failed)
        read_some(peer);
}

/* When a pause ends. */
static void wake_later(struct peer *peer)
{
    uint64_t now = now_of(peer),
             read = peer->next_read > peer->plan.read_start ? peer->next_read : peer->plan.read_start;

    if (peer->state == PEER_PLANNED)
        wake_at(peer->host, peer->plan.start);
    if (peer->state != PEER_OPEN || peer->accepted != NULL)
        return;
    if (!peer->got_end && read > now)
        wake_at(peer->host, read);
    if (!peer->sent_end && !peer->send_failed && peer->next_send > now)
        wake_at(peer->host, peer->next_send);
}

static size_t gather(struct peer_host *host)
{
    size_t count = 0;

    if (host->room < host->count) {
        host->room = host->count + 64;
        host->fds = run_alloc(host->run, host->room * sizeof *host->fds);
        host->polled = run_alloc(host->run, host->room * sizeof(struct peer *));
    }
    for (struct peer *peer = host->peers; peer != NULL; peer = peer->next) {
        if (peer->state == PEER_PLANNED && peer->plan.start <= now_of(peer))
            start(peer);
        if (peer->state != PEER_CONNECTING && peer->state != PEER_OPEN)
            continue;
        short events = wanted(peer);
        if (events == 0)
            continue;
        host->polled[count] = peer;
        host->fds[count++] = (struct pollfd){.fd = peer->fd, .events = events};
    }
    return count;
}

static void step(void *arg)
{
    struct peer_host *host = arg;
    size_t count = gather(host);

    if (count > 0 && host->os->poll(host->fds, count, 0, host->os) > 0)
        for (size_t i = 0; i < count; i++)
            if (host->fds[i].revents != 0 && host->polled[i]->state != PEER_DONE)
                serve(host->polled[i]);
    for (struct peer *peer = host->peers; peer != NULL; peer = peer->next)
        wake_later(peer);
}

struct peer_host *peer_host(struct run *run, const char *name)
{
    struct peer_host *host;

    for (host = run->peer_hosts; host != NULL; host = host->next)
        if (strcmp(host->name, name) == 0)
            return host;
    host = run_alloc(run, sizeof *host);
    host->run = run;
    snprintf(host->name, sizeof host->name, "%s", name);
    host->os = sim_os(run->world, name);
    host->next = run->peer_hosts;
    run->peer_hosts = host;
    sim_set_step(run->world, host->name, step, host);
    return host;
}

void peer_plan_reading(struct peer_plan *plan, struct random *random, size_t total)
{
    if (random_chance(random, 15)) {
        plan->read_piece = (size_t)random_scale(random, 512, PEER_BUFFER);
        plan->read_pause = random_scale(random, 1000, 2 * ASYNCORE_SIM_MS);
    }
    if (random_chance(random, 10)) {
        plan->enough = random_in(random, 1, total);
        plan->enough_end = (enum peer_end)random_in(random, PEER_CLOSES, PEER_RESETS);
    }
}

void peer_plan_full(struct peer_plan *plan)
{
    plan->total = 64 << 10;
    plan->end = PEER_SHUTS;
    plan->enough = 0;
}
