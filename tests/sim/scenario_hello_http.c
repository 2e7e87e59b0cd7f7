/* scenario_hello_http.c: examples/hello_http.c, and clients whose requests come together, in pieces, with bodies, or
 * are none; some stop in the middle, and one sends a byte now and then, for which the server has a time limit. The
 * answers are compared with what a second hand (request() here) says they should be. */
int hello_http_main(int argc, char **argv);
#include "../../examples/common_http.h"
#include "program.h"
#define main hello_http_main
#include "../../examples/hello_http.c"
#undef main
#include <stdarg.h>

enum {
    CLIENTS = 8,
    ROOM = 32768,
    LIMIT = 30
};

struct browser {
    struct peer peer;
    size_t asked, answered; /* bytes of the texts */
    char asks[ROOM], answers[ROOM];
    bool slow, rude;
};

struct scene {
    struct server server;
    size_t count;
    struct browser browsers[CLIENTS];
};

static size_t output(struct peer *peer, unsigned char *data, size_t size)
{
    memcpy(data, ((struct browser *)peer)->asks + peer->sent, size);
    return size;
}

static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    struct browser *b = (struct browser *)peer;

    oracle_prefix_of(peer_run(peer), peer->name, b->answers, b->answered, peer->received, data, size);
}

static const struct peer_class browser_class = {.output = output, .input = input};

