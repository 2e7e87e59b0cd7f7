/* channel.c: the dispatcher: what it wants, how its handlers are called, and how it ends.
 *
 * INTEREST is a function of the state (mask), computed anew whenever something that it depends on changes and handed
 * to the watch: connecting waits for WRITE, a listener for READ, everybody else for what was asked with
 * asyncore_want() or said by the predicates, less what can no longer come: input after the end of the stream, input
 * while a queue is past its high mark, anything after a fatal error.
 *
 * AFTER EVERY HANDLER the loop settles what became of the channel, in settle() and nowhere else: a negative result,
 * an error or an end that recv or send recorded (S_BROKEN, S_EOF), is told by handle_error or handle_close, once.
 * What is recorded outside the channel's own handlers puts it into map->pending (S_TELL), and is settled from there.
 *
 * A FAILED SEND is not the end while input may still come: the peer may have answered before it went away. It is
 * recorded (S_SEND_FAILED), and becomes the channel's error when recv finds the end. (A socket reports its error
 * once: after send had it, recv just gives 0.)
 *
 * CLOSING takes the channel out of every list and the engine, and closes the descriptor, at once; only destroy
 * waits, in map->dead, for the end of the turn. The memory of a channel therefore outlives its own handlers, and
 * fini(), which gives it back at once, is refused there. A channel that moved to another map in its own handler goes
 * back to the map of that handler to die: a turn of the other one may come and go before the handler returns. */
#include "channel.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct asyncore_dispatcher) == 128, "part of the ABI");
_Static_assert(sizeof(struct watch) == 32, "an idle descriptor's cost");
_Static_assert(ASYNCORE_READ == POLLIN && ASYNCORE_EXPT == POLLPRI && ASYNCORE_WRITE == POLLOUT &&
                   ASYNCORE_ERROR == POLLERR && ASYNCORE_HANGUP == POLLHUP,
               "the masks are the kernel's");
_Static_assert(POLLIN == EPOLLIN && POLLPRI == EPOLLPRI && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR &&
                   POLLHUP == EPOLLHUP,
               "and epoll's are poll's");

/* Errors that mean that the peer is gone: handle_close has all there is to say. */
static bool disconnected(int error)
{
    return error == -ECONNRESET || error == -ENOTCONN || error == -ESHUTDOWN || error == -ECONNABORTED ||
           error == -EPIPE || error == -EBADF;
}

/* -- Interest -- */

static unsigned mask(const struct asyncore_dispatcher *d)
{
    uint32_t s = d->state_;
    unsigned wanted = d->want_;
    if (s & S_CONNECTING)
        return s & S_LOOKUP ? 0 : ASYNCORE_WRITE;
    if (s & S_BROKEN)
        return 0;
    if (!(s & (S_CONNECTED | S_ACCEPTING)) && d->type_ == SOCK_STREAM)
        return 0; /* the kernel calls a stream that is not connected hung up */
    if (s & S_ASK_READ)
        wanted = (wanted & ~(unsigned)ASYNCORE_READ) | (s & S_SAYS_READ ? ASYNCORE_READ : 0);
    if (s & S_ACCEPTING)
        return s & (S_RESTING | S_EOF) ? 0 : wanted & ASYNCORE_READ;
    if (s & S_BUFFERED) { /* a datagram socket that is not connected would be ready for what it cannot send */
        bool queued = s & S_CONNECTED && with_send((struct asyncore_dispatcher *)d)->head_ != NULL;
        wanted = (wanted & ~(unsigned)ASYNCORE_WRITE) | (queued ? ASYNCORE_WRITE : 0);
    }
    if (s & S_ASK_WRITE)
        wanted = (wanted & ~(unsigned)ASYNCORE_WRITE) | (s & S_SAYS_WRITE ? ASYNCORE_WRITE : 0);
    if (s & (S_EOF | S_PAUSED))
        wanted &= ~(unsigned)(ASYNCORE_READ | ASYNCORE_EXPT);
    if (s & S_SEND_FAILED)
        wanted &= ~(unsigned)ASYNCORE_WRITE;
    return wanted;
}

static void held_release(struct asyncore_dispatcher *d, unsigned wanted)
{
    if (d->state_ & S_HELD && wanted & ASYNCORE_READ) {
        d->state_ &= ~(uint32_t)S_HELD;
        channel_pend(d, S_READY);
    }
}

