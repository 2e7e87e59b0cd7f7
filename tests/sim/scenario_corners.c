/* scenario_corners.c: what the programs of the other scenarios have no use for. One host, three maps:
 *
 *     its own     a listener bound to a name, whose clients are async_chats with a long terminator, asked for their
 *                 addresses and taken out of the map and back; a listener that was handed in, and does not know what
 *                 to do with its clients; a borrowed pipe; a signal
 *     embedded    served when asyncore_map_fd says so, or by a timer, where the engine has no such descriptor: an echo
 *                 over a Unix socket, a timer, a posted call
 *     bare        of watches alone; one of its descriptors is closed behind its back, and the number used again
 *
 * The host's first 256 descriptors are taken, so that tables have to grow. Whatever fails, all comes to an end. */
#include "map.h"
#include "sim.h"
#include <fcntl.h>
#include <signal.h>

/* The last: its names are macros. */
#include "program.h"

enum {
    TERMINATOR = 40,
    PAGE = 256,
    TICKS = 100,
    LINE = 100
};

struct conversation {
    struct peer peer;
    char asks[LINE + TERMINATOR + 1], answer[2 * LINE];
    size_t answered;
};

struct corners {
    struct run *run;
    struct os *os;
    struct sim_host *host;
    struct asyncore_map *map, *embedded, *bare;

    struct asyncore_dispatcher chats, puzzled;
    struct conversation conversation;
    struct peer refused;
    struct asyncore_signal signal;
    struct asyncore_file_dispatcher borrowed;
    int pipe[2], fillers[2 * PAGE];
    int filler_count;
    bool signalled, borrowed_read;

    struct asyncore_dispatcher outer, unix_listener;
    struct asyncore_dispatcher_with_send client, echo;
    struct asyncore_timer looks, ticks;
    int look_count, embedded_error, client_error;
    size_t echoed;
    bool client_done, ticked, posted;

    struct asyncore_timer steps;
    int step, tick_count, watched[2], bare_error;
    bool seen, bare_done;
};

static struct corners *the;
static const char terminator[TERMINATOR + 1] = "--------------------------------------+\n";

/* -- Chats -- */

struct chat {
    struct asynchat base;
    char line[LINE + 1];
    size_t used;
};

static int chat_collect(struct asynchat *c, const void *data, size_t n)
{
    struct chat *chat = (struct chat *)c;

    if (chat->used + n > LINE)
        return -EMSGSIZE;
    memcpy(chat->line + chat->used, data, n);
    chat->used += n;
    return 0;
}

static int chat_found(struct asynchat *c)
{
    struct chat *chat = (struct chat *)c;
    int error = asynchat_push_text(c, "so you say: ");

    if (error >= 0)
        error = asynchat_push(c, chat->line, chat->used);
    return error < 0 ? error : asynchat_close_when_done(c);
}

static const struct asynchat_class chat_class = {
    .base = {.name = "chat", .destroy = asyncore_destroy_free},
    .collect_incoming_data = chat_collect,
    .found_terminator = chat_found,
};

/* Every question that may be asked of a socket, and a moment outside of the map. */
static int chat_set_up(struct asyncore_dispatcher *d)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address, size = sizeof(int);
    int room = 0, error = asyncore_sockname(d, &address, &length);

    if (error == 0)
        error = asyncore_peername(d, &address, &length);
    if (error == 0)
        error = asyncore_getsockopt(d, SOL_SOCKET, SO_RCVBUF, &room, &size);
    if (error == 0)
        error = asynchat_set_terminator((struct asynchat *)d, terminator, TERMINATOR);
    if (error == 0)
        error = asyncore_del_channel(d);
    return error == 0 ? asyncore_add_channel(d, NULL) : error;
}

static int chats_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct chat *chat = calloc(1, sizeof *chat);
    int error = chat != NULL ? asynchat_init(&chat->base, &chat_class, d->map) : -ENOMEM;

    (void)address, (void)length;
    if (error < 0) {
        free(chat);
        asyncore_close_fd(d->map, fd);
        return error;
    }
    error = asyncore_set_socket(&chat->base.base.base, fd);
    if (error == 0)
        error = chat_set_up(&chat->base.base.base);
    if (error < 0)
        asyncore_close(&chat->base.base.base);
    return error;
}

