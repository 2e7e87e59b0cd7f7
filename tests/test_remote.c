/* engine-independent */
/* test_remote.c: names in the forwarder (portforward/remote.c), in simulated time: when they are looked up, what stays
 * when the resolver fails, which address is next. The file is compiled into this one: its allocations can fail. */
#include <stdbool.h>
#include <stdlib.h>

static int allocations_until_failure = -1; /* -1: none fails */

static bool allocation_fails(void)
{
    return allocations_until_failure >= 0 && allocations_until_failure-- == 0;
}

static void *test_malloc(size_t size)
{
    return allocation_fails() ? NULL : malloc(size);
}

static void *test_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : calloc(count, size);
}

#define malloc test_malloc
#define calloc test_calloc
#include "../portforward/remote.c"
#undef malloc
#undef calloc

#include "asyncore_sim.h"
#include "support.h"
#include <stdarg.h>

static struct asyncore_sim *world;
static struct asyncore_map *here;
static struct asyncore_timer keeper; /* what is in the background does not keep the loop */
static struct remotes *remotes;
static struct asyncore_sim_script script;
static int changes;

void log_event(struct log *log, enum log_priority priority, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    (void)log;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    note("<%d>%s.", (int)priority, text);
}

static void count_changes(void *arg)
{
    ck_assert_ptr_eq(arg, &changes);
    changes++;
}

static void no_time(struct asyncore_timer *timer, void *arg)
{
    (void)timer, (void)arg;
}

static void begin_on(enum asyncore_sim_call call, uint64_t k, int error)
{
    struct asyncore_sim_options options = {.script = &script, .script_count = 1};

    script = (struct asyncore_sim_script){"here", call, k, error};
    changes = 0;
    allocations_until_failure = -1;
    ck_assert_int_eq(asyncore_sim_new(&world, 1, &options), 0);
    here = asyncore_sim_map(world, "here");
    ck_assert_ptr_nonnull(here);
    keeper = (struct asyncore_timer){0};
    ck_assert_int_eq(asyncore_call_later(here, &keeper, 1000000000, no_time, NULL), 0);
    ck_assert_int_eq(remotes_new(&remotes, here, NULL, count_changes, &changes), 0);
}

static void begin(void)
{
    begin_on(ASYNCORE_SIM_ANY, UINT64_MAX, 0);
}

static void end(void)
{
    remotes_free(remotes);
    asyncore_sim_free(world);
}

static void set_name(const char *name, const char *addresses, unsigned ttl, uint64_t delay_ms)
{
    ck_assert_int_eq(asyncore_sim_set_name(world, name, addresses, ttl, delay_ms * ASYNCORE_SIM_MS, 0), 0);
}

static void set_error(const char *name, int error, uint64_t delay_ms)
{
    ck_assert_int_eq(asyncore_sim_set_name(world, name, NULL, 0, delay_ms * ASYNCORE_SIM_MS, error), 0);
}

static void run_to(double seconds)
{
    ck_assert_int_ge(asyncore_sim_run(world, (uint64_t)(seconds * 1e9)), 0);
}

static unsigned asked(enum asyncore_sim_call call)
{
    struct asyncore_sim_usage usage;
    ck_assert_int_eq(asyncore_sim_usage(world, "here", &usage), 0);
    return (unsigned)usage.calls[call];
}

/* How often the name servers were asked. */
static unsigned lookups(void)
{
    return asked(ASYNCORE_SIM_NAMES_START);
}

static struct remote *get(const char *host, const char *port)
{
    struct remote *remote = NULL;
    ck_assert_int_eq(remote_get(remotes, host, port, &remote), 0);
    ck_assert_ptr_nonnull(remote);
    return remote;
}

/* What a connection that began so many seconds ago tries next, if it passes over so many, and how many could follow:
 * "10.9.0.1:80 +1", "none". */