void channel_interest(struct asyncore_dispatcher *d)
{
    if (d->state_ & S_ADDED && d->fd >= 0 && !being_made(d)) {
        unsigned wanted = mask(d);
        watch_want(d->map, d->fd, wanted);
        map_touched(d->map);
        held_release(d, wanted);
    }
}

static void says(struct asyncore_dispatcher *d, uint32_t bit, bool yes)
{
    d->state_ = yes ? d->state_ | bit : d->state_ & ~bit;
}

/* Whether reading, or writing, is wanted at this moment: a neighbour may have changed what a predicate looks at. */
static bool wants_read(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    if (d->state_ & S_ASK_READ && map->open)
        says(d, S_SAYS_READ, call(d, readable) != 0);
    return map->open && (mask(d) & ASYNCORE_READ) != 0;
}

static bool wants_write(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    if (d->state_ & S_ASK_WRITE && map->open)
        says(d, S_SAYS_WRITE, call(d, writable) != 0);
    return map->open && (mask(d) & ASYNCORE_WRITE) != 0;
}

int asyncore_want(struct asyncore_dispatcher *d, unsigned events)
{
    if (events & ~(unsigned)(ASYNCORE_READ | ASYNCORE_WRITE | ASYNCORE_EXPT | ASYNCORE_ERROR))
        return -EINVAL;
    if (d->map == NULL || map_forked(d->map) < 0)
        return d->map == NULL ? -EBADF : -ECHILD;
    d->want_ = (uint16_t)events;
    channel_interest(d);
    return 0;
}

unsigned asyncore_wanted(const struct asyncore_dispatcher *d)
{
    return d->want_;
}

/* -- The pending list -- */

void channel_pend(struct asyncore_dispatcher *d, uint32_t why)
{
    if (!(d->state_ & S_ADDED))
        return;                  /* out of the map nobody is told: what is recorded is told when it joins again */
    if (d->state_ & S_RESTING) { /* that list is linked through the same member */
        list_unlink(&d->pending_);
        d->state_ &= ~(uint32_t)S_RESTING;
        channel_interest(d);
    }
    if (!(d->state_ & S_ANY_PENDING))
        list_append(&d->map->pending, &d->pending_);
    d->state_ |= why;
    d->map->work |= WORK_PENDING;
    map_touched(d->map);
}

void channel_broken(struct asyncore_dispatcher *d, int error)
{
    if (d->state_ & S_BROKEN)
        return;
    d->state_ |= S_BROKEN;
    d->error_ = error;
    channel_interest(d);
    if (!told_after_handler(d))
        channel_pend(d, S_TELL);
}

int asyncore_ready(struct asyncore_dispatcher *d)
{
    if (!(d->state_ & S_ADDED))
        return -EBADF;
    if (map_forked(d->map) < 0)
        return -ECHILD;
    channel_pend(d, S_READY);
    return 0;
}

/* -- Serving -- */

/* handle_close for an error, or handle_error; who fails there too is closed. */
static void tell_error(struct asyncore_map *map, struct asyncore_dispatcher *d, int error)
{
    int result = 0;
    d->error_ = error;
    if (!disconnected(error))
        result = call(d, handle_error, error);
    if (map->open && (disconnected(error) || (result < 0 && result != -EAGAIN)))
        result = call(d, handle_close);
    else
        return;
    if (map->open && result < 0 && result != -EAGAIN)
        asyncore_close(d);
}

static void tell_end(struct asyncore_map *map, struct asyncore_dispatcher *d, uint32_t told)
{
    d->state_ |= told;
    d->error_ = 0;
    int result = call(d, handle_close);
    if (map->open && result < 0 && result != -EAGAIN)
        tell_error(map, d, result);
}

