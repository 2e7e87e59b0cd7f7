/* fuzz_api.c: the API called in any order, from within handlers above all, in a simulated world.
 *
 * The input is a list of operations. Host "a" has a map and a second one embedded in it (asyncore_map_fd), host "b" a
 * third; some slots hold channels of all classes, with and without destroy and predicates. Every handler takes the next
 * operations of the input, and so do timers, lookups, posted calls, producers, and the times between two runs of the
 * world. When the input is used up, handlers do what a plain program's do, everything is closed, and the world freed.
 *
 * What must hold: no handler of a channel runs after it was closed, nor a second destroy, nor a destroy or a successful
 * fini within its own handler; a turn within a turn is refused; the world comes to rest within a bounded number of
 * turns; every descriptor is closed, every producer and lent buffer released once. Memory is the sanitizer's to check. */
#include "asynchat.h"
#include "asyncore_sim.h"
#include "channel.h"
#include "fuzz.h"
#include "sim.h"
#include <netinet/in.h>

#define SLOTS      8
#define ON_A       6 /* slots of host a; the rest are b's */
#define TIMERS     4
#define PHASES     8

/* Of a run. Who is called more often spins. */
#define TURNS_MOST   30000
#define HANDLED_MOST 30000

enum kind {
    DISPATCHER,
    WITH_SEND,
    CHAT,
    FILE_,
    KINDS
};

struct slot {
    union {
        struct asyncore_dispatcher d;
        struct asyncore_dispatcher_with_send s;
        struct asynchat c;
        struct asyncore_file_dispatcher f;
    } u; /* first: handlers get it */
    enum kind kind;
    const struct asyncore_class *class_;
    unsigned flags; /* what its predicates say */
    unsigned depth; /* its handlers that run */
    bool closed;    /* and not opened again */
    bool dying;     /* closed, and destroy will come */
    bool destroyable;
};

/* All of one run. Static, for handlers have no other way to it. */
static struct run {
    struct input in;
    struct asyncore_sim *world;
    struct asyncore_map *a, *b, *inner;
    struct slot *slots[SLOTS];
    struct asyncore_timer timers[TIMERS];
    struct asyncore_lookup lookups[2];
    struct asyncore_file_dispatcher embed;
    size_t lent, released; /* producers and buffers */
    unsigned handled;
} run;

static const unsigned char bytes[70000];
static bool tracing; /* $FUZZ_TRACE: to stderr */

static void apply(bool on_b);

/* Some of the operations that are left. Always takes a byte, so that whatever comes again and again ends. */
static void some(bool on_b)
{
    for (unsigned n = take(&run.in) % 4; n > 0 && run.in.left > 0; n--)
        apply(on_b);
}

static bool used_up(void)
{
    return run.in.left == 0;
}

/* -- Handlers -- */

static struct slot *slot_of(struct asyncore_dispatcher *d)
{
    return (struct slot *)d;
}

static const struct asyncore_class *parent(struct asyncore_dispatcher *d)
{
    return asyncore_super(d, slot_of(d)->class_);
}

static bool on_b(const struct slot *slot)
{
    for (int i = ON_A; i < SLOTS; i++)
        if (run.slots[i] == slot)
            return true;
    return false;
}

/* What every handler does. A result to return: most often what the handler would anyway. */
static int enter(struct asyncore_dispatcher *d, int usual)
{
    static const int results[] = {-EAGAIN, 1, -EIO, -ECONNRESET, -EMFILE, -ECONNABORTED, 0, 0};
    struct slot *slot = slot_of(d);
    claim(!slot->closed);
    claim(++run.handled < HANDLED_MOST);
    slot->depth++;
    some(on_b(slot));
    slot->depth--;
    unsigned choice = used_up() ? 0 : take(&run.in);
    return choice >= 248 ? results[choice - 248] : usual;
}

/* The class's own handler afterwards, if the channel is open and the input agrees. */
#define HANDLER(name, usual) \
    static int on_##name(struct asyncore_dispatcher *d) \
    { \
        int result = enter(d, 1234); \
        if (result != 1234) \
            return result; \
        return slot_of(d)->closed || d->fd < 0 ? 0 : (usual); \
    }

static int read_some(struct asyncore_dispatcher *d)
{
    const void *view;
    char small[100];
    if (take(&run.in) & 1)
        return (int)asyncore_recv(d, small, sizeof small);
    ssize_t n = asyncore_recv_view(d, &view);
    return n > 0 && !used_up() && take(&run.in) & 1 ? (int)asyncore_send(d, view, (size_t)n) : (int)n;
}