static const char *next_past(struct remote *const *list, unsigned count, double ago, unsigned passed)
{
    static char text[160];
    char address[128];
    unsigned left = 77;
    uint64_t now = asyncore_now(here), start = now - (uint64_t)(ago * 1e9);
    const struct asyncore_address *picked = remotes_pick(list, count, start, now, passed, &left);

    if (picked == NULL) {
        ck_assert_uint_eq(left, 0);
        return "none";
    }
    asyncore_address_text((const struct sockaddr *)&picked->address, picked->length, address, sizeof address);
    snprintf(text, sizeof text, "%s +%u", address, left);
    return text;
}

static const char *next_of(struct remote *const *list, unsigned count, double ago)
{
    return next_past(list, count, ago, 0);
}

static const char *next(struct remote *remote)
{
    return next_of(&remote, 1, 0);
}

static void mark(struct remote *const *list, unsigned count, const char *host)
{
    struct sockaddr_storage address;
    socklen_t length;

    ck_assert_int_eq(asyncore_parse_address(host, "80", &address, &length), 0);
    remotes_failed(list, count, (const struct sockaddr *)&address, length, asyncore_now(here));
}

/* -- When a name is looked up -- */

START_TEST(a_change_is_seen_after_its_ttl_and_not_before)
{
    begin();
    set_name("web.test", "10.9.0.1", 30, 10);
    struct remote *web = get("web.test", "80");
    run_to(1);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +0");
    set_name("web.test", "10.9.0.2", 30, 10);
    run_to(30.009);
    ck_assert_uint_eq(lookups(), 1);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +0");
    assert_notes("");
    run_to(30.1);
    ck_assert_str_eq(next(web), "10.9.0.2:80 +0");
    assert_notes("<5>web.test:80 has changed: 10.9.0.2:80.");
    run_to(100);
    ck_assert_uint_eq(lookups(), 4);
    assert_notes("");
    remote_put(web);
    end();
}
END_TEST

START_TEST(a_ttl_is_at_least_five_seconds)
{
    begin();
    set_name("none.test", "10.9.0.1", 0, 0);
    set_name("two.test", "10.9.0.1", 2, 0);
    get("none.test", "80");
    get("two.test", "80");
    run_to(4.9);
    ck_assert_uint_eq(lookups(), 2);
    run_to(5.1);
    ck_assert_uint_eq(lookups(), 4);
    run_to(100.1);
    ck_assert_uint_eq(lookups(), 42);
    end();
}
END_TEST

START_TEST(a_ttl_is_at_most_an_hour)
{
    begin();
    set_name("web.test", "10.9.0.1", 86400, 0);
    struct remote *web = get("web.test", "80");
    run_to(3599);
    ck_assert_uint_eq(lookups(), 1);
    run_to(3601);
    ck_assert_uint_eq(lookups(), 2);
    remote_put(web);
    end();
}
END_TEST

START_TEST(the_hosts_file_is_read_again_after_an_hour)
{
    begin();
    ck_assert_str_eq(asyncore_sim_address(world, "other", AF_INET), "10.0.0.2");
    struct remote *other = get("other", "80");
    ck_assert(remote_pending(other));
    run_to(3599);
    ck_assert(!remote_pending(other));
    ck_assert_str_eq(next(other), "10.0.0.2:80 +1");
    ck_assert_uint_eq(asked(ASYNCORE_SIM_HOSTS), 1);
    run_to(3601);
    ck_assert_uint_eq(asked(ASYNCORE_SIM_HOSTS), 2);
    ck_assert_uint_eq(lookups(), 0);
    remote_put(other);
    end();
}
END_TEST

START_TEST(what_is_numeric_is_never_looked_up)
{
    static const char *const hosts[] = {"192.0.2.7", "2001:db8::7", "unix:/run/app.sock", "unix:@app"};
    static const char *const firsts[] = {"192.0.2.7:80 +0", "[2001:db8::7]:80 +0", "unix:/run/app.sock +0",
                                         "unix:@app +0"};
    begin();
    for (size_t i = 0; i < COUNT(hosts); i++) {
        struct remote *remote = get(hosts[i], i < 2 ? "80" : "-");
        ck_assert(!remote_pending(remote));
        ck_assert_int_eq(remote_error(remote), 0);
        ck_assert_str_eq(next(remote), firsts[i]);
    }
    run_to(10000);
    ck_assert_uint_eq(asked(ASYNCORE_SIM_HOSTS), 0);
    ck_assert_int_eq(changes, 0);
    assert_notes("");
    end();
}
END_TEST

