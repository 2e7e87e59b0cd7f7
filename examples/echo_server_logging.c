/* echo_server_logging: the echo server once more, with everything done by hand and told on stderr.
 *
 * Here an echo is a plain dispatcher with a buffer of its own. Two predicates say what it wants: it is readable while
 * there is room in the buffer, and writable while there is something in it. The loop asks in every turn, so nothing has
 * to be switched on and off, and a client that does not read stops being read when its buffer is full. When the client
 * has ended its stream, handle_close leaves the channel open until the buffer is sent.
 *
 * The server first asks verify_request() whether it wants a client, then gives it to process_request(). */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <asyncore.h>

#include "common.h"

enum { BACKLOG = 128, SIZE = 8192, DENIED_MAX = 64 };

struct echo {
    struct asyncore_dispatcher base;
    bool ended;  /* the client sends no more */
    size_t used; /* bytes in the buffer, to be sent back */
    char buffer[SIZE];
    char client[128]; /* its address, for the log */
};

struct server {
    struct asyncore_dispatcher base;
    size_t denied_count;
    struct in6_addr denied[DENIED_MAX];
};

static int echo_readable(struct asyncore_dispatcher *d)
{
    const struct echo *echo = (const struct echo *)d;

    return !echo->ended && echo->used < SIZE;
}

static int echo_writable(struct asyncore_dispatcher *d)
{
    return ((const struct echo *)d)->used > 0;
}

static int echo_read(struct asyncore_dispatcher *d)
{
    struct echo *echo = (struct echo *)d;
    ssize_t n = asyncore_recv(d, echo->buffer + echo->used, SIZE - echo->used);

    if (n > 0) {
        echo->used += (size_t)n;
        asyncore_log_info(d, "info", "handle_read: %s: %zd bytes", echo->client, n);
    }
    return n < 0 ? (int)n : 0;
}

static int echo_write(struct asyncore_dispatcher *d)
{
    struct echo *echo = (struct echo *)d;
    ssize_t n = asyncore_send(d, echo->buffer, echo->used);

    if (n < 0)
        return (int)n;
    echo->used -= (size_t)n;
    memmove(echo->buffer, echo->buffer + n, echo->used);
    asyncore_log_info(d, "info", "handle_write: %s: %zd bytes, %zu left", echo->client, n, echo->used);
    if (!echo->ended || echo->used > 0)
        return 0;
    asyncore_log_info(d, "info", "conn_closed: %s", echo->client);
    return asyncore_close(d);
}

static int echo_close(struct asyncore_dispatcher *d)
{
    struct echo *echo = (struct echo *)d;
    int error = asyncore_error(d);

    asyncore_log_info(d, "info", "handle_close: %s: %s", echo->client,
                      error ? asyncore_strerror(error) : "end of stream");
    echo->ended = true;
    if (!error && echo->used > 0)
        return 0; /* echo_write closes after the last byte */
    asyncore_log_info(d, "info", "conn_closed: %s", echo->client);
    return asyncore_close(d);
}

static const struct asyncore_class echo_class = {
    .name = "echo",
    .readable = echo_readable,
    .writable = echo_writable,
    .handle_read = echo_read,
    .handle_write = echo_write,
    .handle_close = echo_close,
    .destroy = asyncore_destroy_free,
};

/* An IPv4 address as IPv6 sees it (::ffff:192.0.2.1), so that either kind of listener knows a denied address. */
static bool to_in6(const struct sockaddr *address, struct in6_addr *in6)
{
    static const struct in6_addr mapped = {.s6_addr = {[10] = 0xff, [11] = 0xff}};

    if (address->sa_family == AF_INET6) {
        *in6 = ((const struct sockaddr_in6 *)address)->sin6_addr;
    } else if (address->sa_family == AF_INET) {
        *in6 = mapped;
        memcpy(in6->s6_addr + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
    } else {
        return false;
    }
    return true;
}

static bool deny(struct server *server, const char *text)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;

    if (!*text || asyncore_parse_address(text, "0", &address, &length) < 0)
        return false;
    return to_in6((struct sockaddr *)&address, &server->denied[server->denied_count++]);
}

static bool verify_request(const struct server *server, const struct sockaddr *address)
{
    struct in6_addr client;

    if (to_in6(address, &client))
        for (size_t i = 0; i < server->denied_count; i++)
            if (memcmp(&client, &server->denied[i], sizeof client) == 0)
                return false;
    return true;
}

static int process_request(struct server *server, int fd, const char *client)
{
    struct echo *echo = calloc(1, sizeof *echo);
    int error = echo ? asyncore_dispatcher_init(&echo->base, &echo_class, server->base.map) : -ENOMEM;

    if (error) {
        free(echo);
        asyncore_close_fd(server->base.map, fd);
        return error;
    }
    strcpy(echo->client, client);
    error = asyncore_set_socket(&echo->base, fd);
    if (error)
        asyncore_log_info(&server->base, "error", "cannot serve %s: %s", client, asyncore_strerror(error));
    return 0;
}

static int server_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct server *server = (struct server *)d;
    char client[sizeof((struct echo *)NULL)->client];

    asyncore_address_text(address, length, client, sizeof client);
    if (!verify_request(server, address)) {
        asyncore_log_info(d, "info", "denied: %s", client);
        asyncore_close_fd(d->map, fd);
        return 0;
    }
    asyncore_log_info(d, "info", "conn_made: %s", client);
    return process_request(server, fd, client);
}

static const struct asyncore_class server_class = {
    .name = "echo_server_logging",
    .handle_accepted = server_accepted,
};

static int echo_server_logging(struct asyncore_map *map, struct server *server, const char *address, const char *port)
{
    struct asyncore_dispatcher *d = &server->base;
    int error = asyncore_dispatcher_init(d, &server_class, map);

    if (!error)
        error = asyncore_create_socket(d, AF_UNSPEC, SOCK_STREAM);
    if (!error)
        error = asyncore_set_reuse_addr(d);
    if (!error)
        error = asyncore_bind(d, address, port);
    if (error)
        return error;
    asyncore_log_info(d, "info", "bind: address=%s port=%s", address, port);
    error = asyncore_listen(d, BACKLOG);
    if (!error)
        asyncore_log_info(d, "info", "listen: backlog=%d", BACKLOG);
    return error;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        EXAMPLE_HELP, EXAMPLE_ADDRESS, EXAMPLE_PORT, {"deny", required_argument, NULL, 'd'}, {0}};
    static const char help[] = "[-l ADDRESS] [-p PORT] [-d ADDRESS]...\n"
                               "Sends back every byte that a client sends, and tells every event on stderr.\n"
                               EXAMPLE_SERVER_HELP("8007")
                               "  -d, --deny ADDRESS     close connections from this address (may be given again)\n"
                               EXAMPLE_HELP_END;
    struct example e = {
        .name = "echo_server_logging", .help = help, .options = options, .address = "127.0.0.1", .port = "8007"};
    struct server server = {.denied_count = 0};
    struct asyncore_map *map;

    while (example_option(&e, argc, argv) == 'd') {
        if (server.denied_count == DENIED_MAX)
            example_usage(&e, "too many addresses to deny", optarg);
        if (!deny(&server, optarg))
            example_usage(&e, "not an address to deny", optarg);
    }
    map = example_map(&e);
    return map ? example_serve(&e, map, &server.base, echo_server_logging(map, &server, e.address, e.port)) : 1;
}