static const struct asyncore_class chats_class = {.name = "chats", .handle_accepted = chats_accepted};
static const struct asyncore_class puzzled_class = {.name = "puzzled"};

static size_t asks(struct peer *peer, unsigned char *data, size_t size)
{
    memcpy(data, ((struct conversation *)peer)->asks + peer->sent, size);
    return size;
}

static void answers(struct peer *peer, const unsigned char *data, size_t size)
{
    struct conversation *c = (struct conversation *)peer;

    oracle_prefix_of(peer_run(peer), peer->name, c->answer, c->answered, peer->received, data, size);
}

static const struct peer_class conversation_class = {.output = asks, .input = answers};

static void plan_peers(struct corners *s)
{
    struct conversation *c = &s->conversation;
    const char *text = "what is there to say?";
    const char *address = asyncore_sim_address(s->run->world, "corners", AF_INET);

    c->answered = (size_t)snprintf(c->answer, sizeof c->answer, "so you say: %s", text);
    snprintf(c->asks, sizeof c->asks, "%s%s", text, terminator);
    c->peer.class_ = &conversation_class;
    c->peer.plan = (struct peer_plan){
        .start = ASYNCORE_SIM_MS, .total = strlen(c->asks), .send_piece = 50, .send_pause = 10000, .end = PEER_WAITS};
    peer_connect(&c->peer, peer_host(s->run, "client"), "asker", address, 7);
    s->refused.plan = (struct peer_plan){.start = ASYNCORE_SIM_MS, .end = PEER_WAITS};
    peer_connect(&s->refused, peer_host(s->run, "client"), "refused", address, 8);
}

static int start_chats(struct corners *s)
{
    int error = asyncore_dispatcher_init(&s->chats, &chats_class, s->map);

    if (error == 0)
        error = asyncore_create_socket(&s->chats, AF_INET, SOCK_STREAM);
    if (error == 0)
        error = asyncore_bind(&s->chats, "corners", "7"); /* a name */
    return error == 0 ? asyncore_listen(&s->chats, 5) : error;
}

/* A socket from elsewhere. */
static int start_puzzled(struct corners *s)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(8)};
    int fd, error = asyncore_dispatcher_init(&s->puzzled, &puzzled_class, s->map);

    if (error < 0)
        return error;
    fd = s->os->socket(AF_INET, SOCK_STREAM, 0, s->os);
    if (fd < 0)
        return fd;
    sim_file_of(s->host, fd)->flags &= ~O_NONBLOCK; /* the kernel's table makes no other */
    error = s->os->bind(fd, (struct sockaddr *)&any, sizeof any, s->os);
    if (error < 0) {
        s->os->close(fd, s->os);
        return error;
    }
    error = asyncore_set_socket(&s->puzzled, fd);
    return error == 0 ? asyncore_listen(&s->puzzled, 5) : error;
}

/* Who has a socket takes no other, and closes it. */
static int give_another(struct corners *s)
{
    int fd = s->os->socket(AF_INET, SOCK_STREAM, 0, s->os), result;

    if (fd < 0)
        return fd;
    result = asyncore_set_socket(&s->puzzled, fd);
    oracle_that(s->run, result == -EEXIST && sim_file_of(s->host, fd) == NULL, "answer", "a second socket: %s",
                asyncore_strerror(result));
    return 0;
}

/* -- The signal, and the pipe -- */

static void signalled(struct asyncore_signal *signal, int number, void *arg)
{
    struct corners *s = arg;

    oracle_that(s->run, number == SIGUSR1, "answer", "signal %d", number);
    s->signalled = true;
    asyncore_close(&signal->base);
}

static void raise_it(struct asyncore_sim *world, void *arg)
{
    (void)arg;
    asyncore_sim_raise(world, "corners", SIGUSR1);
}

static int borrowed_read(struct asyncore_dispatcher *d)
{
    char data[16];
    ssize_t n = asyncore_recv(d, data, sizeof data);

    if (n <= 0)
        return (int)n;
    the->borrowed_read = true;
    return asyncore_close(d);
}

static const struct asyncore_class borrowed_class = {.name = "borrowed", .handle_read = borrowed_read};

