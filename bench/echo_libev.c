/* echo_libev: libev has watchers and no buffers, so this is the bare loop with libev in the place of epoll. */
#include "bench.h"

#include <ev.h>
#include <stdlib.h>
#include <unistd.h>

static void on_readable(struct ev_loop *loop, ev_io *client, int events)
{
    (void)events;
    if (echo_once(client->fd))
        return;
    ev_io_stop(loop, client);
    close(client->fd);
    free(client);
}

static void on_client(struct ev_loop *loop, ev_io *listener, int events)
{
    int fd;

    (void)events;
    while ((fd = accept_client(listener->fd)) >= 0) {
        ev_io *client = malloc(sizeof *client);
        if (!client)
            die("malloc");
        ev_io_init(client, on_readable, fd, EV_READ);
        ev_io_start(loop, client);
    }
}

int main(void)
{
    struct ev_loop *loop = ev_default_loop(0);
    ev_io listener;

    if (!loop)
        die("ev_default_loop");
    ev_io_init(&listener, on_client, listen_on_loopback(), EV_READ);
    ev_io_start(loop, &listener);
    return !ev_run(loop, 0);
}