START_TEST(the_loop_is_not_kept_by_a_name_that_was_found)
{
    begin();
    set_name("web.test", "10.9.0.1", 30, 2000);
    struct remote *web = get("web.test", "80");
    asyncore_cancel(&keeper);
    run_to(1);
    ck_assert_int_eq(asyncore_sim_result(world, "here"), 1); /* by a lookup it is: remotes_free() cancels */
    run_to(3);
    ck_assert(!remote_pending(web));
    ck_assert_int_eq(asyncore_sim_result(world, "here"), 0);
    remote_put(web);
    end();
}
END_TEST

/* -- What fails -- */

START_TEST(a_dead_resolver_leaves_the_last_addresses_and_is_asked_every_five_seconds)
{
    begin();
    set_name("web.test", "10.9.0.1", 10, 0);
    struct remote *web = get("web.test", "80");
    run_to(1);
    set_error("web.test", ASYNCORE_ENAMESERVER, 1000);
    run_to(9.9);
    assert_notes("");
    run_to(11.1); /* asked at 10, failed at 11; then 16 and 17, 22 and 23, 28 */
    assert_notes("<4>web.test:80 is not found: no name server answers; its last addresses stay in use.");
    run_to(27.9);
    ck_assert_uint_eq(lookups(), 4);
    run_to(28.9);
    ck_assert_uint_eq(lookups(), 5);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +0");
    ck_assert_int_eq(remote_error(web), 0);
    set_name("web.test", "10.9.0.1", 10, 0);
    assert_notes("");
    run_to(29.1);
    assert_notes("<5>web.test:80 is found: 10.9.0.1:80.");
    ck_assert_int_eq(changes, 1);
    run_to(60);
    assert_notes("");
    remote_put(web);
    end();
}
END_TEST

START_TEST(a_slow_lookup_is_not_asked_for_twice)
{
    begin();
    set_name("web.test", "10.9.0.1", 5, 60000);
    struct remote *web = get("web.test", "80");
    run_to(59.9);
    ck_assert_uint_eq(lookups(), 1);
    ck_assert(remote_pending(web));
    ck_assert_str_eq(next(web), "none");
    run_to(60.1);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +0");
    run_to(64.9);
    ck_assert_uint_eq(lookups(), 1);
    run_to(65.1);
    ck_assert_uint_eq(lookups(), 2);
    assert_notes("");
    remote_put(web);
    end();
}
END_TEST

START_TEST(a_name_that_is_absent_at_first_is_served_once_it_is_there)
{
    begin();
    struct remote *web = get("web.test", "80");
    ck_assert_int_eq(remote_error(web), -EAGAIN);
    run_to(1);
    ck_assert(!remote_pending(web));
    ck_assert_int_eq(remote_error(web), ASYNCORE_ENONAME);
    ck_assert_str_eq(next(web), "none");
    assert_notes("<4>web.test:80 is not found: name not found; it has no address so far.");
    run_to(12);
    ck_assert_uint_eq(lookups(), 3);
    assert_notes("");
    set_error("web.test", ASYNCORE_ENAMESERVER, 0);
    run_to(16);
    ck_assert_int_eq(remote_error(web), ASYNCORE_ENAMESERVER);
    assert_notes("<4>web.test:80 is not found: no name server answers; it has no address so far.");
    set_name("web.test", "10.9.0.1,fd09::1", 30, 0);
    run_to(21);
    ck_assert_int_eq(remote_error(web), 0);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +1");
    assert_notes("<5>web.test:80 is found: 10.9.0.1:80, [fd09::1]:80.");
    ck_assert_int_eq(changes, 1);
    remote_put(web);
    end();
}
END_TEST