static int read_as_class(struct asyncore_dispatcher *d)
{
    return slot_of(d)->kind == CHAT ? parent(d)->handle_read(d) : read_some(d);
}

HANDLER(read, read_as_class(d))
HANDLER(connect, 0)
HANDLER(expt, asyncore_want(d, asyncore_wanted(d) & ~(unsigned)ASYNCORE_EXPT))
HANDLER(accept, parent(d)->handle_accept(d))
HANDLER(close, parent(d)->handle_close(d))

static int on_write(struct asyncore_dispatcher *d)
{
    int result = enter(d, 0);
    if (slot_of(d)->closed || d->fd < 0)
        return 0;
    if (slot_of(d)->kind == WITH_SEND || slot_of(d)->kind == CHAT)
        return parent(d)->handle_write(d);
    return used_up() ? asyncore_want(d, asyncore_wanted(d) & ~(unsigned)ASYNCORE_WRITE) : result;
}

static int on_error(struct asyncore_dispatcher *d, int error)
{
    claim(error < 0);
    int result = enter(d, 1234);
    if (result != 1234)
        return result;
    return slot_of(d)->closed ? 0 : parent(d)->handle_error(d, error);
}

static int on_socket(struct asyncore_dispatcher *d, int fd)
{
    claim(fd >= 0 && fd == d->fd && !slot_of(d)->dying);
    slot_of(d)->closed = false;
    return enter(d, 0);
}

static int on_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct asyncore_map *map = d->map;
    claim(fd >= 0 && address != NULL && length >= sizeof(sa_family_t));
    int result = enter(d, 0);
    for (int i = on_b(slot_of(d)) ? ON_A : 0; i < (on_b(slot_of(d)) ? SLOTS : ON_A) && !used_up(); i++) {
        struct slot *slot = run.slots[i];
        if (slot != NULL && slot->closed && !slot->dying && slot->kind != FILE_ && slot->u.d.map == map &&
            asyncore_set_socket(&slot->u.d, fd) >= 0) {
            slot->closed = false;
            return result;
        } else if (slot != NULL && slot->closed && !slot->dying && slot->kind != FILE_ && slot->u.d.map == map) {
            slot->dying = slot->destroyable;
            return result;
        }
    }
    asyncore_close_fd(map, fd);
    return result;
}

static int on_readable(struct asyncore_dispatcher *d)
{
    claim(!slot_of(d)->closed);
    if (!used_up() && slot_of(d)->flags & 4)
        enter(d, 0);
    return used_up() || slot_of(d)->flags & 1;
}

static int on_writable(struct asyncore_dispatcher *d)
{
    struct slot *slot = slot_of(d);
    claim(!slot->closed);
    if (slot->kind == WITH_SEND || slot->kind == CHAT)
        return (asyncore_connected(d) && asyncore_queued(&slot->u.s) > 0) || (slot->flags & 2 && !used_up());
    return slot->flags & 2 && !used_up();
}

static void on_destroy(struct asyncore_dispatcher *d)
{
    struct slot *slot = slot_of(d);
    claim(slot->destroyable && slot->depth == 0);
    for (int i = 0; i < SLOTS; i++)
        if (run.slots[i] == slot) {
            run.slots[i] = NULL;
            free(slot);
            return;
        }
    claim(!"destroyed once");
}

static int on_collect(struct asynchat *c, const void *data, size_t n)
{
    claim(data != NULL && n > 0);
    return enter(&c->base.base, 0);
}

static int on_found(struct asynchat *c)
{
    return enter(&c->base.base, 0);
}

#define HANDLERS \
    .handle_read = on_read, .handle_connect = on_connect, .handle_expt = on_expt, .handle_accept = on_accept, \
    .handle_close = on_close, .handle_write = on_write, .handle_error = on_error, .handle_socket = on_socket, \
    .handle_accepted = on_accepted
#define PREDICATES .readable = on_readable, .writable = on_writable
#define CHATS      .collect_incoming_data = on_collect, .found_terminator = on_found

/* By the bits: 1 destroy, 2 predicates. async_chat's serve all: their base is what the others look at. */
static const struct asynchat_class classes[4] = {
    {.base = {.name = "plain", HANDLERS}, CHATS},
    {.base = {.name = "destroyed", HANDLERS, .destroy = on_destroy}, CHATS},
    {.base = {.name = "asked", HANDLERS, PREDICATES}, CHATS},
    {.base = {.name = "asked, destroyed", HANDLERS, PREDICATES, .destroy = on_destroy}, CHATS},
};

