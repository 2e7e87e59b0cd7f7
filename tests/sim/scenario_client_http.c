/* scenario_client_http.c: examples/http_client.c, and a raw server whose answers have a length, are chunked or last
 * until the end; follow an interim answer, are garbage, break off or end in a reset. Standard output is a pipe with a
 * slow reader: a channel of the same map. What comes out of it is a prefix of the body, all of it if the program says
 * so, and the program says so when it should. */
int http_client_main(int argc, char **argv);
#include "program.h"
static int client_stdout;
#undef STDOUT_FILENO
#define STDOUT_FILENO client_stdout
#define example_error client_error_line
#define main          http_client_main
#include "../../examples/common.h"
#include "../../examples/common_http.h"
#include "../../examples/http_client.c"
#undef main
#include <stdarg.h>

enum {
    CLIENTS = 4,
    BODY_MOST = 150000,
    ROOM = BODY_MOST + 65536
};

enum kind {
    LENGTH,
    CHUNKED,
    UNTIL_CLOSE,
    INTERIM,
    NOT_FOUND,
    NO_CONTENT,
    GARBAGE,
    BREAKS_OFF,
    BREAKS_CHUNK,
    RESET,
    KINDS
};

struct answer {
    struct peer peer;
    size_t used;
    char text[ROOM];
    char asked[1024];
    struct fetch *fetch;
};

struct reader {
    struct asyncore_file_dispatcher file;
    struct fetch *fetch;
    struct asyncore_timer timer;
    size_t piece, received;
    unsigned pause; /* ms */
    bool ended;
};

struct fetch {
    struct client client;
    struct reader reader;
    struct run *run;
    enum kind kind;
    size_t body;
    uint64_t salt;
    char url[64], name[32];
    bool complained;
};

struct scene {
    struct peer listener;
    size_t count;
    struct fetch fetches[CLIENTS];
    struct answer answers[CLIENTS];
};

void client_error_line(const struct example *e, const char *what, const char *which)
{
    (void)what, (void)which;
    *(bool *)(uintptr_t)e->help = true;
}

/* -- The reader of standard output -- */

static void go_on(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    asyncore_want(arg, ASYNCORE_READ);
}

static int reader_read(struct asyncore_dispatcher *d)
{
    struct reader *reader = (struct reader *)d;
    const struct fetch *f = reader->fetch;
    char data[8192];
    ssize_t n = asyncore_recv(d, data, reader->piece);

    if (n <= 0)
        return (int)n;
    oracle_that(f->run, reader->received + (size_t)n <= f->body, "more", "%s printed more than the body", f->name);
    oracle_prefix(f->run, f->name, f->salt, reader->received, data, (size_t)n);
    reader->received += (size_t)n;
    if (reader->pause > 0 && asyncore_call_later(d->map, &reader->timer, reader->pause, go_on, d) == 0)
        asyncore_want(d, 0);
    return 0;
}

static int reader_close(struct asyncore_dispatcher *d)
{
    ((struct reader *)d)->ended = asyncore_error(d) == 0;
    asyncore_cancel(&((struct reader *)d)->timer);
    return asyncore_close(d);
}

static const struct asyncore_class reader_class = {
    .name = "reader", .handle_read = reader_read, .handle_close = reader_close};

/* -- The server -- */

static void add(struct answer *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct answer *a, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    a->used += (size_t)vsnprintf(a->text + a->used, ROOM - a->used, format, arguments);
    va_end(arguments);
}

static void add_stream(struct answer *a, size_t offset, size_t size)
{
    stream_fill(a->fetch->salt, offset, a->text + a->used, size);
    a->used += size;
}