START_TEST(a_name_that_is_gone_keeps_its_addresses)
{
    begin();
    set_name("web.test", "10.9.0.1", 5, 0);
    struct remote *web = get("web.test", "80");
    run_to(1);
    set_error("web.test", ASYNCORE_ENONAME, 0);
    run_to(31);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +0");
    ck_assert_int_eq(remote_error(web), 0);
    assert_notes("<4>web.test:80 is not found: name not found; its last addresses stay in use.");
    set_name("web.test", "10.9.0.3", 5, 0);
    run_to(37);
    ck_assert_str_eq(next(web), "10.9.0.3:80 +0");
    assert_notes("<5>web.test:80 is found: 10.9.0.3:80.");
    remote_put(web);
    end();
}
END_TEST

START_TEST(bad_input_is_refused_and_leaves_nothing)
{
    static char long_name[300];
    static const struct {
        const char *host, *port;
        int error;
    } bad[] = {{"", "80", ASYNCORE_EHOST},          {"*", "80", ASYNCORE_EHOST},
               {"web.test", "http", ASYNCORE_EPORT}, {"web.test", "65536", ASYNCORE_EPORT},
               {"192.0.2.1", "-", ASYNCORE_EPORT},   {"unix:", "-", ASYNCORE_EHOST},
               {long_name, "80", ASYNCORE_EHOST}};
    memset(long_name, 'a', sizeof long_name - 1);
    begin();
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct remote *none = (struct remote *)&bad;
        ck_assert_int_eq(remote_get(remotes, bad[i].host, bad[i].port, &none), bad[i].error);
        ck_assert_ptr_eq(none, &bad);
    }
    run_to(20);
    ck_assert_uint_eq(lookups(), 0);
    end();
}
END_TEST

START_TEST(no_name_server_at_the_start_is_an_answer)
{
    begin_on(ASYNCORE_SIM_NAMES_START, 1, ASYNCORE_ENAMESERVER);
    set_name("web.test", "10.9.0.1", 5, 0);
    struct remote *web = get("web.test", "80");
    ck_assert(!remote_pending(web));
    ck_assert_int_eq(remote_error(web), ASYNCORE_ENAMESERVER);
    run_to(5.1);
    ck_assert_str_eq(next(web), "10.9.0.1:80 +0");
    ck_assert_int_eq(changes, 0);
    remote_put(web);
    end();
}
END_TEST

/* -- Who hears, who shares -- */

START_TEST(changed_is_called_once_a_remote)
{
    begin();
    set_name("a.test", "10.9.0.1", 5, 1000);
    set_name("b.test", "10.9.0.2", 5, 2000);
    set_error("c.test", ASYNCORE_ENAMESERVER, 3000);
    struct remote *all[] = {get("a.test", "80"), get("b.test", "80"), get("c.test", "80")};
    ck_assert_int_eq(changes, 0);
    for (int i = 0; i < 3; i++) {
        ck_assert(remote_pending(all[i]));
        run_to(i + 1.1);
        ck_assert(!remote_pending(all[i]));
        ck_assert_int_eq(changes, i + 1);
    }
    set_name("a.test", "10.9.0.7", 5, 0);
    set_name("c.test", "10.9.0.8", 5, 0);
    run_to(100);
    ck_assert_int_eq(changes, 3);
    ck_assert_str_eq(next(all[2]), "10.9.0.8:80 +0");
    end();
    forget_notes();
}
END_TEST

START_TEST(a_name_and_its_port_are_one_remote)
{
    begin();
    set_name("web.test", "10.9.0.1", 5, 0);
    struct remote *web = get("web.test", "80");
    ck_assert_ptr_eq(get("web.test", "80"), web);
    ck_assert_ptr_ne(get("web.test", "81"), web);
    ck_assert_str_eq(remote_host(web), "web.test");
    ck_assert_str_eq(remote_port(web), "80");
    remote_put(get("web.test", "81"));
    remote_put(get("web.test", "81")); /* there was one reference before */
    run_to(1);
    ck_assert_uint_eq(lookups(), 2);
    remote_put(get("web.test", "81"));
    remote_put(web);
    run_to(6);
    ck_assert_uint_eq(lookups(), 4);
    ck_assert_ptr_eq(get("web.test", "80"), web);
    remote_put(web);
    remote_put(web); /* the last */
    run_to(11);
    ck_assert_uint_eq(lookups(), 5);
    end();
}
END_TEST