/* What a handler's result and the records of the channel come to. Whether the channel is still open. */
RARE bool channel_settle(struct asyncore_map *map, struct asyncore_dispatcher *d, int result)
{
    if (map->open && d->state_ & S_ACCEPTING && (exhausted(result) || result == -ECONNABORTED)) {
        if (result != -ECONNABORTED)
            channel_rest(d);
        return true;
    }
    while (map->open) {
        uint32_t s = d->state_;
        bool untold = (s & S_BROKEN) && !(s & S_BROKEN_TOLD);
        if (untold || (result < 0 && result != -EAGAIN && !(s & S_BROKEN))) {
            int error = untold ? d->error_ : result;
            if (untold || (s & S_SEND_FAILED && error == d->error_)) {
                d->state_ |= S_BROKEN | S_BROKEN_TOLD;
                channel_interest(d);
            }
            tell_error(map, d, error);
        } else if (s & S_EOF && !(s & (S_EOF_TOLD | S_BROKEN))) {
            tell_end(map, d, S_EOF_TOLD);
        } else if (s & S_DONE && !(s & (S_DONE_TOLD | S_BROKEN))) {
            tell_end(map, d, S_DONE_TOLD);
        } else {
            break;
        }
        result = 0;
    }
    return map->open;
}

/* An error or a hang-up, and neither reading nor writing is wanted. Bytes that are still to be read are not
 * overtaken by a hang-up: the channel leaves the kernel's set, and finds the end when it reads. */
static int only_error(struct asyncore_dispatcher *d, unsigned events)
{
    struct os *os = d->map->os;
    int error = 0;
    char byte;
    socklen_t length = sizeof error;
    if (d->state_ & S_NO_SOCKET && events & ASYNCORE_ERROR)
        error = EPIPE;
    else if (events & ASYNCORE_ERROR)
        os->getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &error, &length, os);
    if (error != 0) {
        channel_broken(d, -error);
        return 0;
    }
    ssize_t left = d->state_ & S_NO_SOCKET ? -EAGAIN : os->recv(d->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, os);
    if (left == 0 && !datagrams(d))
        d->state_ |= S_EOF;
    else if (left < 0 && left != -EAGAIN && left != -EINTR)
        channel_broken(d, (int)left);
    return 0;
}

static bool reads_or_writes(const struct asyncore_dispatcher *d)
{
    return d->state_ & S_CONNECTING || mask(d) & (ASYNCORE_READ | ASYNCORE_WRITE);
}

/* All but a plain read. A hang-up or an error that neither reading nor writing is going to find would be reported
 * again and again: who was told of it is out of the kernel's set. (Who came to want ERROR alone in this very event,
 * having read the end, has not been told yet.) */
RARE void channel_serve_rare(struct asyncore_dispatcher *d, unsigned events)
{
    struct asyncore_map *map = d->map;
    bool alone = events & (ASYNCORE_ERROR | ASYNCORE_HANGUP) && !reads_or_writes(d);
    if (settle(map, d, call(d, handle_event, events)) && alone && !reads_or_writes(d)) {
        d->want_ &= (uint16_t) ~(ASYNCORE_ERROR | ASYNCORE_EXPT);
        channel_interest(d);
    }
}

/* The default order of events. */
int default_event(struct asyncore_dispatcher *d, unsigned events)
{
    struct asyncore_map *map = d->map;
    if (events & POLLNVAL) {
        channel_broken(d, -EBADF);
        return 0;
    }
    if (d->state_ & S_CONNECTING) /* while the name is looked up: of a datagram socket, before it wanted to connect */
        return d->state_ & S_LOOKUP ? 0 : connect_event(d, events);
    if (d->state_ & S_ACCEPTING)
        return events & ~(unsigned)ASYNCORE_WRITE && wants_read(d) ? call(d, handle_accept) : 0;
    if (events & ASYNCORE_EXPT && mask(d) & ASYNCORE_EXPT && !settle(map, d, call(d, handle_expt)))
        return 0;
    if (events & (ASYNCORE_ERROR | ASYNCORE_HANGUP)) {
        if (wants_read(d))
            events |= ASYNCORE_READ;
        else if (wants_write(d))
            events |= ASYNCORE_WRITE;
        else if (d->want_ & ASYNCORE_ERROR)
            return only_error(d, events);
    }
    if (events & ASYNCORE_READ && wants_read(d) && !settle(map, d, call(d, handle_read)))
        return 0;
    if (events & ASYNCORE_WRITE && map->open && wants_write(d))
        return call(d, handle_write);
    return 0;
}

