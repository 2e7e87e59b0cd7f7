/* splice.c: bytes from a socket into a pipe of the kernel's, and from there into another socket, without passing
 * through the program (splice(2)).
 *
 * A PIPE is the program's: two descriptors that only splicing and pipe_read touch, so that the count of what is in it
 * is right. It is in no map: it is never waited for. One of size 0 is not open.
 *
 * WHAT WAITS. splice(2) has a flag for not waiting for the pipe, and none for the socket: that has to be non-blocking.
 * Those that the library made are (their family is known); one that was handed in is looked at before its first
 * splice, which finds out its family, its type and its flags.
 *
 * WHAT EAGAIN MEANS. The kernel says it of a pipe without a free slot, and looks at the socket only after that; of a
 * socket without bytes; and of one whose next byte is urgent. A slot holds bytes of one segment, however few they are:
 * the count of bytes tells nothing of free slots. So it is believed of the socket only while the pipe is empty.
 *
 * WHAT 0 MEANS. The end of the stream; or that the end has come, and the next byte is urgent: all that the kernel knows is
 * that nothing could be spliced, and that nothing more will come. A look with recv tells them apart.
 *
 * ERRORS are the socket's, and recorded as recv's and send's are (sock.c), but those that say that this kernel does not
 * splice this socket: recv and send serve it as before. */
#include "channel.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define WISH_MAX (1u << 30) /* the kernel counts in int, and rounds up to a power of two */

_Static_assert(sizeof(struct asyncore_pipe) == 32, "part of the ABI");

/* -- Pipes -- */

int asyncore_pipe_open(struct asyncore_map *map, struct asyncore_pipe *pipe, size_t size)
{
    int ends[2];
    int result = map_get(&map);
    if (result < 0)
        return result;
    if (pipe->size != 0)
        return -EEXIST;
    result = map->os->pipe(ends, size < WISH_MAX ? size : WISH_MAX, map->os);
    if (result < 0)
        return result;
    *pipe = (struct asyncore_pipe){.read_ = ends[0], .write_ = ends[1], .size = (uint32_t)result};
    return 0;
}

void asyncore_pipe_close(struct asyncore_map *map, struct asyncore_pipe *pipe)
{
    if (pipe->size == 0 || map_get(&map) < 0)
        return;
    map->os->close(pipe->read_, map->os);
    map->os->close(pipe->write_, map->os);
    memset(pipe, 0, sizeof *pipe);
    channels_wake(map);
}

ssize_t asyncore_pipe_read(struct asyncore_map *map, struct asyncore_pipe *pipe, void *data, size_t size)
{
    int result = map_get(&map);
    if (result < 0 || pipe->size == 0)
        return result < 0 ? result : -EBADF;
    if (size > pipe->filled)
        size = pipe->filled;
    if (size == 0)
        return 0;
    ssize_t n = map->os->read(pipe->read_, data, size, map->os);
    if (n > 0)
        pipe->filled -= (uint32_t)n;
    return n == -EINTR ? -EAGAIN : n;
}

/* -- Splicing -- */

/* A socket that was handed in. What cannot be found out of it, or changed, is left to recv and send. */
static RARE int look(struct asyncore_dispatcher *d)
{
    struct os *os = d->map->os;
    int family = 0;
    socklen_t length = sizeof family;
    if (map_forked(d->map) < 0)
        return -ECHILD; /* it is the parent's too */
    if (datagrams(d) || d->type_ != SOCK_STREAM)
        return -ENOTSUP;
    if (os->getsockopt(d->fd, SOL_SOCKET, SO_DOMAIN, &family, &length, os) < 0 || socket_unblock(d) < 0)
        return -ENOTSUP;
    d->family_ = (uint8_t)family;
    return 0;
}

/* Plain streams only: nobody's own recv or send is passed by, and no bytes overtake those in a queue. */
static int spliceable(struct asyncore_dispatcher *d)
{
    if (d->state_ & (S_BUFFERED | S_NO_SOCKET) || d->class_->recv != default_recv || d->class_->send != default_send)
        return -ENOTSUP;
    if (d->family_ == 0 && d->state_ & S_CONNECTED)
        return look(d);
    return d->type_ == SOCK_STREAM ? 0 : -ENOTSUP;
}

/* The kernel, of this socket or altogether: the channel is none the worse for it. */
static bool refused(ssize_t error)
{
    return error == -EINVAL || error == -ENOSYS;
}

/* Nothing could be spliced, and the stream's end has come. -EAGAIN: bytes that cannot be spliced are before it. */
static RARE ssize_t end_or_urgent(struct asyncore_dispatcher *d)
{
    struct os *os = d->map->os;
    char byte;
    ssize_t n = os->recv(d->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, os);
    return n > 0 ? -EAGAIN : n;
}

static ssize_t splice_in(struct asyncore_dispatcher *d, struct asyncore_pipe *pipe, size_t size)
{
    struct os *os = d->map->os;
    if (size == 0 || !(d->state_ & S_CONNECTED) || d->state_ & (S_EOF | S_BROKEN))
        return recv_refused(d, size);
    if (size > UINT32_MAX - pipe->filled)
        size = UINT32_MAX - pipe->filled; /* slots may hold more than a page */
    ssize_t n = os->splice(d->fd, pipe->write_, size, os);
    if (n > 0) {
        pipe->filled += (uint32_t)n;
        if (d->state_ & S_IDLE)
            channel_active(d);
        return n;
    }
    if (n == 0)
        n = end_or_urgent(d);
    if (n == -EAGAIN || exhausted(n)) /* without memory for it the kernel could not splice: recv may do */
        return pipe->filled > 0 ? -ENOBUFS : -EAGAIN;
    return refused(n) ? n : recv_ended(d, n);
}

static ssize_t splice_out(struct asyncore_dispatcher *d, struct asyncore_pipe *pipe, size_t size)
{
    struct os *os = d->map->os;
    if (d->state_ & (S_BROKEN | S_SEND_FAILED))
        return d->error_;
    if (!(d->state_ & S_CONNECTED))
        return -ENOTCONN;
    if (size > pipe->filled)
        size = pipe->filled;
    if (size == 0)
        return 0;
    ssize_t n = os->splice(pipe->read_, d->fd, size, os);
    if (n < 0)
        return n == -EAGAIN || exhausted(n) || refused(n) ? n : send_failed(d, n);
    pipe->filled -= (uint32_t)n;
    if (d->state_ & S_IDLE)
        channel_active(d);
    return n;
}

ssize_t asyncore_splice(struct asyncore_dispatcher *d, struct asyncore_pipe *pipe, size_t size, unsigned direction)
{
    if (direction != ASYNCORE_READ && direction != ASYNCORE_WRITE)
        return -EINVAL;
    if (d->fd < 0 || pipe->size == 0)
        return -EBADF;
    int result = spliceable(d);
    if (result < 0)
        return result;
    return direction == ASYNCORE_READ ? splice_in(d, pipe, size) : splice_out(d, pipe, size);
}