START_TEST(many_remotes_are_found_again)
{
    static struct remote *list[5000];
    char host[32], port[32];

    begin();
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < COUNT(list); i++) {
            snprintf(host, sizeof host, "10.%zu.%zu.1", i < 2500 ? 0 : i / 250, i < 2500 ? 0 : i % 250);
            snprintf(port, sizeof port, "%zu", i < 2500 ? i : 80);
            struct remote *remote = get(host, port);
            ck_assert(round == 0 || remote == list[i]);
            list[i] = remote;
        }
    for (size_t i = 0; i < COUNT(list); i++) {
        ck_assert_uint_eq(list[i]->references, 2);
        remote_put(list[i]);
        if (i % 3 != 0)
            remote_put(list[i]);
    }
    for (size_t i = 0; i < COUNT(list); i += 3)
        remote_put(list[i]);
    for (size_t i = 0; i < CHAINS; i++)
        ck_assert_ptr_null(remotes->chains[i]);
    end();
}
END_TEST

START_TEST(a_remote_may_go_while_it_is_looked_up)
{
    begin();
    set_name("web.test", "10.9.0.1", 5, 3000);
    struct remote *first = get("web.test", "80");
    run_to(1);
    remote_put(first);
    run_to(10);
    ck_assert_int_eq(changes, 0);
    get("web.test", "80");
    get("web.test", "81");
    run_to(11);
    remotes_free(remotes);
    run_to(20);
    ck_assert_int_eq(changes, 0);
    remotes = NULL;
    end();
}
END_TEST

static void put_the_rest(void *arg)
{
    struct remote **list = arg;
    changes++;
    for (int i = 0; i < 3; i++)
        if (list[i] != NULL)
            remote_put(list[i]);
    memset(list, 0, 3 * sizeof *list);
}

START_TEST(whoever_is_told_of_a_change_may_let_go_of_all_remotes)
{
    struct remote *list[3];

    begin();
    remotes_free(remotes);
    ck_assert_int_eq(remotes_new(&remotes, here, NULL, put_the_rest, list), 0);
    set_name("web.test", "10.9.0.1", 5, 3000);
    list[0] = get("web.test", "80");
    list[1] = get("web.test", "81");
    list[2] = get("web.test", "82");
    run_to(20);
    ck_assert_int_eq(changes, 1);
    ck_assert_uint_eq(lookups(), 3);
    end();
}
END_TEST

/* -- Which address -- */

START_TEST(addresses_are_tried_in_order_and_once)
{
    begin();
    set_name("a.test", "10.9.0.1,10.9.0.2", 3600, 0);
    struct remote *list[] = {get("a.test", "80"), get("10.9.0.3", "80")};
    run_to(100);
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.1:80 +2");
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.1:80 +2"); /* to ask changes nothing */
    mark(list, 2, "10.9.0.1");
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.2:80 +1");
    mark(list, 2, "10.9.0.2");
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.3:80 +0");
    ck_assert_str_eq(next_of(list, 2, 50), "10.9.0.3:80 +0");
    mark(list, 2, "10.9.0.3");
    ck_assert_str_eq(next_of(list, 2, 0), "none");
    ck_assert_str_eq(next_of(list, 2, 50), "none");
    end();
}
END_TEST

START_TEST(what_failed_lately_is_tried_last)
{
    begin();
    set_name("a.test", "10.9.0.1,10.9.0.2", 3600, 0);
    struct remote *list[] = {get("a.test", "80"), get("10.9.0.3", "80")};
    run_to(100);
    mark(list, 2, "10.9.0.1");
    run_to(101);
    ck_assert_str_eq(next_of(list, 2, 0.5), "10.9.0.2:80 +2");
    ck_assert_str_eq(next_of(list, 2, 1.5), "10.9.0.2:80 +1"); /* it began before that failure */
    mark(list, 2, "10.9.0.2");
    mark(list, 2, "10.9.0.3");
    ck_assert_str_eq(next_of(list, 2, 0.5), "10.9.0.1:80 +0"); /* better than none */
    run_to(109.9);
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.1:80 +2"); /* all of them failed: in order */
    run_to(110.1);
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.1:80 +2");
    mark(list, 2, "10.9.0.1");
    run_to(112);
    ck_assert_str_eq(next_of(list, 2, 0), "10.9.0.2:80 +2");
    end();
}
END_TEST