static bool ask(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    bool reads = d->state_ & S_ASK_READ && call(d, readable) != 0;
    bool writes = map->open && d->state_ & S_ASK_WRITE && !(d->state_ & S_ACCEPTING) && call(d, writable) != 0;
    if (!map->open)
        return false;
    says(d, S_SAYS_READ, reads);
    says(d, S_SAYS_WRITE, writes);
    return true;
}

void channels_ask(struct asyncore_map *map)
{
    link_t asked;
    map->work &= ~(unsigned)WORK_UNASKED;
    list_take(&map->asked, &asked);
    while (!list_empty(&asked)) {
        struct asyncore_dispatcher *d = owner_of(asked.next, struct asyncore_dispatcher, asked_);
        list_unlink(&d->asked_);
        list_append(&map->asked, &d->asked_);
        begin(d);
        if (ask(d) && d->fd >= 0)
            channel_interest(d);
    }
    map->serving = NULL;
}

/* Queued output goes out; what cannot wait for the kernel is told. Each visits a list that handlers may change. */
void channels_flush(struct asyncore_map *map)
{
    link_t todo;
    list_take(&map->pending, &todo);
    while (!list_empty(&todo)) {
        struct asyncore_dispatcher *d = owner_of(todo.next, struct asyncore_dispatcher, pending_);
        list_unlink(&d->pending_);
        bool flush = d->state_ & S_FLUSH;
        d->state_ &= ~(uint32_t)S_FLUSH;
        if (d->state_ & S_ANY_PENDING)
            list_append(&map->pending, &d->pending_);
        if (!flush)
            continue;
        begin(d);
        buffered_flush(d);
        settle(map, d, 0);
    }
    map->serving = NULL;
}

void channels_deliver(struct asyncore_map *map)
{
    link_t todo;
    list_take(&map->pending, &todo);
    while (!list_empty(&todo)) {
        struct asyncore_dispatcher *d = owner_of(todo.next, struct asyncore_dispatcher, pending_);
        uint32_t why = d->state_;
        list_unlink(&d->pending_);
        d->state_ &= ~(uint32_t)(S_READY | S_TELL);
        if (d->state_ & S_FLUSH)
            list_append(&map->pending, &d->pending_);
        begin(d);
        if (why & S_READY && d->state_ & S_CONNECTED) {
            if (wants_read(d))
                settle(map, d, call(d, handle_read));
            else if (map->open && !(d->state_ & (S_EOF | S_BROKEN)))
                d->state_ |= S_HELD;
        }
        settle(map, d, 0);
    }
    map->serving = NULL;
}

/* -- Joining and leaving the map -- */

int channel_usable(const struct asyncore_dispatcher *d)
{
    if (d->map == NULL || d->state_ & S_DYING)
        return -EBADF;
    if (map_elsewhere(d->map))
        return -EPERM;
    return map_forked(d->map);
}

void channel_enlist(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    if (d->state_ & S_ADDED)
        return;
    d->state_ |= S_ADDED;
    list_append(&map->all, &d->all_);
    if (d->state_ & (S_ASK_READ | S_ASK_WRITE)) {
        list_append(&map->asked, &d->asked_);
        map->work |= WORK_ASKED | WORK_UNASKED;
    }
    if (!(d->state_ & S_BACKGROUND)) {
        d->state_ |= S_COUNTED;
        map->foreground++;
    }
}

int channel_attach(struct asyncore_dispatcher *d, int fd)
{
    int result = watch_add(d->map, fd, WATCH_CHANNEL, d, mask(d));
    if (result < 0)
        return result;
    d->fd = fd;
    channel_enlist(d);
    if (d->state_ & (S_EOF | S_BROKEN | S_DONE)) /* it was out of the map when that happened */
        channel_pend(d, S_TELL);
    held_release(d, mask(d));
    map_touched(d->map);
    return 0;
}

void channel_detach(struct asyncore_dispatcher *d, bool closing)
{
    struct watch *w = d->fd >= 0 ? watch_at(d->map, d->fd) : NULL;
    if (w == NULL || w->kind != WATCH_CHANNEL || w->owner != d)
        return; /* it is out of the map already */
    if (closing)
        watch_closing(d->map, d->fd);
    else
        watch_del(d->map, d->fd);
}

