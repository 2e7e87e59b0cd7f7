/* hello_http: http://localhost:8008/kongxx answers "Hello kongxx!".
 *
 * Each client is an async_chat. Its terminator is the end of a line: collect_incoming_data gathers the line, and
 * found_terminator takes it as the request line, as a header, or as the empty line that ends the head. Then the
 * terminator is the length of the request's body, if it has one, and after that the end of a line again. So requests
 * that came together are answered one after the other.
 *
 * The last answer, to a request that wants no other or to what is no request, is followed by the end of our stream: a
 * producer stands behind it in the queue, and shuts the socket down when the queue has come to it. The connection is
 * closed only when the client has ended its own stream too, and what it sends until then is dropped: a close with
 * input still unread, as close_when_done might make it, becomes a reset, which can destroy the answer on its way.
 *
 * One timer bounds all that a client may be slow at: sending a request, taking the answer, ending. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <asynchat.h>

#include "common.h"
#include "common_http.h"

enum { HEAD_LIMIT = 32 * 1024, BODY_LIMIT = 1024 * 1024, NAME_LIMIT = 256 };

enum state { REQUEST, HEADER, BODY, LAST }; /* LAST: the last answer is queued, or sent */

struct client {
    struct asynchat chat;
    struct asynchat_producer end;
    struct asyncore_timer timer;
    uint64_t timeout; /* ms */
    enum state state;
    bool is_head, keep_alive, wants_close, expects, has_length;
    size_t head, body; /* bytes: the head so far, and Content-Length */
    char name[NAME_LIMIT + 1];
    struct http_line line;
};

struct server {
    struct asyncore_dispatcher base;
    size_t timeout; /* seconds */
};

/* -- Answers -- */

static void too_slow(struct asyncore_timer *timer, void *client)
{
    (void)timer;
    asyncore_close(&((struct client *)client)->chat.base.base);
}

static int restart_timer(struct client *c)
{
    return asyncore_call_later(c->chat.base.base.map, &c->timer, c->timeout, too_slow, c);
}

static int expect_request(struct client *c)
{
    c->state = REQUEST;
    c->is_head = c->keep_alive = c->wants_close = c->expects = c->has_length = false;
    c->head = c->body = 0;
    asynchat_set_terminator(&c->chat, "\n", 1);
    return restart_timer(c);
}

/* The producer's only call: it has no data, but a moment. */
static ssize_t answers_sent(struct asynchat_producer *end, const void **data)
{
    struct client *c = (struct client *)((char *)end - offsetof(struct client, end));
    int error = asyncore_shutdown(&c->chat.base.base, SHUT_WR);

    (void)data;
    return error ? error : restart_timer(c);
}

static int answer(struct client *c, const char *status, const char *header, const char *body)
{
    char head[256];
    int error;

    snprintf(head, sizeof head,
             "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %zu\r\nConnection: %s\r\n%s\r\n",
             status, strlen(body), c->keep_alive ? "keep-alive" : "close", header);
    error = asynchat_push_text(&c->chat, head);
    if (error >= 0 && !c->is_head)
        error = asynchat_push_text(&c->chat, body);
    if (error < 0)
        return error;
    if (c->keep_alive)
        return expect_request(c);
    c->state = LAST;
    c->end.more = answers_sent;
    asynchat_set_terminator(&c->chat, NULL, 0);
    return asynchat_push_with_producer(&c->chat, &c->end);
}

static int refuse(struct client *c, const char *status)
{
    char body[128];

    snprintf(body, sizeof body, "<html>\r\n<body>\r\n%s\r\n</body>\r\n</html>\r\n", status);
    c->keep_alive = false;
    return answer(c, status, strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "", body);
}

static int greet(struct client *c)
{
    char name[NAME_LIMIT * sizeof "&quot;"], body[sizeof name + 64];

    http_escape(name, c->name);
    snprintf(body, sizeof body, "<html>\r\n<body>\r\nHello %s!\r\n</body>\r\n</html>\r\n", name);
    return answer(c, "200 OK", "", body);
}

/* -- Requests: each function returns the status to refuse with, or NULL -- */

static const char *parse_request(struct client *c, char *line)
{
    struct http_request request;
    const char *refusal = http_parse_request(&request, line);

    if (refusal)
        return refusal;
    c->keep_alive = request.minor != '0';
    c->is_head = strcmp(request.method, "HEAD") == 0;
    if (!c->is_head && strcmp(request.method, "GET") != 0)
        return "405 Method Not Allowed";
    return http_decode_path(request.path, c->name, sizeof c->name);
}

