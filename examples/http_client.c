/* http_client: prints what an http:// URL answers.
 *
 * The connection is an async_chat. Head, chunk sizes and trailers are lines: the terminator is the end of a line. A
 * body of known length and a chunk are a length, and a body that lasts until the end of the stream has no terminator.
 *
 * Standard output is a channel too, a file_dispatcher: it may be a pipe whose reader is slow. While bytes wait for it
 * the connection does not read, so a body of any size takes no more memory than one turn can receive. When both are
 * closed the loop has no channel left, and ends by itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <asynchat.h>

#include "common.h"
#include "common_http.h"

enum { HEAD_LIMIT = 256 * 1024 };

enum state { STATUS, HEADER, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, UNTIL_END, DONE };

struct client {
    struct asynchat chat;
    struct asyncore_file_dispatcher out;
    const struct example *e;
    const char *text; /* of the URL */
    struct http_url url;
    enum state state;
    bool include, chunked, has_length;
    int result; /* main's */
    size_t head, length, used, room;
    char *waiting;   /* `used` bytes that stdout has not taken yet */
    char status[64]; /* "404 Not Found" */
    struct http_line line;
};

/* Ends the connection. What waits for stdout is still written. */
static int finish(struct client *c, const char *failure)
{
    if (c->state != DONE && failure) {
        example_error(c->e, c->text, failure);
        c->result = 1;
    }
    c->state = DONE;
    if (c->used == 0)
        asyncore_close(&c->out.base);
    return asyncore_close(&c->chat.base.base);
}

static int body_complete(struct client *c)
{
    return finish(c, c->status[0] >= '4' ? c->status : NULL);
}

/* -- Standard output -- */

static int output_add(struct client *c, const void *data, size_t n)
{
    if (n > c->room - c->used) {
        size_t room = 2 * (c->used + n);
        char *grown = realloc(c->waiting, room);
        if (!grown)
            return -ENOMEM;
        c->waiting = grown;
        c->room = room;
    }
    memcpy(c->waiting + c->used, data, n);
    c->used += n;
    asyncore_want(&c->chat.base.base, 0);
    return asyncore_want(&c->out.base, ASYNCORE_WRITE);
}

static int output_write(struct asyncore_dispatcher *d)
{
    struct client *c = d->data;
    ssize_t n = asyncore_send(d, c->waiting, c->used);

    if (n < 0)
        return (int)n;
    c->used -= (size_t)n;
    memmove(c->waiting, c->waiting + n, c->used);
    if (c->used > 0)
        return 0;
    if (c->state == DONE)
        return asyncore_close(d);
    asyncore_want(&c->chat.base.base, ASYNCORE_READ);
    return asyncore_want(d, 0);
}

/* The reader has gone, which needs no words, or the disk is full. */
static int output_error(struct asyncore_dispatcher *d, int error)
{
    struct client *c = d->data;

    if (error != -EPIPE)
        example_error(c->e, "standard output", asyncore_strerror(error));
    c->result = 1;
    c->used = 0;
    return finish(c, NULL);
}

static int output_close(struct asyncore_dispatcher *d)
{
    return output_error(d, asyncore_error(d));
}

static const struct asyncore_class output_class = {
    .name = "stdout",
    .handle_write = output_write,
    .handle_error = output_error,
    .handle_close = output_close,
};

/* -- The answer: each line leads to another state, and the state has its terminator -- */

static int set_state(struct client *c, enum state state, size_t length)
{
    c->state = state;
    if (state == BODY || state == CHUNK)
        return asynchat_set_terminator_length(&c->chat, length);
    return asynchat_set_terminator(&c->chat, "\n", state == UNTIL_END ? 0 : 1);
}

static int take_status(struct client *c, const char *line)
{
    if (!http_parse_status(line, c->status, sizeof c->status))
        return finish(c, "the answer is not HTTP");
    c->chunked = c->has_length = false;
    return set_state(c, HEADER, 0);
}

static int take_header(struct client *c, char *line)
{
    const char *value = http_value(line);
    size_t length;

    if (!value)
        return finish(c, "the answer has a line that is no header");
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        if (c->chunked || strcasecmp(value, "chunked") != 0)
            return finish(c, "the answer has a transfer encoding other than chunked");
        c->chunked = true;
    } else if (strcasecmp(line, "Content-Length") == 0) {
        if (!example_number(value, SIZE_MAX, &length) || (c->has_length && length != c->length))
            return finish(c, "the answer has a bad Content-Length");
        c->has_length = true;
        c->length = length;
    }
    return 0;
}

static int end_of_head(struct client *c)
{
    if (c->status[0] == '1')
        return set_state(c, STATUS, 0); /* an interim answer: the real one follows */
    if (strncmp(c->status, "204", 3) == 0 || strncmp(c->status, "304", 3) == 0)
        return body_complete(c);
    if (c->chunked)
        return set_state(c, CHUNK_SIZE, 0);
    if (c->has_length)
        return c->length > 0 ? set_state(c, BODY, c->length) : body_complete(c);
    return set_state(c, UNTIL_END, 0);
}