static void leave(struct asyncore_dispatcher *d, bool closing)
{
    struct asyncore_map *map = d->map;
    channel_detach(d, closing);
    list_unlink(&d->all_);
    list_unlink(&d->asked_);
    list_unlink(&d->pending_);
    if (d->state_ & S_COUNTED)
        map->foreground--;
    if (d->state_ & S_READY)
        d->state_ |= S_HELD; /* until it joins again */
    d->state_ &= ~(uint32_t)(S_ADDED | S_COUNTED | S_ANY_PENDING | S_RESTING);
    if (map->serving == d)
        map->open = false;
}

int channel_init(struct asyncore_dispatcher *d, const struct asyncore_class *cls, const struct class_root *root,
                 struct asyncore_map *map)
{
    const struct asyncore_class *table;
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (map_elsewhere(map))
        return -EPERM;
    result = class_resolve(map, cls, root, &table);
    if (result < 0)
        return result;
    memset(d, 0, sizeof *d);
    d->class_ = table;
    d->map = map;
    d->fd = -1;
    d->state_ = root->state;
    if (table->readable != dispatcher_defaults.readable)
        d->state_ |= S_ASK_READ;
    if (table->writable != dispatcher_defaults.writable)
        d->state_ |= S_ASK_WRITE;
    d->want_ = ASYNCORE_READ | (table->handle_expt != dispatcher_defaults.handle_expt ? ASYNCORE_EXPT : 0);
    return 0;
}

int asyncore_dispatcher_init_(struct asyncore_dispatcher *d, const struct asyncore_class *cls, struct asyncore_map *map,
                              size_t size, size_t class_size, unsigned abi)
{
    if (size != sizeof *d || class_size != sizeof *cls || abi != ASYNCORE_ABI)
        return -EINVAL;
    return channel_init(d, cls, &dispatcher_root, map);
}

/* What was handed over is closed, unless it is another's. */
static int take_refused(struct asyncore_map *map, int fd, int result)
{
    struct watch *w = map != NULL && fd >= 0 ? watch_at(map, fd) : NULL;
    if (map != NULL && fd >= 0 && (w == NULL || w->kind == WATCH_NONE))
        map->os->close(fd, map->os);
    return result;
}

/* Of a client that is handed over in its handle_accepted; else 0, unknown. After that its number may mean anything. */
static int accepted_type(struct asyncore_map *map, int fd)
{
    if (map == NULL || fd < 0 || fd != map->accepted)
        return 0;
    map->accepted = -1;
    return map->accepted_type;
}

int channel_take(struct asyncore_dispatcher *d, int fd)
{
    int type = accepted_type(d->map, fd);
    int result = channel_usable(d);
    if (result < 0)
        return result == -EBADF ? take_refused(d->map, fd, result) : result;
    if (d->fd >= 0 || d->state_ & S_CONNECTING)
        return take_refused(d->map, fd, -EEXIST);
    d->state_ |= S_CONNECTED;
    d->type_ = (uint8_t)type;
    d->family_ = 0; /* of the socket before, if there was one */
    result = being_made(d) ? -EBUSY : channel_attach(d, fd);
    if (result == 0)
        return 0;
    if (result != -EEXIST && fd >= 0)
        d->map->os->close(fd, d->map->os);
    asyncore_close(d);
    return result;
}

int asyncore_set_socket(struct asyncore_dispatcher *d, int fd)
{
    return channel_take(d, fd);
}

int asyncore_del_channel(struct asyncore_dispatcher *d)
{
    int result = channel_usable(d);
    if (result < 0)
        return result;
    if (!(d->state_ & S_ADDED))
        return 0;
    if (d->state_ & S_CONNECTING)
        return -EBUSY; /* its sockets come and go */
    leave(d, false);
    return 0;
}

static int move(struct asyncore_dispatcher *d, struct asyncore_map *map)
{
    struct extra *extra = d->extra_;
    const struct asyncore_class *table;
    int result = class_resolve(map, class_source_of(d), class_root_of(d), &table);
    if (result < 0)
        return result;
    if (extra != NULL)
        asyncore_cancel(&extra->idle_timer);
    d->class_ = table;
    d->map = map;
    return d->state_ & S_IDLE ? asyncore_set_idle_timeout(d, (unsigned)(extra->idle / 1000000u)) : 0;
}