/* -- Channels as a whole -- */

/* A class belongs to one base class in a map: each kind has its own table. */
static const struct asynchat_class *class_for(enum kind kind, unsigned bits)
{
    static struct asynchat_class all[KINDS][4];
    if (all[kind][bits].base.name == NULL)
        all[kind][bits] = classes[bits];
    return &all[kind][bits];
}

static void slot_new(int i, struct asyncore_map *map, unsigned choice)
{
    struct slot *slot = calloc(1, sizeof *slot);
    claim(slot != NULL);
    unsigned bits = choice & 3;
    enum kind kind = choice >> 2 & 3;
    const struct asynchat_class *class_ = class_for(kind, bits);
    int result;
    if (kind == DISPATCHER)
        result = asyncore_dispatcher_init(&slot->u.d, &class_->base, map);
    else if (kind == WITH_SEND)
        result = asyncore_dispatcher_with_send_init(&slot->u.s, &class_->base, map);
    else if (kind == CHAT)
        result = asynchat_init(&slot->u.c, class_, map);
    else
        result = asyncore_file_dispatcher_init(&slot->u.f, &class_->base, map);
    claim(result == 0 || result == -ENOMEM);
    slot->kind = kind;
    slot->class_ = &class_->base;
    slot->flags = choice >> 4;
    slot->destroyable = bits & 1;
    slot->closed = true; /* until it is opened */
    if (result == 0)
        run.slots[i] = slot;
    else
        free(slot);
}

/* After what may have opened it, or failed and closed it. */
static void opened(struct slot *slot, bool was_dying, int result)
{
    claim(!was_dying || result < 0);
    if (slot->u.d.state_ & S_DYING)
        slot->dying = slot->closed = true;
    else if (slot->u.d.state_ & S_ADDED || result >= 0)
        slot->closed = false;
}

static void slot_close(struct slot *slot)
{
    claim(asyncore_close(&slot->u.d) == 0);
    claim(slot->u.d.fd == -1);
    slot->closed = true;
    slot->dying = slot->destroyable;
}

static void slot_fini(int i)
{
    struct slot *slot = run.slots[i];
    int result = asyncore_fini(&slot->u.d);
    claim(result == 0 || result == -EBUSY);
    claim(slot->depth == 0 || result == -EBUSY);
    if (result < 0)
        return;
    run.slots[i] = NULL;
    free(slot);
}

/* -- What else calls back -- */

static void on_timer(struct asyncore_timer *timer, void *arg)
{
    (void)timer;
    some(arg != NULL);
}

static void on_posted(void *arg)
{
    some(arg != NULL);
}

static void on_lookup(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses, size_t count,
                      void *arg)
{
    (void)lookup, (void)arg;
    claim(error != 0 || (addresses != NULL && count > 0));
    some(false);
}

static void on_release(void *arg)
{
    (void)arg;
    run.released++;
}

struct producer {
    struct asynchat_producer base;
    unsigned left;
    bool on_b;
};

static ssize_t produce(struct asynchat_producer *base, const void **data)
{
    struct producer *p = (struct producer *)base;
    bool b = p->on_b;
    unsigned left = p->left;
    p->left -= left > 0;
    if (!used_up() && left & 1)
        apply(b);
    *data = bytes;
    return left == 77 ? -EIO : (ssize_t)left * 100;
}

static void produced(struct asynchat_producer *base)
{
    run.released++;
    free(base);
}

static void dump_line(void *arg, const char *text)
{
    (void)arg;
    claim(*text);
}

static int on_embed(struct asyncore_dispatcher *d)
{
    (void)d;
    int result = run.inner != NULL ? asyncore_poll(run.inner, 0) : 0;
    return result < 0 ? -EAGAIN : 0;
}

/* -- Operations -- */

static const char *port(void)
{
    static const char *const ports[] = {"1000", "1001", "0", "1000"};
    return ports[take(&run.in) % 4];
}

static const char *host(void)
{
    unsigned choice = take(&run.in) % 10;
    static const char *const others[] = {"", "*", "name.test", "slow.test", "unix:@x", "unix:/y", "none"};
    if (choice < 3)
        return asyncore_sim_address(run.world, choice == 2 ? "b" : "a", choice == 1 ? AF_INET6 : AF_INET);
    return others[choice - 3];
}