/* Past the kernel's table, whose calls may fail. */
static void put_byte(struct corners *s, int fd)
{
    struct sim_file *file = sim_file_of(s->host, fd);

    file->kind->write(file, "x", 1);
}

static int start_borrowed(struct corners *s)
{
    int error = asyncore_file_dispatcher_init(&s->borrowed, &borrowed_class, s->map);

    if (error < 0)
        return error;
    if (asyncore_sim_pipe(s->run->world, "corners", s->pipe) < 0)
        return -EMFILE;
    asyncore_set_borrowed(&s->borrowed.base);
    put_byte(s, s->pipe[1]);
    return asyncore_set_file(&s->borrowed, s->pipe[0]);
}

/* -- The embedded map -- */

static bool embedded_done(const struct corners *s)
{
    return s->embedded_error < 0 || (s->client_done && s->ticked && s->posted);
}

static int echo_read(struct asyncore_dispatcher *d)
{
    const void *data;
    ssize_t n = asyncore_recv_view(d, &data);

    return n > 0 ? (int)asyncore_send(d, data, (size_t)n) : (int)n;
}

static const struct asyncore_class echo_class = {.name = "echo", .handle_read = echo_read};

static int unix_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    int error = asyncore_dispatcher_with_send_init(&the->echo, &echo_class, d->map);

    (void)address, (void)length;
    if (error < 0)
        asyncore_close_fd(d->map, fd);
    return error == 0 ? asyncore_set_socket(&the->echo.base, fd) : error;
}

static const struct asyncore_class unix_class = {.name = "unix listener", .handle_accepted = unix_accepted};

static int client_connect(struct asyncore_dispatcher *d)
{
    return (int)asyncore_send(d, "hello", 5);
}

static int client_read(struct asyncore_dispatcher *d)
{
    char data[16];
    ssize_t n = asyncore_recv(d, data, sizeof data);

    if (n > 0) {
        oracle_prefix_of(the->run, "unix client", "hello", 5, the->echoed, data, (size_t)n);
        the->echoed += (size_t)n;
    }
    if (n > 0 && the->echoed == 5) { /* then the echo ends, too */
        int error = asyncore_shutdown(d, SHUT_WR);
        if (error < 0)
            return error;
    }
    return n < 0 ? (int)n : 0;
}

static int client_close(struct asyncore_dispatcher *d)
{
    the->client_error = asyncore_error(d);
    the->client_done = true;
    return asyncore_close(d);
}

static const struct asyncore_class client_class = {
    .name = "unix client", .handle_connect = client_connect, .handle_read = client_read, .handle_close = client_close};

static void tick(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    ((struct corners *)arg)->ticked = true;
}

static void posted(void *arg)
{
    ((struct corners *)arg)->posted = true;
}

/* Whether there is more to come. */
static bool embedded_serve(struct corners *s)
{
    int result = asyncore_poll(s->embedded, 0);

    if (result < 0 && result != SIM_WOULD_WAIT) /* it would once this turn has taken its time */
        s->embedded_error = result;
    return !embedded_done(s);
}

static int outer_read(struct asyncore_dispatcher *d)
{
    return embedded_serve(the) ? 0 : asyncore_close(d);
}

static int outer_close(struct asyncore_dispatcher *d)
{
    the->embedded_error = asyncore_error(d); /* nobody serves it any more */
    return asyncore_close(d);
}

static const struct asyncore_class outer_class = {
    .name = "outer", .handle_read = outer_read, .handle_close = outer_close};

static void look(struct asyncore_timer *timer, void *arg)
{
    if (!embedded_serve(arg) || ++((struct corners *)arg)->look_count == TICKS)
        asyncore_cancel(timer);
}

static int start_outer(struct corners *s)
{
    int fd = asyncore_map_fd(s->embedded), error;

    if (fd == -ENOTSUP)
        return asyncore_call_every(s->map, &s->looks, 5, look, s);
    if (fd < 0)
        return fd;
    error = asyncore_dispatcher_init(&s->outer, &outer_class, s->map);
    if (error < 0)
        return error;
    asyncore_set_borrowed(&s->outer);
    return asyncore_set_socket(&s->outer, fd);
}