int asyncore_add_channel(struct asyncore_dispatcher *d, struct asyncore_map *map)
{
    int result = channel_usable(d);
    if (result < 0)
        return result;
    if (d->state_ & S_ADDED)
        return -EEXIST;
    if (d->fd < 0 || being_made(d))
        return d->fd < 0 ? -EBADF : -EBUSY;
    if (map != NULL && map != d->map) {
        result = map_get(&map);
        if (result == 0 && map_elsewhere(map))
            result = -EPERM;
        if (result == 0)
            result = move(d, map);
        if (result < 0)
            return result;
    }
    return channel_attach(d, d->fd);
}

void asyncore_set_borrowed(struct asyncore_dispatcher *d)
{
    d->state_ |= S_BORROWED;
}

void asyncore_set_background(struct asyncore_dispatcher *d, int on)
{
    says(d, S_BACKGROUND, on != 0);
    if (!(d->state_ & S_ADDED) || !on == ((d->state_ & S_COUNTED) != 0))
        return;
    says(d, S_COUNTED, !on);
    d->map->foreground += on ? (size_t)-1 : 1;
}

/* -- Ends -- */

/* All but destroy. */
static void end(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    const struct class_root *root = class_root_of(d);
    struct extra *extra = d->extra_;
    if (root->release != NULL)
        root->release(d, true);
    int fd = d->state_ & S_BORROWED ? -1 : d->fd; /* a signal has closed its own */
    if (extra != NULL) {
        asyncore_cancel(&extra->idle_timer);
        d->state_ &= ~(uint32_t)S_IDLE;
        connect_forget(d);
    }
    leave(d, fd >= 0);
    d->fd = -1;
    d->state_ &= S_CLASS;
    if (fd >= 0) {
        map->os->close(fd, map->os);
        channels_wake(map);
    }
}

int asyncore_close(struct asyncore_dispatcher *d)
{
    int result = channel_usable(d);
    if (result == -EBADF)
        return 0;
    if (result < 0)
        return result;
    end(d);
    if (d->class_->destroy != dispatcher_defaults.destroy) {
        struct asyncore_map *serving = map_serving(d);
        if (serving != NULL && serving != d->map)
            move(d, serving); /* it knows the class already: this cannot fail */
        d->state_ |= S_DYING;
        list_append(&d->map->dead, &d->all_);
        d->map->work |= WORK_DEAD;
        map_touched(d->map);
    }
    return 0;
}

int asyncore_fini(struct asyncore_dispatcher *d)
{
    int result = d->map == NULL ? 0 : map_elsewhere(d->map) ? -EPERM : map_forked(d->map);
    if (result < 0)
        return result;
    if (map_serving(d) != NULL || (d->map != NULL && being_made(d)))
        return -EBUSY;
    if (d->map == NULL)
        return 0;
    if (!(d->state_ & S_DYING))
        end(d);
    list_unlink(&d->all_);
    d->map = NULL;
    d->state_ = 0;
    return 0;
}

void channels_reap(struct asyncore_map *map)
{
    while (!list_empty(&map->dead)) {
        struct asyncore_dispatcher *d = owner_of(map->dead.next, struct asyncore_dispatcher, all_);
        list_unlink(&d->all_);
        call(d, destroy);
    }
}

int asyncore_close_all(struct asyncore_map *map)
{
    int result = map_get(&map);
    while (result == 0 && !list_empty(&map->all))
        result = asyncore_close(owner_of(map->all.next, struct asyncore_dispatcher, all_));
    return result;
}

void channels_clear(struct asyncore_map *map)
{
    do {
        while (!list_empty(&map->all)) {
            struct asyncore_dispatcher *d = owner_of(map->all.next, struct asyncore_dispatcher, all_);
            asyncore_close(d);
            if (!(d->state_ & S_DYING))
                d->map = NULL; /* close and fini after this are nothing */
        }
        channels_reap(map);
    } while (!list_empty(&map->all) || !list_empty(&map->dead));
    classes_clear(map);
}

/* -- Listeners without descriptors -- */

void channels_wake(struct asyncore_map *map)
{
    while (!list_empty(&map->resting)) {
        struct asyncore_dispatcher *d = owner_of(map->resting.next, struct asyncore_dispatcher, pending_);
        list_unlink(&d->pending_);
        d->state_ &= ~(uint32_t)S_RESTING;
        channel_interest(d);
    }
}