static size_t amount(void)
{
    static const size_t sizes[] = {1, 100, 5000, sizeof bytes};
    return sizes[take(&run.in) % 4];
}

static struct asyncore_map *a_map(bool b)
{
    return b ? run.b : run.inner != NULL && take(&run.in) & 1 ? run.inner : run.a;
}

static void sockets(struct slot *slot, unsigned op)
{
    struct asyncore_dispatcher *d = &slot->u.d;
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC};
    struct sockaddr_storage address;
    socklen_t length;
    unsigned choice;
    const char *to;
    bool dying = slot->dying;
    switch (op) {
    case 0:
        choice = take(&run.in);
        opened(slot, dying, asyncore_create_socket(d, families[choice & 3], choice & 64 ? SOCK_DGRAM : SOCK_STREAM));
        break;
    case 1:
        to = host();
        opened(slot, dying, asyncore_bind(d, to, port()));
        break;
    case 2: asyncore_listen(d, 1 + (int)(take(&run.in) & 7)); break;
    case 3:
        to = host();
        opened(slot, dying, asyncore_connect(d, to, port()));
        break;
    case 4: asyncore_shutdown(d, (int)take(&run.in) % 3); break;
    case 5:
        to = host();
        if (d->fd >= 0 && asyncore_parse_address(to, port(), &address, &length) == 0)
            asyncore_sendto(d, bytes, amount() / 10, (struct sockaddr *)&address, length);
        break;
    case 6: asyncore_recvfrom(d, &address, 8, &address, &length); break;
    case 7: asyncore_sockname(d, &address, &length); break;
    case 8: asyncore_set_reuse_addr(d); break;
    default: asyncore_peername(d, &address, &length); break;
    }
}

static void pipes(bool b)
{
    int fds[2];
    struct asyncore_map *map = b ? run.b : run.a;
    if (asyncore_sim_pipe(run.world, b ? "b" : "a", fds) < 0)
        return;
    for (int i = b ? ON_A : 0, end = 0; end < 2; i++) {
        struct slot *slot = i < (b ? SLOTS : ON_A) ? run.slots[i] : NULL;
        if (i >= (b ? SLOTS : ON_A))
            asyncore_close_fd(map, fds[end++]);
        else if (slot != NULL && slot->closed && !slot->dying && slot->kind == FILE_ && slot->depth == 0 &&
                 slot->u.d.fd < 0)
            opened(slot, false, asyncore_set_file(&slot->u.f, fds[end++]));
    }
}

static void membership(struct slot *slot, unsigned op, bool b)
{
    struct asyncore_dispatcher *d = &slot->u.d;
    switch (op) {
    case 0: asyncore_del_channel(d); break;
    case 1: asyncore_add_channel(d, a_map(b)); break;
    case 2: asyncore_want(d, take(&run.in) & 15); break;
    case 3: asyncore_ready(d); break;
    case 4: asyncore_set_idle_timeout(d, take(&run.in) & 1 ? 30 : 0); break;
    case 5: asyncore_set_background(d, (int)take(&run.in) & 1); break;
    case 6: slot->flags = take(&run.in); break;
    default: read_some(d); break;
    }
}

static void push_producer(struct slot *slot, bool b)
{
    struct producer *p = malloc(sizeof *p);
    claim(p != NULL);
    *p = (struct producer){{produce, produced}, take(&run.in) & 127, b};
    run.lent++;
    if (asynchat_push_with_producer(&slot->u.c, &p->base) < 0) {
        run.lent--;
        free(p);
    }
}

static void output(struct slot *slot, unsigned op, bool b)
{
    bool chat = slot->kind == CHAT, buffered = chat || slot->kind == WITH_SEND;
    if (op == 0) {
        asyncore_send(&slot->u.d, bytes, amount());
    } else if (op == 1 && buffered) {
        static const size_t marks[4][3] = {{0, 1, 1}, {10, 200, 6000}, {100, 5000, 5000}, {1 << 17, 1 << 18, 1 << 24}};
        const size_t *m = marks[take(&run.in) & 3];
        asyncore_set_marks(&slot->u.s, m[0], m[1], m[2]);
    } else if (op == 2 && buffered) {
        run.lent++;
        if (asyncore_send_ref(&slot->u.s, bytes, amount(), on_release, NULL) < 0)
            run.lent--;
    } else if (op == 3 && chat) {
        asynchat_push(&slot->u.c, bytes, amount());
    } else if (op == 4 && chat) {
        push_producer(slot, b);
    } else if (op == 5 && chat) {
        asynchat_close_when_done(&slot->u.c);
    } else if (op == 6 && chat) {
        asynchat_discard_buffers(&slot->u.c);
    } else if (op == 7 && chat) {
        size_t n = take(&run.in);
        if (n & 128)
            asynchat_set_terminator(&slot->u.c, bytes, n & 63);
        else
            asynchat_set_terminator_length(&slot->u.c, n * 50);
    } else if (op == 8 && chat) {
        asynchat_set_limit(&slot->u.c, take(&run.in));
    }
}