START_TEST(what_failed_at_this_moment_is_there_for_who_comes_after_that)
{
    begin();
    struct remote *list[] = {get("10.9.0.1", "80"), get("10.9.0.2", "80")};
    uint64_t first, second, now;
    unsigned left;
    run_to(100);
    now = asyncore_now(here);
    first = remotes_start(list, 2, now);
    mark(list, 2, "10.9.0.1");
    mark(list, 2, "10.9.0.2");
    second = remotes_start(list, 2, now);
    ck_assert_uint_eq(first, now);
    ck_assert_ptr_null(remotes_pick(list, 2, first, now, 0, &left));
    ck_assert_ptr_nonnull(remotes_pick(list, 2, second, now, 0, &left));
    mark(list, 2, "10.9.0.1");
    ck_assert_ptr_nonnull(remotes_pick(list, 2, second, now, 0, &left));
    mark(list, 2, "10.9.0.2");
    ck_assert_ptr_null(remotes_pick(list, 2, second, now, 0, &left)); /* by its own tries */
    run_to(101);
    ck_assert_uint_eq(remotes_start(list, 2, asyncore_now(here)), asyncore_now(here));
    end();
}
END_TEST

START_TEST(what_is_passed_over_is_no_failure)
{
    begin();
    struct remote *list[] = {get("10.9.0.1", "80"), get("10.9.0.2", "80"), get("10.9.0.3", "80")};
    run_to(100);
    ck_assert_str_eq(next_past(list, 3, 0, 1), "10.9.0.2:80 +1");
    ck_assert_str_eq(next_past(list, 3, 0, 2), "10.9.0.3:80 +0");
    ck_assert_str_eq(next_past(list, 3, 0, 3), "none");
    ck_assert_str_eq(next_of(list, 3, 0), "10.9.0.1:80 +2");
    mark(list, 3, "10.9.0.1");
    run_to(101);
    ck_assert_str_eq(next_past(list, 3, 0, 2), "10.9.0.1:80 +0"); /* it is the last now */
    ck_assert_str_eq(next_past(list, 3, 2, 2), "none");
    end();
}
END_TEST

START_TEST(an_address_fails_wherever_it_stands)
{
    begin();
    set_name("a.test", "10.9.0.1,10.9.0.2", 3600, 0);
    struct remote *list[] = {get("a.test", "80"), get("10.9.0.1", "80"), get("10.9.0.1", "81")};
    run_to(1);
    mark(list, 3, "10.9.0.1");
    ck_assert_str_eq(next_of(list, 3, 0), "10.9.0.2:80 +1");
    mark(list, 3, "10.9.0.2");
    ck_assert_str_eq(next_of(list, 3, 0), "10.9.0.1:81 +0");
    mark(list, 3, "10.9.0.99"); /* nobody's */
    end();
}
END_TEST

START_TEST(a_failure_is_remembered_over_a_new_answer)
{
    begin();
    set_name("a.test", "10.9.0.1,10.9.0.2", 5, 0);
    struct remote *a = get("a.test", "80");
    run_to(1);
    set_name("a.test", "10.9.0.4,10.9.0.1,10.9.0.3", 5, 0);
    run_to(4);
    mark(&a, 1, "10.9.0.1");
    mark(&a, 1, "10.9.0.2");
    run_to(6);
    ck_assert_str_eq(next(a), "10.9.0.4:80 +2");
    ck_assert_str_eq(next_of(&a, 1, 3), "10.9.0.4:80 +1"); /* 10.9.0.1 failed since, and 10.9.0.2 is gone */
    mark(&a, 1, "10.9.0.4");
    ck_assert_str_eq(next(a), "10.9.0.3:80 +1");
    assert_notes("<5>a.test:80 has changed: 10.9.0.4:80, 10.9.0.1:80, 10.9.0.3:80.");
    run_to(14.5);
    ck_assert_str_eq(next(a), "10.9.0.1:80 +2");
    end();
}
END_TEST