static const char *parse_header(struct client *c, char *line)
{
    const char *value = http_value(line);
    size_t length;

    if (!value)
        return "400 Bad Request";
    if (strcasecmp(line, "Content-Length") == 0) {
        if (!example_number(value, SIZE_MAX, &length) || (c->has_length && length != c->body))
            return "400 Bad Request";
        c->has_length = true;
        c->body = length;
    } else if (strcasecmp(line, "Transfer-Encoding") == 0) {
        return "501 Not Implemented";
    } else if (strcasecmp(line, "Connection") == 0) {
        c->wants_close |= http_has_token(value, "close");
        c->keep_alive |= http_has_token(value, "keep-alive");
    } else if (strcasecmp(line, "Expect") == 0) {
        c->expects = true;
    }
    return c->body > BODY_LIMIT ? "413 Content Too Large" : NULL;
}

static int end_of_head(struct client *c)
{
    int error = 0;

    c->keep_alive = c->keep_alive && !c->wants_close;
    if (c->body == 0)
        return greet(c);
    if (c->expects)
        error = asynchat_push_text(&c->chat, "HTTP/1.1 100 Continue\r\n\r\n");
    c->state = BODY;
    return error < 0 ? error : asynchat_set_terminator_length(&c->chat, c->body);
}

/* -- The channels -- */

static int client_collect(struct asynchat *chat, const void *data, size_t n)
{
    struct client *c = (struct client *)chat;

    if (c->state != REQUEST && c->state != HEADER)
        return 0;
    if (!http_line_add(&c->line, data, n))
        return refuse(c, c->state == REQUEST ? "414 URI Too Long" : "431 Request Header Fields Too Large");
    return 0;
}

static int client_found(struct asynchat *chat)
{
    struct client *c = (struct client *)chat;
    const char *refusal = NULL;
    char *line;

    if (c->state == LAST)
        return 0; /* client_collect refused this line */
    if (c->state == BODY)
        return greet(c);
    c->head += c->line.used + 1;
    line = http_line_end(&c->line);
    if (!line)
        return refuse(c, "400 Bad Request");
    if (c->head > HEAD_LIMIT)
        return refuse(c, "431 Request Header Fields Too Large");
    if (!*line)
        return c->state == HEADER ? end_of_head(c) : 0; /* some clients send an empty line before a request */
    if (c->state == HEADER) {
        refusal = parse_header(c, line);
    } else {
        refusal = parse_request(c, line);
        c->state = HEADER;
    }
    return refusal ? refuse(c, refusal) : 0;
}

static void client_destroy(struct asyncore_dispatcher *d)
{
    struct client *c = (struct client *)d;

    asyncore_cancel(&c->timer);
    free(c);
}

static const struct asynchat_class client_class = {
    .base = {.name = "hello_http client", .destroy = client_destroy},
    .collect_incoming_data = client_collect,
    .found_terminator = client_found,
};

static int server_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct client *c = calloc(1, sizeof *c);
    int error = c ? asynchat_init(&c->chat, &client_class, d->map) : -ENOMEM;

    (void)address, (void)length;
    if (error) {
        free(c);
        asyncore_close_fd(d->map, fd);
        return error;
    }
    c->timeout = (uint64_t)((struct server *)d)->timeout * 1000;
    error = asyncore_set_socket(&c->chat.base.base, fd);
    if (!error)
        error = expect_request(c);
    if (error)
        asyncore_log_info(d, "error", "cannot serve a client: %s", asyncore_strerror(error));
    return 0;
}

static const struct asyncore_class server_class = {
    .name = "hello_http",
    .handle_accepted = server_accepted,
};

static int hello_http(struct asyncore_map *map, struct server *server, const char *address, const char *port)
{
    int error = asyncore_dispatcher_init(&server->base, &server_class, map);

    if (!error)
        error = asyncore_create_socket(&server->base, AF_UNSPEC, SOCK_STREAM);
    if (!error)
        error = asyncore_set_reuse_addr(&server->base);
    if (!error)
        error = asyncore_bind(&server->base, address, port);
    if (!error)
        error = asyncore_listen(&server->base, SOMAXCONN);
    return error;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        EXAMPLE_HELP, EXAMPLE_ADDRESS, EXAMPLE_PORT, {"timeout", required_argument, NULL, 't'}, {0}};
    static const char help[] = "[-l ADDRESS] [-p PORT] [-t SECONDS]\n"
                               "Answers http://ADDRESS:PORT/NAME with a page that greets NAME.\n"
                               EXAMPLE_SERVER_HELP("8008")
                               "  -t, --timeout SECONDS  close connections without a request for so long (default 30)\n"
                               EXAMPLE_HELP_END;
    struct example e = {.name = "hello_http", .help = help, .options = options, .address = "127.0.0.1", .port = "8008"};
    struct server server = {.timeout = 30};
    struct asyncore_map *map;

    while (example_option(&e, argc, argv) == 't')
        if (!example_number(optarg, 86400, &server.timeout) || server.timeout == 0)
            example_usage(&e, "not a number of seconds (1 to 86400)", optarg);
    map = example_map(&e);
    return map ? example_serve(&e, map, &server.base, hello_http(map, &server, e.address, e.port)) : 1;
}