static void close_all(struct asyncore_map *map)
{
    for (int i = 0; i < SLOTS; i++)
        if (run.slots[i] != NULL && run.slots[i]->u.d.map == map && run.slots[i]->u.d.state_ & S_ADDED) {
            run.slots[i]->closed = true;
            run.slots[i]->dying = run.slots[i]->destroyable;
        }
    claim(asyncore_close_all(map) == 0);
}

static void maps(unsigned op, bool b)
{
    struct asyncore_map *map = a_map(b);
    struct asyncore_event events[4];
    struct asyncore_timer *timer = &run.timers[b ? TIMERS - 1 : take(&run.in) % (TIMERS - 1)];
    switch (op) {
    case 0: asyncore_call_later(map, timer, take(&run.in), on_timer, b ? &run : NULL); break;
    case 1: asyncore_call_every(map, timer, 50 + take(&run.in), on_timer, b ? &run : NULL); break;
    case 2: asyncore_cancel(timer); break;
    case 3: asyncore_stop(map); break;
    case 4: asyncore_call_soon_threadsafe(map, on_posted, b ? &run : NULL); break;
    case 5:
        if (!b)
            asyncore_resolve(map, &run.lookups[take(&run.in) & 1], host(), "1000", AF_UNSPEC, on_lookup, NULL);
        break;
    case 6: asyncore_resolve_cancel(&run.lookups[take(&run.in) & 1]); break;
    case 7:
        if (run.inner != NULL && !b)
            asyncore_poll(run.inner, 0);
        break;
    case 8:
        if (map_in_turn(map)) {
            claim(asyncore_poll(map, 0) == -EBUSY && asyncore_loop(map, 0, 1) == -EBUSY);
            claim(asyncore_map_free(map) == -EBUSY);
        }
        break;
    case 9: asyncore_map_wait(map, 0, events, 4); break;
    case 10: asyncore_dump(map, dump_line, NULL); break;
    case 11: asyncore_wakeup(map); break;
    case 12: asyncore_timer_set_background(timer, (int)take(&run.in) & 1); break;
    default:
        if (map != run.a) /* the embedded map's own channel must stay */
            close_all(map);
        break;
    }
}

/* One operation, on host a or b: what the other host has is another program's. */
static void apply(bool b)
{
    unsigned op = take(&run.in);
    int i = b ? ON_A + (int)take(&run.in) % (SLOTS - ON_A) : (int)take(&run.in) % ON_A;
    struct slot *slot = run.slots[i];
    if (tracing)
        fprintf(stderr, "%s: operation %u.%u on %d (%s)\n", b ? "b" : "a", op % 8, op / 8, i,
                slot == NULL ? "new" : slot->class_->name);
    if (slot == NULL && op % 8 != 7)
        slot_new(i, a_map(b), take(&run.in));
    else if (op % 8 < 2 && slot->kind != FILE_)
        sockets(slot, op / 8 % 10);
    else if (op % 8 == 2)
        membership(slot, op / 8 % 8, b);
    else if (op % 8 < 5)
        output(slot, op / 8 % 9, b);
    else if (op % 8 == 5)
        op / 8 % 4 == 0 ? slot_close(slot) : pipes(b);
    else if (op % 8 == 6)
        op / 8 % 4 == 0 ? slot_fini(i) : slot_close(slot);
    else
        maps(op / 8 % 14, b);
}

/* -- The world -- */

/* What the library asked of the simulated kernel. */
static void trace(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "%s\n", line);
}

