/* echo_libuv: libuv's streams, used as cheaply as they allow: one buffer for all reads, uv_try_write() at once, and an
 * allocated request only for what the client did not take. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct rest {
    uv_write_t request;
    char data[];
};

static void check(int status, const char *what)
{
    if (status >= 0)
        return;
    errno = -status; /* libuv's errors are negative errno values on Unix */
    die(what);
}

static void lend_buffer(uv_handle_t *client, size_t suggested, uv_buf_t *buffer)
{
    static char memory[65536];

    (void)client, (void)suggested;
    *buffer = uv_buf_init(memory, sizeof memory);
}

static void on_closed(uv_handle_t *client)
{
    free(client);
}

static void on_written(uv_write_t *request, int status)
{
    (void)status; /* a lost connection is told to on_read, too */
    free(request);
}

static void write_rest(uv_stream_t *client, const char *data, size_t size)
{
    struct rest *rest = malloc(sizeof *rest + size);
    uv_buf_t buffer;

    if (!rest)
        die("malloc");
    memcpy(rest->data, data, size);
    buffer = uv_buf_init(rest->data, (unsigned)size);
    check(uv_write(&rest->request, client, &buffer, 1, on_written), "uv_write");
}

static void on_read(uv_stream_t *client, ssize_t size, const uv_buf_t *buffer)
{
    uv_buf_t data = *buffer;
    int taken;

    if (size < 0) {
        uv_close((uv_handle_t *)client, on_closed);
        return;
    }
    if (size == 0)
        return;
    data.len = (size_t)size;
    taken = uv_try_write(client, &data, 1);
    if (taken < 0)
        taken = 0; /* EAGAIN; any other error will come back from the write below */
    if (taken < size)
        write_rest(client, data.base + taken, (size_t)(size - taken));
}

static void on_client(uv_stream_t *listener, int status)
{
    uv_tcp_t *client = malloc(sizeof *client);

    check(status, "listening");
    if (!client)
        die("malloc");
    check(uv_tcp_init(listener->loop, client), "uv_tcp_init");
    check(uv_accept(listener, (uv_stream_t *)client), "uv_accept");
    check(uv_tcp_nodelay(client, 1), "uv_tcp_nodelay");
    check(uv_read_start((uv_stream_t *)client, lend_buffer, on_read), "uv_read_start");
}

int main(void)
{
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;

    if (!loop)
        die("uv_default_loop");
    check(uv_tcp_init(loop, &listener), "uv_tcp_init");
    check(uv_tcp_open(&listener, listen_on_loopback()), "uv_tcp_open");
    check(uv_listen((uv_stream_t *)&listener, SOMAXCONN, on_client), "uv_listen");
    return uv_run(loop, UV_RUN_DEFAULT);
}