static void rested(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    channels_wake(arg);
}

/* Until this map closes a descriptor, or the pause is over: somebody else may have. */
void channel_rest(struct asyncore_dispatcher *d)
{
    struct asyncore_map *map = d->map;
    if (d->state_ & (S_RESTING | S_ANY_PENDING))
        return;
    d->state_ |= S_RESTING;
    list_append(&map->resting, &d->pending_);
    channel_interest(d);
    if (!asyncore_pending(&map->rest_timer)) {
        asyncore_timer_set_background(&map->rest_timer, 1);
        timer_set_ns(map, &map->rest_timer, map->options.accept_pause * (uint64_t)1000000, 0, rested, map);
    }
}

/* The engine did not take it. A listener waits for that, too, until there is room again. */
void channel_refused(struct asyncore_dispatcher *d, int error)
{
    if (d->state_ & S_ACCEPTING && (exhausted(error) || error == -ENOSPC))
        channel_rest(d);
    if (!(d->state_ & S_RESTING))
        channel_broken(d, error);
}

/* -- Idle timeouts: traffic stores a time stamp, and the timer looks whether it is old enough -- */

int channel_extra(struct asyncore_dispatcher *d, struct extra **ret)
{
    if (d->extra_ == NULL) {
        d->extra_ = map_alloc(d->map, sizeof(struct extra));
        if (d->extra_ == NULL)
            return -ENOMEM;
        memset(d->extra_, 0, sizeof(struct extra));
    }
    *ret = d->extra_;
    return 0;
}

void channel_active(struct asyncore_dispatcher *d)
{
    struct extra *extra = d->extra_;
    extra->last = map_now(d->map);
}

static void idle_look(struct asyncore_timer *timer, void *arg)
{
    struct asyncore_dispatcher *d = arg;
    struct asyncore_map *map = d->map;
    struct extra *extra = d->extra_;
    uint64_t now = map_now(map), due = extra->last + extra->idle;
    bool late = now >= due;
    if (late)
        extra->last = now;
    timer_set_ns(map, timer, late ? extra->idle : due - now, 0, idle_look, d);
    if (!late || !(d->state_ & S_ADDED))
        return;
    begin(d);
    settle(map, d, -ETIMEDOUT);
    map->serving = NULL;
}

int asyncore_set_idle_timeout(struct asyncore_dispatcher *d, unsigned milliseconds)
{
    struct extra *extra;
    int result = channel_usable(d);
    if (result < 0)
        return result;
    if (milliseconds == 0) {
        if (d->state_ & S_IDLE)
            asyncore_cancel(&((struct extra *)d->extra_)->idle_timer);
        d->state_ &= ~(uint32_t)S_IDLE;
        return 0;
    }
    result = channel_extra(d, &extra);
    if (result < 0)
        return result;
    extra->idle = (uint64_t)milliseconds * 1000000u;
    extra->last = d->map->os->now(d->map->os);
    asyncore_timer_set_background(&extra->idle_timer, 1);
    result = timer_set_ns(d->map, &extra->idle_timer, extra->idle, 0, idle_look, d);
    if (result == 0)
        d->state_ |= S_IDLE;
    return result;
}

/* -- What it is -- */

int asyncore_error(const struct asyncore_dispatcher *d)
{
    return d->error_;
}

int asyncore_connected(const struct asyncore_dispatcher *d)
{
    return (d->state_ & S_CONNECTED) != 0;
}

int asyncore_connecting(const struct asyncore_dispatcher *d)
{
    return (d->state_ & S_CONNECTING) != 0;
}

int asyncore_accepting(const struct asyncore_dispatcher *d)
{
    return (d->state_ & S_ACCEPTING) != 0;
}

