/* echo_server: sends back what it receives.
 *
 * Two classes. The server is a listening dispatcher: for every client that comes, the loop calls handle_accepted. An
 * echo is one client, a dispatcher_with_send: what it is told to send and the client does not take yet is queued, and
 * while too much is queued it does not read. So neither class has anything to remember, and a client that does not
 * read its echo costs the server a bounded amount of memory. At the end of a client's stream the parent's handle_close
 * sends what is still queued, and closes. */
#include <errno.h>
#include <stdlib.h>

#include <asyncore.h>

#include "common.h"

struct echo {
    struct asyncore_dispatcher_with_send base;
};

static int echo_read(struct asyncore_dispatcher *d)
{
    const void *data;
    ssize_t n = asyncore_recv_view(d, &data); /* > 0 bytes, 0 end of stream, -EAGAIN, -errno */

    return n > 0 ? (int)asyncore_send(d, data, (size_t)n) : (int)n; /* takes all of it: 0, 1 or -errno */
}

static const struct asyncore_class echo_class = {
    .name = "echo",
    .handle_read = echo_read,
    .destroy = asyncore_destroy_free,
};

/* fd is ours from here on. A client that cannot be served is no failure of the server, so it is told to the log and not
 * to the loop; without memory (-ENOMEM) the loop gives a listener a rest. */
static int server_accepted(struct asyncore_dispatcher *server, int fd, const struct sockaddr *address,
                           socklen_t length)
{
    struct echo *echo = malloc(sizeof *echo);
    int error = echo ? asyncore_dispatcher_with_send_init(&echo->base, &echo_class, server->map) : -ENOMEM;

    (void)address, (void)length;
    if (error) {
        free(echo);
        asyncore_close_fd(server->map, fd);
        return error;
    }
    error = asyncore_set_socket(&echo->base.base, fd);
    if (error)
        asyncore_log_info(server, "error", "cannot serve a client: %s", asyncore_strerror(error));
    return 0;
}

static const struct asyncore_class server_class = {
    .name = "echo_server",
    .handle_accepted = server_accepted,
};

/* Starts the server in a map. It closes with the map, or by asyncore_fini(server). */
static int echo_server(struct asyncore_map *map, struct asyncore_dispatcher *server, const char *address,
                       const char *port)
{
    int error = asyncore_dispatcher_init(server, &server_class, map);

    if (!error)
        error = asyncore_create_socket(server, AF_UNSPEC, SOCK_STREAM);
    if (!error)
        error = asyncore_set_reuse_addr(server);
    if (!error)
        error = asyncore_bind(server, address, port);
    if (!error)
        error = asyncore_listen(server, SOMAXCONN);
    return error;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {EXAMPLE_HELP, EXAMPLE_ADDRESS, EXAMPLE_PORT, {0}};
    static const char help[] = "[-l ADDRESS] [-p PORT]\n"
                               "Sends back every byte that a client sends.\n"
                               EXAMPLE_SERVER_HELP("8007")
                               EXAMPLE_HELP_END;
    struct example e = {
        .name = "echo_server", .help = help, .options = options, .address = "127.0.0.1", .port = "8007"};
    struct asyncore_dispatcher server;
    struct asyncore_map *map;

    while (example_option(&e, argc, argv) != -1)
        continue;
    map = example_map(&e);
    return map ? example_serve(&e, map, &server, echo_server(map, &server, e.address, e.port)) : 1;
}