START_TEST(another_order_is_taken_but_is_no_news)
{
    begin();
    set_name("a.test", "10.9.0.1,10.9.0.2", 5, 0);
    struct remote *a = get("a.test", "80");
    run_to(1);
    set_name("a.test", "10.9.0.2,10.9.0.1", 5, 0);
    run_to(6);
    ck_assert_str_eq(next(a), "10.9.0.2:80 +1");
    assert_notes("");
    set_name("a.test", "10.9.0.1", 5, 0); /* one less is news */
    run_to(11);
    assert_notes("<5>a.test:80 has changed: 10.9.0.1:80.");
    end();
}
END_TEST

START_TEST(an_answer_is_taken_once_an_address_and_within_bounds)
{
    struct asyncore_address many[200];
    char host[32];

    begin();
    set_error("a.test", ASYNCORE_ENONAME, 0);
    struct remote *a = get("a.test", "80");
    run_to(1);
    forget_notes();
    for (size_t i = 0; i < COUNT(many); i++) { /* each three times */
        memset(&many[i], 0, sizeof many[i]);
        snprintf(host, sizeof host, "10.9.0.%zu", i / 3);
        ck_assert_int_eq(asyncore_parse_address(host, "80", &many[i].address, &many[i].length), 0);
        many[i].ttl = i == 150 ? 7 : 40;
    }
    answered(NULL, 0, many, COUNT(many), a);
    ck_assert_str_eq(next(a), "10.9.0.0:80 +63");
    assert_notes("<5>a.test:80 is found: 10.9.0.0:80, 10.9.0.1:80, 10.9.0.2:80, 10.9.0.3:80 and 60 more.");
    run_to(7.9);
    ck_assert_uint_eq(lookups(), 1);
    run_to(8.1); /* the shortest TTL counts */
    ck_assert_uint_eq(lookups(), 2);
    forget_notes();
    end();
}
END_TEST

/* -- Memory -- */

START_TEST(without_memory_there_is_no_remote_and_nothing_is_left)
{
    struct remotes *none = NULL;
    struct remote *remote = NULL;

    begin();
    allocations_until_failure = 0;
    ck_assert_int_eq(remotes_new(&none, here, NULL, count_changes, &changes), -ENOMEM);
    for (int k = 0; k < 2; k++) {
        allocations_until_failure = k;
        ck_assert_int_eq(remote_get(remotes, "10.9.0.1", "80", &remote), -ENOMEM);
    }
    allocations_until_failure = 0;
    ck_assert_int_eq(remote_get(remotes, "web.test", "80", &remote), -ENOMEM);
    ck_assert_ptr_null(remote);
    for (size_t i = 0; i < CHAINS; i++)
        ck_assert_ptr_null(remotes->chains[i]);
    end();
}
END_TEST

START_TEST(an_answer_that_there_is_no_memory_for_leaves_the_last_one)
{
    begin();
    set_name("a.test", "10.9.0.1", 5, 0);
    struct remote *a = get("a.test", "80");
    run_to(1);
    set_name("a.test", "10.9.0.2", 5, 0);
    allocations_until_failure = 0;
    run_to(6);
    ck_assert_int_eq(allocations_until_failure, -1);
    ck_assert_str_eq(next(a), "10.9.0.1:80 +0");
    assert_notes("<4>a.test:80 is not found: Cannot allocate memory; its last addresses stay in use.");
    run_to(11);
    ck_assert_str_eq(next(a), "10.9.0.2:80 +0");
    assert_notes("<5>a.test:80 is found: 10.9.0.2:80.");
    end();
}
END_TEST