static void add(char *text, size_t *used, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add(char *text, size_t *used, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    *used += (size_t)vsnprintf(text + *used, ROOM - *used, format, arguments);
    va_end(arguments);
}

static void expect(struct browser *b, const char *status, const char *header, const char *text, bool last, bool head)
{
    char body[512];

    snprintf(body, sizeof body, "<html>\r\n<body>\r\n%s\r\n</body>\r\n</html>\r\n", text);
    add(b->answers, &b->answered, "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %zu\r\n",
        status, strlen(body));
    add(b->answers, &b->answered, "Connection: %s\r\n%s\r\n%s", last ? "close" : "keep-alive", header,
        head ? "" : body);
}

static void request(struct random *r, struct browser *b, bool last)
{
    const char *eol = random_chance(r, 20) ? "\n" : "\r\n";
    size_t body = random_chance(r, 20) ? (size_t)random_in(r, 1, 2000) : 0;
    bool head = random_chance(r, 20);
    unsigned number = (unsigned)random_word(r);
    char text[64];

    add(b->asks, &b->asked, "%s /kong%%%u?x=y HTTP/1.1%sHost: server%s", head ? "HEAD" : "GET", 30 + number % 10, eol,
        eol);
    snprintf(text, sizeof text, "Hello kong%u!", number % 10);
    for (uint64_t i = random_in(r, 0, 5); i > 0; i--)
        add(b->asks, &b->asked, "X-%u: %0*d%s", (unsigned)i, (int)random_in(r, 1, 300), 0, eol);
    if (last)
        add(b->asks, &b->asked, "Connection: close%s", eol);
    if (body > 0 && random_chance(r, 30)) {
        add(b->asks, &b->asked, "Expect: 100-continue%s", eol);
        add(b->answers, &b->answered, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    if (body > 0)
        add(b->asks, &b->asked, "Content-Length: %zu%s", body, eol);
    add(b->asks, &b->asked, "%s", eol);
    memset(b->asks + b->asked, '\n', body);
    b->asked += body;
    expect(b, "200 OK", "", text, last, head);
}

static void bad_request(struct random *r, struct browser *b)
{
    switch (random_in(r, 0, 3)) {
    case 0:
        add(b->asks, &b->asked, "nonsense\r\n");
        expect(b, "400 Bad Request", "", "400 Bad Request", true, false);
        break;
    case 1:
        add(b->asks, &b->asked, "POST / HTTP/1.1\r\nHost: x\r\n\r\n");
        expect(b, "405 Method Not Allowed", "Allow: GET, HEAD\r\n", "405 Method Not Allowed", true, false);
        break;
    case 2:
        add(b->asks, &b->asked, "GET /%0*d HTTP/1.1\r\n\r\n", 9000, 0);
        expect(b, "414 URI Too Long", "", "414 URI Too Long", true, false);
        break;
    default:
        add(b->asks, &b->asked, "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        expect(b, "501 Not Implemented", "", "501 Not Implemented", true, false);
    }
}

static void plan(struct run *run, struct browser *b)
{
    struct random *r = &run->random;
    struct peer_plan *p = &b->peer.plan;
    uint64_t requests = random_in(r, 1, run_size(run, 6, 2)), kind = random_in(r, 0, 9);

    b->peer.class_ = &browser_class;
    p->start = random_in(r, 0, 10 * ASYNCORE_SIM_MS);
    p->end = PEER_SHUTS;
    for (uint64_t i = 0; i < requests; i++)
        request(r, b, i == requests - 1 && kind >= 5);
    if (kind == 0)
        bad_request(r, b);
    p->total = b->asked;
    if (random_chance(r, 60))
        p->send_piece = (size_t)random_scale(r, run_size(run, 1, 50), 1000);
    if (random_chance(r, 30))
        p->send_pause = random_scale(r, 1000, ASYNCORE_SIM_MS);
    if (kind == 1) { /* stops somewhere */
        b->rude = true;
        p->total = random_in(r, 0, b->asked);
        p->end = (enum peer_end)random_in(r, PEER_SHUTS, PEER_RESETS);
    } else if (kind == 2) { /* a byte now and then, or none; the answers are those to the first requests, if any */
        b->slow = true;
        p->send_piece = (size_t)run_size(run, 1, 30);
        p->send_pause = random_in(r, 3, 12) * ASYNCORE_SIM_SECOND;
        p->total = random_chance(r, 20) ? 0 : b->asked;
        p->end = PEER_WAITS;
    }
}

static int start(struct run *run)
{
    struct scene *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "server");
    char name[32];
    int error;

    state->server.timeout = LIMIT;
    error = map != NULL ? hello_http(map, &state->server, "*", "80") : -ENOMEM;
    if (error < 0)
        return error;
    run->connections = state->count = (size_t)run_size(run, CLIENTS, 3);
    run->free_turns = 1000;
    for (size_t i = 0; i < state->count; i++) {
        struct browser *b = &state->browsers[i];
        plan(run, b);
        snprintf(name, sizeof name, "client %zu", i);
        peer_connect(&b->peer, peer_host(run, "client"), name, asyncore_sim_address(run->world, "server", AF_INET), 80);
    }
    return 0;
}

static void leave(struct run *run)
{
    oracle_listens(run, &((struct scene *)run->state)->server.base);
    asyncore_fini(&((struct scene *)run->state)->server.base);
}

static void check(struct run *run)
{
    struct scene *state = run->state;

    for (size_t i = 0; i < state->count; i++) {
        const struct browser *b = &state->browsers[i];
        const struct peer *peer = &b->peer;
        oracle_done(run, peer->name, peer->state == PEER_DONE);
        if (b->slow &&
            peer->state == PEER_DONE) /* its first byte after the end brings the reset, if it has not seen it */
            oracle_that(run, peer->ended - peer->opened <= (LIMIT + 30) * ASYNCORE_SIM_SECOND, "limit",
                        "%s was served for %llu s", peer->name,
                        (unsigned long long)((peer->ended - peer->opened) / ASYNCORE_SIM_SECOND));
        if (peer->got_end && !b->slow && !b->rude)
            oracle_reported(run, peer->name, peer->received == b->answered);
        if (run->hard || b->slow || b->rude)
            continue;
        oracle_clean(run, peer->name, peer->error);
        oracle_complete(run, peer->name, b->answered, peer->received);
        oracle_that(run, peer->got_end, "end", "%s got no end of stream", peer->name);
    }
}

const struct scenario scenario_hello_http = {
    .name = "hello_http", .separate = true, .start = start, .finish = leave, .check = check};