static void add_chunks(struct run *run, struct answer *a, size_t body)
{
    for (size_t at = 0, n; at < body; at += n) {
        n = (size_t)random_scale(&run->random, 1, 40000);
        n = n > body - at ? body - at : n;
        if (ROOM - a->used < n + 100)
            n = body - at; /* small chunks took the room */
        add(a, random_chance(&run->random, 20) ? "%zX;x=y\r\n" : "%zx\r\n", n);
        add_stream(a, at, n);
        add(a, "\r\n");
    }
    add(a, "0\r\n%s\r\n", random_chance(&run->random, 20) ? "Trailer: x\r\n" : "");
}

static void compose(struct run *run, struct answer *a)
{
    struct random *r = &run->random;
    const struct fetch *f = a->fetch;
    enum kind kind = f->kind;
    size_t body_at;

    if (kind == GARBAGE) {
        add(a, "%s", random_chance(r, 50) ? "SSH-2.0-Other\r\n" : "HTTP/1.1 2x0 OK\r\n\r\n");
        return;
    }
    if (kind == INTERIM)
        add(a, "HTTP/1.1 100 Continue\r\nX: y\r\n\r\n");
    add(a, "HTTP/1.1 %s\r\nServer: x\r\n",
        kind == NOT_FOUND    ? "404 Not Found"
        : kind == NO_CONTENT ? "204 No"
                             : "200 OK");
    if (kind == CHUNKED || kind == BREAKS_CHUNK)
        add(a, "Transfer-Encoding: chunked\r\n");
    else if (kind != UNTIL_CLOSE && kind != NO_CONTENT)
        add(a, "Content-Length: %zu\r\n", f->body);
    add(a, "\r\n");
    body_at = a->used;
    if (kind == CHUNKED || kind == BREAKS_CHUNK)
        add_chunks(run, a, f->body);
    else
        add_stream(a, 0, f->body);
    if (kind == BREAKS_OFF || kind == BREAKS_CHUNK || kind == RESET)
        a->used = (size_t)random_in(r, random_chance(r, 50) ? body_at : 0, a->used - 1);
}

/* The path says whose answer it is. */
static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    struct answer *a = (struct answer *)peer;
    struct run *run = peer_run(peer);
    struct scene *state = run->state;
    unsigned which = CLIENTS;

    if (a->fetch != NULL || peer->received + size >= sizeof a->asked)
        return;
    memcpy(a->asked + peer->received, data, size);
    if (strstr(a->asked, "\r\n\r\n") == NULL)
        return;
    sscanf(a->asked, "GET /%u HTTP/1.1\r\n", &which);
    if (!oracle_that(run, which < CLIENTS, "prefix", "not a request: %.40s", a->asked))
        return;
    a->fetch = &state->fetches[which];
    compose(run, a);
    peer->plan.total = a->used;
    peer->plan.end = a->fetch->kind == RESET ? PEER_RESETS : random_chance(&run->random, 50) ? PEER_SHUTS : PEER_CLOSES;
}

static size_t output(struct peer *peer, unsigned char *data, size_t size)
{
    memcpy(data, ((struct answer *)peer)->text + peer->sent, size);
    return size;
}

static const struct peer_class answer_class = {.input = input, .output = output};

static struct peer *accepted(struct peer *listener)
{
    struct scene *state = listener->owner;
    struct run *run = peer_run(listener);
    struct answer *a;

    if (listener->accepts >= CLIENTS)
        return NULL;
    a = &state->answers[listener->accepts];
    a->peer.class_ = &answer_class;
    a->peer.plan.end = PEER_WAITS;
    if (random_chance(&run->random, 40))
        a->peer.plan.send_piece = (size_t)random_scale(&run->random, run_size(run, 20, 500), PEER_BUFFER);
    if (a->peer.plan.send_piece > 200 && random_chance(&run->random, 50))
        a->peer.plan.send_pause = random_scale(&run->random, 1000, 5 * ASYNCORE_SIM_MS);
    return &a->peer;
}

/* -- The clients -- */