static void world_new(void)
{
    static const char *const engines[] = {"epoll", "epoll", "poll", "select"};
    unsigned engine = take(&run.in), faults = take(&run.in);
    struct asyncore_sim_options options = {.engine = engines[engine & 3]};
    for (int i = 0; i < ASYNCORE_SIM_FAULTS; i++)
        if (faults >> (i < 6 ? i : 6) & 1 && (i < 6 || faults & 128 || (engine >> 2) % 6 == (unsigned)i - 6))
            options.chances[i] = i < 6 ? 50000 : 10000;
    if (tracing)
        options.trace = trace;
    claim(asyncore_sim_new(&run.world, take(&run.in), &options) == 0);
    run.a = asyncore_sim_map(run.world, "a");
    run.b = asyncore_sim_map(run.world, "b");
    claim(run.a != NULL && run.b != NULL);
    claim(asyncore_sim_set_name(run.world, "name.test", "10.0.0.2,fd00::2,10.0.0.1", 60, ASYNCORE_SIM_MS, 0) == 0);
    claim(asyncore_sim_set_name(run.world, "slow.test", NULL, 0, 50 * ASYNCORE_SIM_MS, ASYNCORE_ENAMESERVER) == 0);
}

/* A map in a map, where the engine can. */
static void embed(void)
{
    static const struct asyncore_class class_ = {.name = "embed", .handle_read = on_embed};
    int fd = map_new_on(&run.inner, sim_os(run.world, "a"), NULL) == 0 ? asyncore_map_fd(run.inner) : -ENOTSUP;
    if (fd >= 0 && asyncore_file_dispatcher_init(&run.embed, &class_, run.a) == 0) {
        asyncore_set_borrowed(&run.embed.base);
        asyncore_set_background(&run.embed.base, 1);
        if (asyncore_set_file(&run.embed, fd) == 0)
            return;
        asyncore_fini(&run.embed.base);
    }
    memset(&run.embed, 0, sizeof run.embed);
}

static unsigned descriptors(const char *name)
{
    struct asyncore_sim_usage usage;
    claim(asyncore_sim_usage(run.world, name, &usage) == 0);
    claim(usage.turns < TURNS_MOST);
    return usage.descriptors;
}

static void run_for(uint64_t time)
{
    int result = asyncore_sim_run(run.world, asyncore_sim_now(run.world) + time);
    claim(result >= 0);
    descriptors("a");
    descriptors("b");
}

/* Those that the map would not destroy are ended by hand. */
static void end_all(void)
{
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = run.slots[i];
        if (slot != NULL && (!slot->destroyable || !(slot->u.d.state_ & (S_ADDED | S_DYING)) || i & 1))
            slot_fini(i);
        else if (slot != NULL)
            slot_close(slot);
    }
    for (int i = 0; i < TIMERS; i++)
        asyncore_cancel(&run.timers[i]);
    for (int i = 0; i < 2; i++)
        asyncore_resolve_cancel(&run.lookups[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&run, 0, sizeof run);
    tracing = getenv("FUZZ_TRACE") != NULL;
    run.in = (struct input){data, size};
    world_new();
    embed();
    unsigned on_a = descriptors("a"), on_b_too = descriptors("b");
    for (int i = 0; i < PHASES && !used_up(); i++) {
        for (unsigned n = take(&run.in) % 8; n > 0 && !used_up(); n--)
            apply(take(&run.in) & 1);
        run_for(100 * ASYNCORE_SIM_MS);
    }
    run.in.left = 0;
    run_for(2 * ASYNCORE_SIM_SECOND);
    if (size % 2 == 0) { /* else the maps have to end what is there */
        end_all();
        run_for(100 * ASYNCORE_SIM_MS);
        if (run.inner != NULL)
            claim(asyncore_poll(run.inner, 0) >= 0);
        claim(descriptors("a") == on_a && descriptors("b") == on_b_too);
        claim(run.lent == run.released);
    }
    for (int i = 0; i < SLOTS; i++) { /* what is in no map is nobody's to end but ours */
        struct slot *slot = run.slots[i];
        if (slot != NULL && (!slot->destroyable || !(slot->u.d.state_ & (S_ADDED | S_DYING))))
            slot_fini(i);
    }
    if (run.embed.base.map != NULL)
        claim(asyncore_fini(&run.embed.base) == 0);
    if (run.inner != NULL)
        claim(asyncore_map_free(run.inner) == 0);
    asyncore_sim_free(run.world);
    for (int i = 0; i < SLOTS; i++)
        claim(run.slots[i] == NULL);
    claim(run.lent == run.released);
    return 0;
}
