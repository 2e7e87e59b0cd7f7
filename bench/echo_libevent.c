/* echo_libevent: a bufferevent for every client, which is libevent's counterpart of dispatcher_with_send: output that
 * the client does not take yet is queued. What was read moves to the output by reference. */
#include "bench.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>

static void on_read(struct bufferevent *client, void *arg)
{
    (void)arg;
    bufferevent_write_buffer(client, bufferevent_get_input(client));
}

static void on_event(struct bufferevent *client, short events, void *arg)
{
    (void)arg;
    if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        bufferevent_free(client);
}

static void on_client(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length,
                      void *base)
{
    struct bufferevent *client = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);

    (void)listener, (void)address, (void)length;
    if (!client)
        die("bufferevent_socket_new");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    bufferevent_setcb(client, on_read, NULL, on_event, NULL);
    bufferevent_enable(client, EV_READ | EV_WRITE);
}

static void on_accept_error(struct evconnlistener *listener, void *base)
{
    (void)listener, (void)base;
    die("accept");
}

int main(void)
{
    struct event_base *base = event_base_new();
    struct evconnlistener *listener;

    signal(SIGPIPE, SIG_IGN); /* it writes with writev() */
    if (!base)
        die("event_base_new");
    listener = evconnlistener_new(base, on_client, base, LEV_OPT_CLOSE_ON_FREE, 0, listen_on_loopback());
    if (!listener)
        die("evconnlistener_new");
    evconnlistener_set_error_cb(listener, on_accept_error);
    return event_base_dispatch(base) < 0;
}