static int start_fetch(struct run *run, struct asyncore_map *map, struct fetch *f, int number)
{
    static const struct option no_options[] = {{0}};
    struct example *e = run_alloc(run, sizeof *e);
    int fds[2], error = asyncore_sim_pipe(run->world, "client", fds);

    *e = (struct example){.name = f->name, .help = (const char *)&f->complained, .options = no_options};
    snprintf(f->name, sizeof f->name, "client %d", number);
    snprintf(f->url, sizeof f->url, "http://server:80/%d", number);
    f->client.e = e;
    f->client.text = f->url;
    if (error < 0)
        return error;
    oracle_that(run, http_parse_url(&f->client.url, f->url) == NULL, "start", "%s is no URL", f->url);
    error = asyncore_file_dispatcher_init(&f->reader.file, &reader_class, map);
    if (error < 0)
        asyncore_close_fd(map, fds[0]);
    else
        error = asyncore_set_file(&f->reader.file, fds[0]);
    client_stdout = fds[1];
    if (error == 0)
        error = http_client(map, &f->client);
    if (error < 0 && f->client.out.base.map == NULL) /* nobody took it over */
        asyncore_close_fd(map, fds[1]);
    return error;
}

static int start(struct run *run)
{
    struct scene *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "client");
    struct random *r = &run->random;
    int error = map != NULL ? 0 : -ENOMEM;

    state->listener.owner = state;
    peer_listen(&state->listener, peer_host(run, "server"), 80, accepted);
    run->connections = 2 * CLIENTS;
    run->free_turns = 10000;
    state->count = (size_t)run_size(run, CLIENTS, 2);
    for (int i = 0; i < (int)state->count && error == 0; i++) {
        struct fetch *f = &state->fetches[i];
        f->kind = (enum kind)random_in(r, 0, KINDS - 1);
        f->body = f->kind == NO_CONTENT || f->kind == GARBAGE
                      ? 0
                      : (size_t)random_scale(r, run_size(run, 0, 3000), run_size(run, BODY_MOST, 9000));
        if (f->kind == BREAKS_OFF || f->kind == RESET)
            f->body += 10;
        f->salt = random_word(r);
        f->run = run;
        f->reader.fetch = f;
        f->reader.piece = random_chance(r, 50) ? 8192 : (size_t)random_scale(r, run_size(run, 200, 1000), 8192);
        f->reader.pause = random_chance(r, 30) ? (unsigned)random_in(r, 1, 20) : 0;
        error = start_fetch(run, map, f, i);
    }
    return error;
}

static void leave(struct run *run)
{
    peer_close_listener(&((struct scene *)run->state)->listener);
}

static void check(struct run *run)
{
    struct scene *state = run->state;

    for (size_t i = 0; i < state->count; i++) {
        const struct fetch *f = &state->fetches[i];
        bool good = f->kind <= INTERIM || f->kind == NO_CONTENT;
        oracle_that(run, f->reader.ended || run->hard, "end", "%s did not close its output", f->name);
        oracle_that(run, f->client.result == 0 || f->complained || run->hard, "result", "%s failed without a word",
                    f->name);
        if (f->client.result == 0) {
            oracle_that(run, good || run->hard, "result", "%s succeeded with a bad answer, kind %d", f->name, f->kind);
            if (f->kind != UNTIL_CLOSE && f->kind != RESET && f->kind != BREAKS_OFF && f->reader.ended)
                oracle_complete(run, f->name, f->body, f->reader.received);
        }
        if (run->hard || !(good || f->kind == NOT_FOUND))
            continue;
        oracle_that(run, f->client.result == (f->kind == NOT_FOUND), "result", "%s returns %d", f->name,
                    f->client.result);
        oracle_complete(run, f->name, f->body, f->reader.received);
    }
}

static void stop(struct run *run)
{
    struct scene *state = run->state;

    for (int i = 0; state != NULL && i < CLIENTS; i++)
        free(state->fetches[i].client.waiting);
}

const struct scenario scenario_client_http = {
    .name = "client_http", .start = start, .finish = leave, .check = check, .stop = stop};
