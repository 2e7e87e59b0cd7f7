/* signal.c: signals as channels: a descriptor that is readable when the signal is pending (signalfd(2)). The signal
 * is blocked while the channel lives. */
#include "channel.h"
#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>

_Static_assert(sizeof(struct asyncore_signal) == 160, "part of the ABI");

/* Standard signals do not queue: one read is all there is, and what came meanwhile is readable again. */
static int signal_read(struct asyncore_dispatcher *d)
{
    struct asyncore_signal *signal = (struct asyncore_signal *)d;
    struct signalfd_siginfo info;
    ssize_t n = asyncore_recv(d, &info, sizeof info);
    if (n == (ssize_t)sizeof info)
        signal->fn_(signal, signal->number_, signal->arg_);
    return n < 0 ? (int)n : 0;
}

static ssize_t signal_recv(struct asyncore_dispatcher *d, void *data, size_t size)
{
    struct os *os = d->map->os;
    ssize_t n = os->read(d->fd, data, size, os);
    return n == -EINTR ? -EAGAIN : n;
}

static void signal_release(struct asyncore_dispatcher *d, bool closing)
{
    struct asyncore_signal *signal = (struct asyncore_signal *)d;
    (void)closing;
    if (d->fd < 0)
        return;
    channel_detach(d, true);
    d->map->os->signal_close(d->fd, signal->number_, signal->was_blocked_, d->map->os);
    d->fd = -1;
}

static const struct asyncore_class signal_class = {
    .name = "signal",
    .handle_read = signal_read,
    .recv = signal_recv,
};

static const struct class_root signal_root = {&signal_class, sizeof signal_class, S_NO_SOCKET, signal_release};

int asyncore_signal_init_(struct asyncore_signal *signal, struct asyncore_map *map, int number,
                          void (*fn)(struct asyncore_signal *signal, int number, void *arg), void *arg, size_t size,
                          unsigned abi)
{
    struct asyncore_dispatcher *d = &signal->base;
    if (size != sizeof *signal || abi != ASYNCORE_ABI || fn == NULL)
        return -EINVAL;
    int result = channel_init(d, NULL, &signal_root, map);
    if (result < 0)
        return result;
    memset((char *)signal + sizeof *d, 0, sizeof *signal - sizeof *d);
    signal->fn_ = fn;
    signal->arg_ = arg;
    signal->number_ = number;
    int fd = d->map->os->signal_open(number, &signal->was_blocked_, d->map->os);
    if (fd < 0)
        return fd;
    d->state_ |= S_CONNECTED;
    result = channel_attach(d, fd);
    if (result < 0)
        d->map->os->signal_close(fd, number, signal->was_blocked_, d->map->os);
    return result;
}
