/* test_close_matrix.c: anything closed or finished from within any handler.
 *
 * Every scene has two actors of the same kind that are ready in the same turn, and a listener with a client waiting,
 * ready as well. Whichever actor is served first acts, once: on itself, on the other actor, on the listener or on
 * everything. So what it acts on always has its own event in the batch in hand, or had it already, in either order.
 * From then on a closed channel must hear nothing but one destroy, after the handler returned; a finished one nothing
 * at all: its memory is freed on the spot, and a library that still looks at it is caught by the checkers. */
#include "support.h"
#include <unistd.h>

enum place { IN_READ, IN_WRITE, IN_CONNECT, IN_ACCEPT, IN_TIMER, IN_ERROR };
enum target { SELF, PEER, LISTENER, EVERYTHING, THE_LOOP };
enum way { BY_CLOSE, BY_FINI };

#define TARGETS 5
#define CASES (2 * TARGETS)

enum { FIRST, SECOND, WAITING, CHANNELS };

struct actor {
    struct asyncore_dispatcher base;
    int index;
};

static struct {
    enum place place;
    enum target target;
    enum way way;
    bool acted, in_handler;
    struct actor *channel[CHANNELS];
    bool closed[CHANNELS], finished[CHANNELS];
    int destroyed[CHANNELS];
    struct asyncore_timer timers[2];
    int outside[6], outside_count; /* descriptors of the test's own */
} scene;