/* Each call of the library's that can fail does, in a minute of a name whose address changes. */
START_TEST(no_call_that_fails_ends_the_looking_up)
{
    static const struct {
        enum asyncore_sim_call call;
        int error;
    } faults[] = {{ASYNCORE_SIM_ALLOC, -ENOMEM},
                  {ASYNCORE_SIM_NAMES_OPEN, -ENOMEM},
                  {ASYNCORE_SIM_NAMES_START, -ENOMEM},
                  {ASYNCORE_SIM_HOSTS, -EMFILE}};
    int refused = 0, later = 0;

    for (size_t f = 0; f < COUNT(faults); f++)
        for (uint64_t k = 1; k < 12; k++) {
            struct remote *a = NULL;
            begin();
            script.call = faults[f].call;
            script.error = faults[f].error;
            script.k = asked(faults[f].call) + k; /* of what follows */
            set_name("a.test", "10.9.0.1", 5, 10);
            int error = remote_get(remotes, "a.test", "80", &a);
            if (error < 0) {
                ck_assert_int_eq(error, faults[f].error);
                refused++;
                a = get("a.test", "80");
            }
            for (int i = 1; i < 6; i++) {
                run_to(i * 11);
                char address[16], expected[32];
                snprintf(expected, sizeof expected, "10.9.0.%d:80 +0", i);
                ck_assert_str_eq(next(a), expected);
                snprintf(address, sizeof address, "10.9.0.%d", i + 1);
                set_name("a.test", address, 5, 10);
            }
            later += strstr(notes(), "stay in use") != NULL;
            ck_assert_int_eq(changes, 1);
            forget_notes();
            remote_put(a);
            end();
        }
    ck_assert_int_ge(refused, 2);
    ck_assert_int_ge(later, 3);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_change_is_seen_after_its_ttl_and_not_before);
    tcase_add_test(tests, a_ttl_is_at_least_five_seconds);
    tcase_add_test(tests, a_ttl_is_at_most_an_hour);
    tcase_add_test(tests, the_hosts_file_is_read_again_after_an_hour);
    tcase_add_test(tests, what_is_numeric_is_never_looked_up);
    tcase_add_test(tests, the_loop_is_not_kept_by_a_name_that_was_found);
    tcase_add_test(tests, a_dead_resolver_leaves_the_last_addresses_and_is_asked_every_five_seconds);
    tcase_add_test(tests, a_slow_lookup_is_not_asked_for_twice);
    tcase_add_test(tests, a_name_that_is_absent_at_first_is_served_once_it_is_there);
    tcase_add_test(tests, a_name_that_is_gone_keeps_its_addresses);
    tcase_add_test(tests, bad_input_is_refused_and_leaves_nothing);
    tcase_add_test(tests, no_name_server_at_the_start_is_an_answer);
    tcase_add_test(tests, changed_is_called_once_a_remote);
    tcase_add_test(tests, a_name_and_its_port_are_one_remote);
    tcase_add_test(tests, many_remotes_are_found_again);
    tcase_add_test(tests, a_remote_may_go_while_it_is_looked_up);
    tcase_add_test(tests, whoever_is_told_of_a_change_may_let_go_of_all_remotes);
    tcase_add_test(tests, addresses_are_tried_in_order_and_once);
    tcase_add_test(tests, what_failed_lately_is_tried_last);
    tcase_add_test(tests, what_failed_at_this_moment_is_there_for_who_comes_after_that);
    tcase_add_test(tests, what_is_passed_over_is_no_failure);
    tcase_add_test(tests, an_address_fails_wherever_it_stands);
    tcase_add_test(tests, a_failure_is_remembered_over_a_new_answer);
    tcase_add_test(tests, another_order_is_taken_but_is_no_news);
    tcase_add_test(tests, an_answer_is_taken_once_an_address_and_within_bounds);
    tcase_add_test(tests, without_memory_there_is_no_remote_and_nothing_is_left);
    tcase_add_test(tests, an_answer_that_there_is_no_memory_for_leaves_the_last_one);
    tcase_add_test(tests, no_call_that_fails_ends_the_looking_up);
}

int main(void)
{
    return run_suite("remote", add, NULL);
}