static const char *status(const struct asyncore_dispatcher *d)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {{S_BROKEN, "broken"},      {S_RESTING, "resting"},       {S_ACCEPTING, "accepting"},
                 {S_LOOKUP, "looking up"},  {S_CONNECTING, "connecting"}, {S_EOF, "ended"},
                 {S_CONNECTED, "connected"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (d->state_ & names[i].bit)
            return names[i].name;
    return "new";
}

void channels_dump(struct asyncore_map *map, void (*line)(void *arg, const char *text), void *arg)
{
    char text[256];
    for (link_t *link = map->all.next; link != &map->all; link = link->next) {
        struct asyncore_dispatcher *d = owner_of(link, struct asyncore_dispatcher, all_);
        struct watch *w = d->fd >= 0 ? watch_at(map, d->fd) : NULL;
        snprintf(text, sizeof text, "channel %s fd %d: %s, wanted 0x%x registered 0x%x%s%s, queued %zu, error %d",
                 d->class_->name, d->fd, status(d), w ? w->wanted : 0, w ? w->registered : 0,
                 d->state_ & S_BACKGROUND ? ", background" : "", d->state_ & S_PAUSED ? ", paused" : "",
                 d->state_ & S_BUFFERED ? with_send(d)->queued_ : 0, d->error_);
        line(arg, text);
    }
}

/* -- Logging, and the rest of the base class -- */

static void default_log(struct asyncore_dispatcher *d, const char *message)
{
    if (d->map->log != NULL)
        d->map->log(d->map->log_arg, "log", message);
}

static void default_log_info(struct asyncore_dispatcher *d, const char *message, const char *type)
{
    if (d->map->log != NULL)
        d->map->log(d->map->log_arg, type, message);
}

void asyncore_log(struct asyncore_dispatcher *d, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    call(d, log, text);
}

void asyncore_log_info(struct asyncore_dispatcher *d, const char *type, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    call(d, log_info, text, type);
}

static int default_nothing(struct asyncore_dispatcher *d)
{
    (void)d;
    return 0;
}

static int default_expt(struct asyncore_dispatcher *d)
{
    asyncore_log_info(d, "warning", "%s: unhandled exceptional event", d->class_->name);
    return asyncore_want(d, d->want_ & ~(unsigned)ASYNCORE_EXPT);
}

static int default_read(struct asyncore_dispatcher *d)
{
    asyncore_log_info(d, "warning", "%s: unhandled read event", d->class_->name);
    return asyncore_want(d, d->want_ & ~(unsigned)ASYNCORE_READ);
}

static int default_write(struct asyncore_dispatcher *d)
{
    asyncore_log_info(d, "warning", "%s: unhandled write event", d->class_->name);
    return asyncore_want(d, d->want_ & ~(unsigned)ASYNCORE_WRITE);
}

static int default_error(struct asyncore_dispatcher *d, int error)
{
    struct asyncore_map *map = d->map;
    asyncore_log_info(d, "error", "%s: closing the channel: %s", d->class_->name, asyncore_strerror(error));
    if (!still_open(map, d))
        return 0; /* by the log function */
    int result = call(d, handle_close);
    if (result < 0 && result != -EAGAIN && still_open(map, d))
        asyncore_close(d);
    return 0;
}

static int default_readable(struct asyncore_dispatcher *d)
{
    return (d->want_ & ASYNCORE_READ) && !(d->state_ & (S_EOF | S_BROKEN | S_PAUSED));
}

static int default_writable(struct asyncore_dispatcher *d)
{
    if (d->state_ & S_BUFFERED)
        return with_send(d)->head_ != NULL;
    return (d->state_ & S_CONNECTING) || (d->want_ & ASYNCORE_WRITE);
}

static int default_socket(struct asyncore_dispatcher *d, int fd)
{
    (void)d;
    (void)fd;
    return 0;
}

static void default_destroy(struct asyncore_dispatcher *d)
{
    (void)d;
}

void asyncore_destroy_free(struct asyncore_dispatcher *d)
{
    free(d);
}

const struct asyncore_class dispatcher_defaults = {
    .name = "dispatcher",
    .handle_connect = default_nothing,
    .handle_expt = default_expt,
    .handle_read = default_read,
    .handle_write = default_write,
    .handle_accept = default_accept,
    .handle_accepted = default_accepted,
    .handle_close = asyncore_close,
    .handle_error = default_error,
    .readable = default_readable,
    .writable = default_writable,
    .handle_event = default_event,
    .handle_socket = default_socket,
    .recv = default_recv,
    .send = default_send,
    .log = default_log,
    .log_info = default_log_info,
    .destroy = default_destroy,
};

const struct class_root dispatcher_root = {&dispatcher_defaults, sizeof dispatcher_defaults, 0, NULL};