static int take_chunk_size(struct client *c, const char *line)
{
    size_t size;

    if (!http_parse_chunk_size(line, &size))
        return finish(c, "the answer has a bad chunk size");
    return set_state(c, size > 0 ? CHUNK : TRAILER, size);
}

static int take_line(struct client *c, char *line)
{
    switch (c->state) {
    case STATUS: return take_status(c, line);
    case HEADER: return *line ? take_header(c, line) : end_of_head(c);
    case CHUNK_SIZE: return take_chunk_size(c, line);
    case CHUNK_END: return *line ? finish(c, "the answer has a chunk of another size") : set_state(c, CHUNK_SIZE, 0);
    default: return *line ? 0 : body_complete(c); /* TRAILER */
    }
}

/* -- The connection -- */

static int client_collect(struct asynchat *chat, const void *data, size_t n)
{
    struct client *c = (struct client *)chat;

    if (c->state == BODY || c->state == CHUNK || c->state == UNTIL_END)
        return output_add(c, data, n);
    if (!http_line_add(&c->line, data, n))
        return finish(c, c->state == STATUS ? "the answer is not HTTP" : "the answer has a line that is too long");
    return 0;
}

static int client_found(struct asynchat *chat)
{
    struct client *c = (struct client *)chat;
    bool in_head = c->state == STATUS || c->state == HEADER;
    char *line;
    int error = 0;

    if (c->state == BODY)
        return body_complete(c);
    if (c->state == CHUNK)
        return set_state(c, CHUNK_END, 0);
    c->head += in_head || c->state == TRAILER ? c->line.used + 1 : 0;
    line = http_line_end(&c->line);
    if (!line || c->head > HEAD_LIMIT)
        return finish(c, line ? "the answer's head is too long" : "the answer is not HTTP");
    if (in_head && c->include)
        error = output_add(c, line, strlen(line));
    if (in_head && c->include && !error)
        error = output_add(c, "\r\n", 2);
    return error ? error : take_line(c, line);
}

static int client_error(struct asyncore_dispatcher *d, int error)
{
    return finish((struct client *)d, asyncore_strerror(error));
}

/* The stream ended, which may be the end of the body, or the connection was lost. */
static int client_close(struct asyncore_dispatcher *d)
{
    struct client *c = (struct client *)d;

    if (asyncore_error(d))
        return client_error(d, asyncore_error(d));
    if (c->state == UNTIL_END)
        return body_complete(c);
    return finish(c, c->state == STATUS ? "the connection ended without an answer"
                                        : "the connection ended before the answer did");
}

static const struct asynchat_class client_class = {
    .base = {.name = "http_client", .handle_close = client_close, .handle_error = client_error},
    .collect_incoming_data = client_collect,
    .found_terminator = client_found,
};

/* Begins the request in a map, whose loop ends when the answer is printed. */
static int http_client(struct asyncore_map *map, struct client *c)
{
    int error = asyncore_file_dispatcher_init(&c->out, &output_class, map);

    c->out.base.data = c;
    if (!error)
        error = asyncore_set_file(&c->out, STDOUT_FILENO);
    if (!error)
        error = asyncore_want(&c->out.base, 0);
    if (!error)
        error = asynchat_init(&c->chat, &client_class, map);
    if (!error)
        error = asyncore_connect(&c->chat.base.base, c->url.host, c->url.port);
    if (error)
        return error;
    /* All of it goes out together when the connection stands. */
    error = asynchat_push_text(&c->chat, *c->url.target == '/' ? "GET " : "GET /");
    if (error >= 0)
        error = asynchat_push(&c->chat, c->url.target, strcspn(c->url.target, "#"));
    if (error >= 0)
        error = asynchat_push_text(&c->chat, " HTTP/1.1\r\nHost: ");
    if (error >= 0)
        error = asynchat_push_text(&c->chat, c->url.authority);
    if (error >= 0)
        error = asynchat_push_text(&c->chat, "\r\nUser-Agent: asyncore\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    if (error < 0)
        return error;
    return set_state(c, STATUS, 0);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {EXAMPLE_HELP, {"include", no_argument, NULL, 'i'}, {0}};
    static const char help[] = "[-i] URL\n"
                               "Prints what http://HOST[:PORT]/PATH answers. Fails on a status of 400 and more.\n"
                               "  -i, --include  the status line and the headers too\n"
                               "  -h, --help     show this\n";
    struct example e = {.name = "http_client", .help = help, .options = options, .operand = "URL"};
    struct client c = {.e = &e};
    struct asyncore_map *map;
    const char *wrong;
    int error;

    while (example_option(&e, argc, argv) == 'i')
        c.include = true;
    c.text = argv[optind];
    wrong = http_parse_url(&c.url, c.text);
    if (wrong)
        example_usage(&e, wrong, c.text);
    map = example_map(&e);
    if (!map)
        return 1;
    error = http_client(map, &c);
    if (!error)
        error = asyncore_loop(map, -1, 0);
    if (error) {
        example_error(&e, c.text, error < 0 ? asyncore_strerror(error) : "interrupted");
        c.result = 1;
    }
    example_end(map);
    free(c.waiting);
    return c.result;
}