#define check(condition) \
    ck_assert_msg(condition, "target %d way %d: %s", (int)scene.target, (int)scene.way, #condition)

static int index_of(struct asyncore_dispatcher *d)
{
    return ((struct actor *)d)->index;
}

/* -- Acting -- */

static void close_one(int index)
{
    check(asyncore_close(&scene.channel[index]->base) == 0);
    scene.closed[index] = true;
}

static void fini_one(int index)
{
    check(asyncore_fini(&scene.channel[index]->base) == 0);
    free(scene.channel[index]);
    scene.channel[index] = NULL;
    scene.finished[index] = true;
}

/* In a handler of its own a channel cannot be finished, and nothing has changed after the attempt. */
static void act_on_self(int self)
{
    if (scene.way == BY_FINI && scene.place == IN_TIMER) {
        fini_one(self);
        return;
    }
    if (scene.way == BY_FINI) {
        check(asyncore_fini(&scene.channel[self]->base) == -EBUSY);
        check(scene.channel[self]->base.fd >= 0);
        return;
    }
    close_one(self);
}

static void act_on_everything(void)
{
    if (scene.way == BY_FINI) {
        check(asyncore_map_free(map) == -EBUSY);
        return;
    }
    check(asyncore_close_all(map) == 0);
    for (int i = 0; i < CHANNELS; i++)
        scene.closed[i] = true;
}

static void act(int self)
{
    int target = scene.target == SELF ? self : scene.target == PEER ? 1 - self : WAITING;
    if (scene.acted)
        return;
    scene.acted = scene.in_handler = true;
    if (scene.target == SELF)
        act_on_self(self);
    else if (scene.target == EVERYTHING)
        act_on_everything();
    else if (scene.target == THE_LOOP)
        check(asyncore_stop(map) == 0);
    else if (scene.way == BY_CLOSE)
        close_one(target);
    else
        fini_one(target);
    for (int i = 0; i < CHANNELS; i++)
        check(scene.destroyed[i] == 0);
}

static void handler_begins(struct asyncore_dispatcher *d)
{
    check(!scene.closed[index_of(d)]);
    check(!scene.finished[index_of(d)]);
}

/* -- The actors' class -- */

static int actor_connect(struct asyncore_dispatcher *d)
{
    handler_begins(d);
    if (scene.place == IN_CONNECT)
        act(index_of(d));
    scene.in_handler = false;
    return 0;
}

static int actor_read(struct asyncore_dispatcher *d)
{
    char data[16];
    handler_begins(d);
    if (scene.place == IN_ERROR && !scene.acted)
        return -EINVAL;
    if (scene.place == IN_READ)
        act(index_of(d));
    scene.in_handler = false;
    return scene.closed[index_of(d)] ? 0 : (int)asyncore_recv(d, data, sizeof data);
}

static int actor_write(struct asyncore_dispatcher *d)
{
    handler_begins(d);
    asyncore_want(d, ASYNCORE_READ);
    if (scene.place == IN_WRITE)
        act(index_of(d));
    scene.in_handler = false;
    return 0;
}

static int actor_accept(struct asyncore_dispatcher *d)
{
    handler_begins(d);
    int fd = asyncore_accept(d, NULL, NULL);
    if (fd >= 0)
        close(fd);
    if (scene.place == IN_ACCEPT && index_of(d) != WAITING)
        act(index_of(d));
    scene.in_handler = false;
    return 0;
}

static const struct asyncore_class actor_class;

static int actor_error(struct asyncore_dispatcher *d, int error)
{
    handler_begins(d);
    check(scene.place == IN_ERROR && error == -EINVAL);
    if (scene.acted)
        return 0;
    act(index_of(d));
    scene.in_handler = false;
    return 0;
}

static int actor_close(struct asyncore_dispatcher *d)
{
    handler_begins(d);
    scene.closed[index_of(d)] = true;
    return asyncore_super(d, &actor_class)->handle_close(d);
}

static void actor_destroy(struct asyncore_dispatcher *d)
{
    int index = index_of(d);
    check(!scene.in_handler);
    check(scene.closed[index] && !scene.finished[index]);
    scene.destroyed[index]++;
    scene.channel[index] = NULL;
    free(d);
}

static const struct asyncore_class actor_class = {
    .name = "actor",
    .handle_connect = actor_connect,
    .handle_read = actor_read,
    .handle_write = actor_write,
    .handle_accept = actor_accept,
    .handle_error = actor_error,
    .handle_close = actor_close,
    .destroy = actor_destroy,
};

/* -- Setting the scene -- */

static struct asyncore_dispatcher *actor_new(int index)
{
    struct actor *a = calloc(1, sizeof *a);
    ck_assert_ptr_nonnull(a);
    a->index = index;
    scene.channel[index] = a;
    check(asyncore_dispatcher_init(&a->base, &actor_class, map) == 0);
    return &a->base;
}

static void keep_outside(int fd)
{
    scene.outside[scene.outside_count++] = fd;
}

static void set_listener(int index)
{
    char port[8];
    struct asyncore_dispatcher *d = actor_new(index);
    check(asyncore_create_socket(d, AF_INET, SOCK_STREAM) == 0);
    check(asyncore_bind(d, "127.0.0.1", "0") == 0);
    check(asyncore_listen(d, 8) == 0);
    channel_port(d, port);
    keep_outside(peer_connect("127.0.0.1", port));
    wait_until(readable_now(d->fd, 0));
}

static void set_connecting(int index)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct asyncore_dispatcher *d = actor_new(index);
    check(asyncore_create_socket(d, AF_INET, SOCK_STREAM) == 0);
    check(asyncore_connect(d, "127.0.0.1", port) == 0);
    keep_outside(peer_accept(listener));
    close(listener);
}

/* The two ends of one connection, both ready. */
static void set_connected(unsigned want)
{
    int fds[2];
    unix_pair(fds);
    set_blocking(fds[1], false);
    for (int i = 0; i < 2; i++) {
        peer_send(fds[i], "x", 1);
        check(asyncore_set_socket(actor_new(i), fds[i]) == 0);
        check(asyncore_want(&scene.channel[i]->base, want) == 0);
    }
}

static void act_in_timer(struct asyncore_timer *timer, void *arg)
{
    (void)arg;
    act((int)(timer - scene.timers));
    scene.in_handler = false;
}

static void set_scene(enum place place, int number)
{
    memset(&scene, 0, sizeof scene);
    scene.place = place;
    scene.target = (enum target)(number / 2);
    scene.way = (enum way)(number % 2);
    set_listener(WAITING);
    for (int i = 0; i < 2; i++)
        if (place == IN_ACCEPT)
            set_listener(i);
        else if (place == IN_CONNECT)
            set_connecting(i);
        else if (place == IN_TIMER)
            check(asyncore_call_later(map, &scene.timers[i], 0, act_in_timer, NULL) == 0);
    if (place != IN_ACCEPT && place != IN_CONNECT)
        set_connected(ASYNCORE_READ | ASYNCORE_WRITE);
}