static int start_embedded(struct corners *s)
{
    int error = start_outer(s);

    if (error == 0)
        error = asyncore_dispatcher_init(&s->unix_listener, &unix_class, s->embedded);
    if (error == 0)
        error = asyncore_bind(&s->unix_listener, "unix:/echo", NULL);
    if (error == 0)
        error = asyncore_listen(&s->unix_listener, 5);
    if (error == 0)
        error = asyncore_dispatcher_with_send_init(&s->client, &client_class, s->embedded);
    if (error == 0)
        error = asyncore_connect(&s->client.base, "unix:/echo", NULL);
    if (error == 0)
        error = asyncore_call_later(s->embedded, &s->ticks, 20, tick, s);
    return error == 0 ? asyncore_call_soon_threadsafe(s->embedded, posted, s) : error;
}

/* -- Bare watches: a step with each tick of a timer -- */

static int bare_wait(struct corners *s, unsigned *events)
{
    struct asyncore_event ready[4];
    int count = asyncore_map_wait(s->bare, 0, ready, 4);

    *events = 0;
    for (int i = 0; i < count; i++)
        if (ready[i].owner == s && ready[i].fd == s->watched[0])
            *events |= ready[i].events;
    return count < 0 && count != SIM_WOULD_WAIT ? count : 0;
}

/* The number stays watched, and is another file's. */
static int use_again(struct corners *s)
{
    int *fds;

    do {
        fds = s->fillers + s->filler_count;
        if (asyncore_sim_pipe(s->run->world, "corners", fds) < 0)
            return -EMFILE;
        s->filler_count += 2;
    } while (fds[0] != s->watched[0] && fds[1] != s->watched[0]);
    return asyncore_watch_want(s->bare, s->watched[0], ASYNCORE_WRITE | ASYNCORE_READ);
}

static int bare_step(struct corners *s)
{
    int fd = s->watched[0], error = 0, check;
    unsigned events = 0;

    switch (s->step++) {
    case 0:
        put_byte(s, s->watched[1]);
        return asyncore_watch_add(s->bare, fd, ASYNCORE_READ, s);
    case 1:
        error = bare_wait(s, &events);
        if (error == 0 && !(events & (ASYNCORE_READ | ASYNCORE_ERROR))) /* an interrupted wait: once more */
            s->step--;
        return error;
    case 2:
        check = asyncore_watch_check(s->bare, fd);
        oracle_that(s->run, check == 1 || s->run->hard, "answer", "watch_check: %d instead of 1", check);
        sim_file_close(s->host, fd);
        return bare_wait(s, &events);
    case 3:
        check = asyncore_watch_check(s->bare, fd);
        oracle_that(s->run, check == 0, "answer", "watch_check: %d instead of 0", check);
        return use_again(s);
    case 4:
        return bare_wait(s, &events);
    default:
        s->bare_done = true;
        return asyncore_watch_del(s->bare, fd);
    }
}

static void steps(struct asyncore_timer *timer, void *arg)
{
    struct corners *s = arg;

    s->bare_error = bare_step(s);
    oracle_that(s->run, s->bare_error == 0 || s->run->hard, "clean", "step %d: %s", s->step - 1,
                asyncore_strerror(s->bare_error));
    if (s->bare_error < 0 || s->bare_done || ++s->tick_count == TICKS)
        asyncore_cancel(timer);
}

/* -- The beginning and the end -- */

/* What the host's own map does not close. */
static void tidy(struct corners *s)
{
    struct asyncore_dispatcher *all[] = {&s->chats, &s->puzzled, &s->signal.base, &s->borrowed.base, &s->outer};
    int fds[] = {s->pipe[0], s->pipe[1], s->watched[0], s->watched[1]};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        asyncore_fini(all[i]);
    if (s->embedded != NULL)
        asyncore_map_free(s->embedded);
    if (s->bare != NULL)
        asyncore_map_free(s->bare);
    s->embedded = s->bare = NULL;
    for (int i = 0; i < s->filler_count; i++)
        sim_file_close(s->host, s->fillers[i]);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0 && sim_file_of(s->host, fds[i]) != NULL)
            sim_file_close(s->host, fds[i]);
    s->filler_count = 0;
}

static int make_maps(struct corners *s)
{
    struct asyncore_map_options o = {.engine = s->run->options.engine, .name_servers = "10.0.0.99"};
    int error = map_new_on(&s->embedded, s->os, &o);

    if (error == 0)
        error = asyncore_set_log(s->embedded, run_log, s->run);
    return error == 0 ? map_new_on(&s->bare, s->os, &o) : error;
}

