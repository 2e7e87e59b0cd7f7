/* file.c: file_dispatcher: a channel of a descriptor that is no socket: read(2) and write(2) for recv and send. The
 * descriptor's flags are put back when it is closed: O_NONBLOCK belongs to the open file, and on a terminal that is
 * the user's shell's too. */
#include "channel.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

_Static_assert(sizeof(struct asyncore_file_dispatcher) == 144, "part of the ABI");

static ssize_t file_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    struct os *os = d->map->os;
    ssize_t n = os->read(d->fd, data, size, os);
    return n == -EINTR ? -EAGAIN : n;
}

static ssize_t file_send(struct asyncore_dispatcher *d, const void *data, size_t size)
{
    struct os *os = d->map->os;
    ssize_t n = os->write(d->fd, data, size, os);
    return n == -EINTR ? -EAGAIN : n;
}

static void file_release(struct asyncore_dispatcher *d, bool closing)
{
    struct asyncore_file_dispatcher *f = (struct asyncore_file_dispatcher *)d;
    (void)closing;
    if (d->fd >= 0 && f->flags_ >= 0 && !(f->flags_ & O_NONBLOCK))
        d->map->os->set_flags(d->fd, f->flags_, d->map->os);
    f->flags_ = -1;
}

static const struct asyncore_class file_class = {
    .name = "file_dispatcher",
    .recv = file_recv,
    .send = file_send,
};

static const struct class_root file_root = {&file_class, sizeof file_class, S_NO_SOCKET, file_release};

int asyncore_file_dispatcher_init_(struct asyncore_file_dispatcher *f, const struct asyncore_class *cls,
                                   struct asyncore_map *map, size_t size, size_t class_size, unsigned abi)
{
    if (size != sizeof *f || class_size != sizeof *cls || abi != ASYNCORE_ABI)
        return -EINVAL;
    int result = channel_init(&f->base, cls, &file_root, map);
    if (result == 0) {
        memset((char *)f + sizeof f->base, 0, sizeof *f - sizeof f->base);
        f->flags_ = -1;
    }
    return result;
}

int asyncore_set_file(struct asyncore_file_dispatcher *f, int fd)
{
    struct asyncore_dispatcher *d = &f->base;
    if (d->map == NULL)
        return -EBADF;
    struct os *os = d->map->os;
    int flags = os->get_flags(fd, os);
    int result = channel_take(d, fd);
    if (result < 0)
        return result;
    f->flags_ = flags;
    if (flags < 0)
        result = flags; /* it may be a blocking one, and would stay so */
    else if (!(flags & O_NONBLOCK))
        result = os->set_flags(fd, flags | O_NONBLOCK, os);
    if (result < 0)
        asyncore_close(d);
    return result;
}