static void clear_scene(void)
{
    for (int i = 0; i < scene.outside_count; i++)
        close(scene.outside[i]);
    for (int i = 0; i < CHANNELS; i++)
        if (scene.channel[i] != NULL && !scene.closed[i])
            close_one(i);
    turn();
    for (int i = 0; i < CHANNELS; i++)
        check(scene.destroyed[i] == (scene.finished[i] ? 0 : 1));
}

static void play(enum place place, int number)
{
    set_scene(place, number);
    int result = asyncore_loop(map, 20, 6);
    check(scene.acted);
    if (scene.target == THE_LOOP)
        check(result == 1);
    if (scene.target == EVERYTHING && scene.way == BY_CLOSE) {
        check(result == 0);
        for (int i = 0; i < CHANNELS; i++)
            check(scene.destroyed[i] == 1);
    }
    if (scene.target == THE_LOOP && scene.way == BY_FINI) { /* the map is freed with all that is in it */
        for (int i = 0; i < CHANNELS; i++)
            scene.closed[i] = true;
        check(asyncore_map_free(map) == 0);
        check(asyncore_map_new(&map, NULL) == 0);
    }
    clear_scene();
}

START_TEST(anything_closed_in_handle_read)
{
    play(IN_READ, _i);
}
END_TEST

START_TEST(anything_closed_in_handle_write)
{
    play(IN_WRITE, _i);
}
END_TEST

START_TEST(anything_closed_in_handle_connect)
{
    play(IN_CONNECT, _i);
}
END_TEST

START_TEST(anything_closed_in_handle_accept)
{
    play(IN_ACCEPT, _i);
}
END_TEST

START_TEST(anything_closed_in_a_timer)
{
    play(IN_TIMER, _i);
}
END_TEST

START_TEST(anything_closed_in_handle_error)
{
    play(IN_ERROR, _i);
}
END_TEST

/* -- In handle_close and destroy -- */

static int close_other(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    probe_note(p, "close");
    ck_assert_int_eq(asyncore_fini(d), -EBUSY);
    if (p->other != NULL)
        asyncore_close(&p->other->base);
    return asyncore_close(d);
}

static const struct asyncore_class close_other_class = {
    .name = "close other",
    .parent = &probe_class,
    .handle_close = close_other,
};

START_TEST(a_neighbour_closed_in_handle_close)
{
    int a[2], b[2];
    unix_pair(a);
    unix_pair(b);
    struct probe *p = probe_on(&close_other_class, "a", a[0]), *q = probe_on(&close_other_class, "b", b[0]);
    p->other = q;
    q->other = p;
    close(a[1]);
    close(b[1]);
    turn();
    ck_assert_int_eq(p->reads + q->reads, 1);
    ck_assert_int_eq(p->destroys, 1);
    ck_assert_int_eq(q->destroys, 1);
}
END_TEST

static void close_other_in_destroy(struct asyncore_dispatcher *d)
{
    probe_of(d)->destroys++;
    if (probe_of(d)->other != NULL)
        asyncore_close(&probe_of(d)->other->base);
}

static const struct asyncore_class chain_class = {
    .name = "chain",
    .parent = &probe_class,
    .destroy = close_other_in_destroy,
};

START_TEST(channels_that_close_each_other_in_destroy)
{
    int a[2], b[2];
    unix_pair(a);
    unix_pair(b);
    struct probe *p = probe_on(&chain_class, "a", a[0]), *q = probe_on(&chain_class, "b", b[0]);
    p->other = q;
    q->other = p;
    close(a[1]);
    run_until(q->destroys == 1);
    turn();
    ck_assert_int_eq(p->destroys, 1);
    ck_assert_int_eq(q->destroys, 1);
    close(b[1]);
}
END_TEST

/* -- A number that is used again -- */