static int fill(struct corners *s)
{
    int fds[2];

    while (asyncore_sim_pipe(s->run->world, "corners", fds) == 0) {
        s->fillers[s->filler_count++] = fds[0];
        s->fillers[s->filler_count++] = fds[1];
        if (fds[1] >= PAGE - 1)
            return 0;
    }
    return -EMFILE;
}

static int start_all(struct corners *s)
{
    int error = make_maps(s);

    if (error == 0)
        error = start_chats(s);
    if (error == 0)
        error = start_puzzled(s);
    if (error == 0)
        error = give_another(s);
    if (error == 0)
        error = asyncore_signal_init(&s->signal, s->map, SIGUSR1, signalled, s);
    if (error == 0)
        error = start_borrowed(s);
    if (error == 0)
        error = start_embedded(s);
    if (error == 0)
        error = asyncore_sim_pipe(s->run->world, "corners", s->watched);
    if (error == 0)
        error = asyncore_call_every(s->map, &s->steps, 10, steps, s);
    return error == 0 ? fill(s) : error;
}

static int start(struct run *run)
{
    struct corners *s = the = run->state = run_alloc(run, sizeof *s);
    int error;

    s->run = run;
    s->map = run_map(run, "corners");
    s->os = sim_os(run->world, "corners");
    s->host = (struct sim_host *)s->os;
    memset(s->pipe, -1, sizeof s->pipe);
    memset(s->watched, -1, sizeof s->watched);
    run->memory_bound = 1 << 20;
    run->free_turns = 1000;
    error = s->map != NULL ? start_all(s) : -ENOMEM;
    if (error < 0) {
        tidy(s);
        return error;
    }
    asyncore_sim_at(run->world, 5 * ASYNCORE_SIM_MS, raise_it, s);
    plan_peers(s);
    return 0;
}

static void finish(struct run *run)
{
    struct corners *s = run->state;
    int flags = sim_file_of(s->host, s->pipe[0]) != NULL ? sim_file_of(s->host, s->pipe[0])->flags : -1;
    bool flags_fail = run_scripted(run, ASYNCORE_SIM_SET_FLAGS);

    oracle_that(run, s->puzzled.fd < 0 || sim_file_of(s->host, s->puzzled.fd)->flags & O_NONBLOCK, "flags",
                "the listener may block");
    oracle_that(run, flags >= 0, "borrowed", "the borrowed descriptor was closed");
    oracle_that(run, !(flags & O_NONBLOCK) || flags_fail || run->loop_failed, "borrowed", "its flags are 0x%x", flags);
    if (!run->loop_failed) {
        oracle_that(run, embedded_done(s), "stuck", "the embedded map: %d, %d, %d", s->client_done, s->ticked,
                    s->posted);
        oracle_that(run, s->bare_error < 0 || s->bare_done, "stuck", "the bare watches, at step %d", s->step);
    }
    tidy(s);
}

static void check(struct run *run)
{
    const struct corners *s = run->state;
    const struct peer *asker = &s->conversation.peer;

    oracle_done(run, asker->name, asker->state == PEER_DONE);
    oracle_done(run, "the refused one", s->refused.state == PEER_DONE);
    oracle_complete(run, "the refused one", 0, s->refused.received);
    if (s->refused.got_end)
        oracle_reported(run, "the refused one", false);
    if (asker->got_end)
        oracle_reported(run, asker->name, asker->received == s->conversation.answered);
    if (s->client_done && s->client_error == 0)
        oracle_reported(run, "the unix client", s->echoed == 5);
    if (run->hard)
        return;
    oracle_that(run, s->signalled, "complete", "the signal did not come");
    oracle_that(run, s->borrowed_read, "complete", "the borrowed pipe was not read");
    oracle_complete(run, asker->name, s->conversation.answered, asker->received);
    oracle_clean(run, "the embedded map", s->embedded_error);
    oracle_clean(run, "the unix client", s->client_error);
    oracle_complete(run, "the unix client", 5, s->echoed);
}

const struct scenario scenario_corners = {.name = "corners", .start = start, .finish = finish, .check = check};