/* Whichever is served first closes the other, or itself, and takes a new socket of the same number. */
static struct {
    struct probe *channel[2], *fresh;
    int peers[2], fresh_peer;
    bool itself, finish;
} reuse;

static int read_and_replace(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d), *victim = reuse.itself ? p : p->other;
    int fds[2], number = victim->base.fd;
    p->reads++;
    if (reuse.fresh != NULL)
        return 0;
    ck_assert_int_eq(reuse.finish ? asyncore_fini(&victim->base) : asyncore_close(&victim->base), 0);
    unix_pair(fds);
    ck_assert_int_eq(fds[0], number);
    reuse.fresh = probe_on(&probe_class, "", fds[0]);
    asyncore_want(&reuse.fresh->base, ASYNCORE_READ | ASYNCORE_ERROR);
    reuse.fresh_peer = fds[1];
    return 0;
}

static const struct asyncore_class replace_class = {
    .name = "replace",
    .parent = &probe_class,
    .handle_read = read_and_replace,
};

static void set_reuse(bool itself, bool finish, int first)
{
    memset(&reuse, 0, sizeof reuse);
    reuse.itself = itself;
    reuse.finish = finish;
    for (int i = 0; i < 2; i++) {
        int fds[2];
        unix_pair(fds);
        reuse.peers[i] = fds[1];
        reuse.channel[i] = probe_on(&replace_class, "old", fds[0]);
        asyncore_want(&reuse.channel[i]->base, ASYNCORE_READ | ASYNCORE_WRITE);
    }
    reuse.channel[0]->other = reuse.channel[1];
    reuse.channel[1]->other = reuse.channel[0];
    peer_send(reuse.peers[first], "x", 1);
    peer_send(reuse.peers[1 - first], "x", 1);
}

static void assert_no_old_event(void)
{
    turn();
    ck_assert_ptr_nonnull(reuse.fresh);
    ck_assert_int_eq(reuse.fresh->reads + reuse.fresh->writes + reuse.fresh->closes, 0);
    if (!reuse.itself)
        ck_assert_int_eq(reuse.channel[0]->reads + reuse.channel[1]->reads, 1);
    for (int i = 0; i < 2; i++)
        if (reuse.channel[i]->reads != 0 && !reuse.itself)
            ck_assert_int_eq(asyncore_close(&reuse.channel[i]->base), 0);
    turn();
    ck_assert_int_eq(reuse.fresh->reads + reuse.fresh->writes + reuse.fresh->closes, 0);
    peer_send(reuse.fresh_peer, "new", 3);
    run_until(reuse.fresh->bytes == 3);
    close(reuse.fresh_peer);
    close(reuse.peers[0]);
    close(reuse.peers[1]);
}

START_TEST(a_neighbours_number_used_again_in_one_batch_gets_no_old_event)
{
    set_reuse(false, _i / 2, _i % 2);
    assert_no_old_event();
}
END_TEST

START_TEST(its_own_number_used_again_in_one_batch_gets_no_old_event)
{
    set_reuse(true, false, _i);
    assert_no_old_event();
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_loop_test(tests, anything_closed_in_handle_read, 0, CASES);
    tcase_add_loop_test(tests, anything_closed_in_handle_write, 0, CASES);
    tcase_add_loop_test(tests, anything_closed_in_handle_connect, 0, CASES);
    tcase_add_loop_test(tests, anything_closed_in_handle_accept, 0, CASES);
    tcase_add_loop_test(tests, anything_closed_in_a_timer, 0, CASES);
    tcase_add_loop_test(tests, anything_closed_in_handle_error, 0, CASES);
    tcase_add_test(tests, a_neighbour_closed_in_handle_close);
    tcase_add_test(tests, channels_that_close_each_other_in_destroy);
    tcase_add_loop_test(tests, a_neighbours_number_used_again_in_one_batch_gets_no_old_event, 0, 4);
    tcase_add_loop_test(tests, its_own_number_used_again_in_one_batch_gets_no_old_event, 0, 2);
}

int main(void)
{
    return run_suite("close matrix", add_tests, NULL);
}
