/* What portforward and systemd tell each other: sockets that were handed over, and states. What is about LISTEN_FDS
 * happens in a child whose descriptors from 3 on are laid out as systemd does. */
/* engine-independent */
/* portforward: notify.c */
#include "../portforward/notify.h"
#include "support.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char directory[64], path[96];

static void in_directory(void)
{
    snprintf(directory, sizeof directory, "%s/forward_notify.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    unsetenv("NOTIFY_SOCKET");
}

static void leave_directory(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(directory), 0);
}

/* -- Sockets to hand over -- */

struct where {
    struct sockaddr_storage address;
    socklen_t length;
};

static const struct sockaddr *address_of(const struct where *where)
{
    return (const struct sockaddr *)&where->address;
}

static int any_socket(int family, int type, const char *host, int v6only, struct where *where)
{
    int fd = socket(family, type, 0);
    ck_assert_int_ge(fd, 0);
    if (family == AF_INET6)
        ck_assert_int_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only), 0);
    ck_assert_int_eq(asyncore_parse_address(host, "0", &where->address, &where->length), 0);
    ck_assert_int_eq(bind(fd, address_of(where), where->length), 0);
    if (family != AF_UNIX) { /* the port; of a Unix name let it be as the program parses it */
        where->length = sizeof where->address;
        ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&where->address, &where->length), 0);
    }
    return fd;
}

static int listener(int family, const char *host, int v6only, struct where *where)
{
    int fd = any_socket(family, SOCK_STREAM, host, v6only, where);
    ck_assert_int_eq(listen(fd, 5), 0);
    return fd;
}

/* -- A service -- */

/* In the child: Check's own files may lie where systemd's sockets go, so even an assertion that holds would do harm. It
 * reports by its exit status. */
#define expect(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            leave_child(1); \
        } \
    } while (0)

static void set_number(const char *name, long number)
{
    char text[24];
    snprintf(text, sizeof text, "%ld", number);
    setenv(name, text, 1);
}

enum { SPARE = 60 }; /* descriptors from here on are the test's */

static void serve(const int *sockets, int count, void (*body)(const struct where *), const struct where *where)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        int spare[8];
        for (int i = 0; i < count; i++)
            spare[i] = fcntl(sockets[i], F_DUPFD_CLOEXEC, SPARE);
        for (int fd = 3; fd < SPARE; fd++)
            close(fd);
        for (int i = 0; i < count; i++)
            expect(dup2(spare[i], 3 + i) == 3 + i && close(spare[i]) == 0);
        set_number("LISTEN_PID", getpid());
        set_number("LISTEN_FDS", count);
        setenv("LISTEN_FDNAMES", "a:b", 1);
        body(where);
        leave_child(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    for (int i = 0; i < count; i++)
        close(sockets[i]);
}

static char unused_text[600];

static void add_unused(void *arg, const char *address)
{
    expect(arg == unused_text);
    strcat(strcat(unused_text, address), "\n");
}

static const char *unused(void)
{
    unused_text[0] = 0;
    notify_close_unused(add_unused, unused_text);
    return unused_text;
}

enum { KINDS = 4 };

static void takes_each_once(const struct where *where)
{
    expect(notify_listen_fds() == KINDS);
    expect(!getenv("LISTEN_PID") && !getenv("LISTEN_FDS") && !getenv("LISTEN_FDNAMES"));
    for (int i = KINDS - 1; i >= 0; i--) {
        expect(fcntl(3 + i, F_GETFD) & FD_CLOEXEC);
        expect(notify_take(address_of(&where[i]), where[i].length) == 3 + i);
        expect(notify_take(address_of(&where[i]), where[i].length) == -1);
    }
    expect(strcmp(unused(), "") == 0);
    for (int i = 0; i < KINDS; i++)
        expect(is_open(3 + i));
    expect(notify_listen_fds() == 0); /* once */
    expect(notify_take(address_of(&where[0]), where[0].length) == -1);
}

START_TEST(a_listener_of_each_family_is_given_once)
{
    struct where where[KINDS];
    char host[128], name[64];
    skip_unless(has_ipv6(), "no IPv6");
    snprintf(host, sizeof host, "unix:%s", path);
    snprintf(name, sizeof name, "unix:@forward_notify.%d", (int)getpid());
    int sockets[KINDS] = {
        listener(AF_INET, "127.0.0.1", 0, &where[0]),
        listener(AF_INET6, "::", 1, &where[1]),
        listener(AF_UNIX, host, 0, &where[2]),
        listener(AF_UNIX, name, 0, &where[3]),
    };
    serve(sockets, KINDS, takes_each_once, where);
}
END_TEST

static int served_clients;

static int close_client(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)address, (void)length;
    served_clients++;
    return asyncore_close_fd(d->map, fd);
}

static void serves_a_client(const struct where *where)
{
    static const struct asyncore_class class_ = {.name = "listener", .handle_accepted = close_client};
    struct asyncore_dispatcher d;
    struct asyncore_map *own;
    expect(asyncore_map_new(&own, NULL) == 0);
    expect(notify_listen_fds() == 1);
    expect(asyncore_dispatcher_init(&d, &class_, own) == 0);
    expect(asyncore_set_socket(&d, notify_take(address_of(where), where->length)) == 0);
    expect(asyncore_listen(&d, 10) == 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(connect(client, address_of(where), where->length) == 0);
    while (!served_clients)
        expect(asyncore_poll(own, 5000) > 0);
    expect(asyncore_poll(own, 0) == 0); /* nobody else: accept does not block */
    expect(asyncore_fini(&d) == 0 && asyncore_map_free(own) == 0);
}

START_TEST(a_listener_that_was_taken_serves)
{
    struct where where;
    int fd = listener(AF_INET, "127.0.0.1", 0, &where);
    serve(&fd, 1, serves_a_client, &where);
}
END_TEST

static void finds_nothing(const struct where *where)
{
    static const char *const numbers[] = {"", "x", "1x", "-1", " 1", "0", "99999999999999999999999", "0x1"};
    char pid[24];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    for (size_t i = 0; i < COUNT(numbers); i++) {
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", numbers[i], 1);
        expect(notify_listen_fds() == 0);
        setenv("LISTEN_PID", numbers[i], 1);
        setenv("LISTEN_FDS", "1", 1);
        expect(notify_listen_fds() == 0);
    }
    set_number("LISTEN_PID", getppid()); /* meant for the parent, and inherited */
    setenv("LISTEN_FDS", "1", 1);
    expect(notify_listen_fds() == 0);
    expect(!getenv("LISTEN_PID") && !getenv("LISTEN_FDS")); /* nor for a child of ours */
    unsetenv("LISTEN_PID");
    setenv("LISTEN_FDS", "1", 1);
    expect(notify_listen_fds() == 0);
    expect(notify_take(address_of(where), where->length) == -1);
    expect(strcmp(unused(), "") == 0);
    expect(is_open(3) && !(fcntl(3, F_GETFD) & FD_CLOEXEC));
}

START_TEST(sockets_for_another_process_are_left_alone)
{
    struct where where;
    int fd = listener(AF_INET, "127.0.0.1", 0, &where);
    serve(&fd, 1, finds_nothing, &where);
}
END_TEST

static void refuses_all(const struct where *where)
{
    char expected[300];
    expect(notify_listen_fds() == 4);
    for (int i = 0; i < 3; i++)
        expect(notify_take(address_of(&where[i]), where[i].length) == -1);
    unused();
    snprintf(expected, sizeof expected, "127.0.0.1:%d\n127.0.0.1:%d\nunix:%s\ndescriptor 6\n",
             ntohs(((const struct sockaddr_in *)&where[0].address)->sin_port),
             ntohs(((const struct sockaddr_in *)&where[1].address)->sin_port), path);
    expect(strcmp(unused_text, expected) == 0);
    for (int fd = 3; fd < 7; fd++)
        expect(!is_open(fd));
    expect(open("/dev/null", O_RDONLY | O_CLOEXEC) == 3);
    expect(strcmp(unused(), "") == 0);
    expect(is_open(3)); /* closed once, not whoever has the number now */
}

START_TEST(what_does_not_listen_for_streams_is_not_given_but_closed)
{
    struct where where[3];
    char host[128];
    snprintf(host, sizeof host, "unix:%s", path);
    int sockets[] = {
        any_socket(AF_INET, SOCK_STREAM, "127.0.0.1", 0, &where[0]), /* does not listen */
        any_socket(AF_INET, SOCK_DGRAM, "127.0.0.1", 0, &where[1]),
        any_socket(AF_UNIX, SOCK_SEQPACKET, host, 0, &where[2]),
        open("/dev/null", O_RDONLY | O_CLOEXEC),
    };
    ck_assert_int_eq(listen(sockets[2], 5), 0); /* though it listens */
    serve(sockets, 4, refuses_all, where);
}
END_TEST

static struct where with_host(const struct where *port, const char *host)
{
    struct where where;
    char text[8];
    snprintf(text, sizeof text, "%d", ntohs(((const struct sockaddr_in *)&port->address)->sin_port)); /* so IPv6's */
    expect(asyncore_parse_address(host, text, &where.address, &where.length) == 0);
    return where;
}

static void refuses_addresses_near_it(const struct where *where)
{
    struct where other = with_host(where, "127.0.0.2"), any = with_host(where, "0.0.0.0"),
                 mapped = with_host(where, "::ffff:127.0.0.1"), port = *where;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char longer[1000] = "";
    ((struct sockaddr_in *)&port.address)->sin_port ^= htons(1);
    expect(notify_listen_fds() == 2);
    expect(notify_take(address_of(&other), other.length) == -1);
    expect(notify_take(address_of(&any), any.length) == -1);
    expect(notify_take(address_of(&mapped), mapped.length) == -1);
    expect(notify_take(address_of(&port), port.length) == -1);
    expect(notify_take((struct sockaddr *)longer, sizeof longer) == -1);
    snprintf(un.sun_path, sizeof un.sun_path, "%s2", path);
    expect(notify_take((struct sockaddr *)&un, sizeof un) == -1);
    un.sun_path[strlen(path) - 1] = 0;
    expect(notify_take((struct sockaddr *)&un, sizeof un) == -1);
    un.sun_path[0] = 0;
    expect(notify_take((struct sockaddr *)&un, offsetof(struct sockaddr_un, sun_path)) == -1);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    expect(notify_take((struct sockaddr *)&un, sizeof un) == 4); /* however the length is counted */
    expect(notify_take(address_of(where), where->length) == 3);
}

START_TEST(another_address_is_another_listener)
{
    struct where where[2];
    char host[128];
    snprintf(host, sizeof host, "unix:%s", path);
    int sockets[] = {listener(AF_INET, "127.0.0.1", 0, &where[0]), listener(AF_UNIX, host, 0, &where[1])};
    serve(sockets, 2, refuses_addresses_near_it, where);
}
END_TEST

static void refuses_both_families_at_once(const struct where *where)
{
    struct where any4 = with_host(where, "0.0.0.0"), loopback = with_host(where, "::1"), port = *where;
    expect(notify_listen_fds() == 1);
    expect(notify_take(address_of(&any4), any4.length) == -EINVAL);
    expect(notify_take(address_of(where), where->length) == -EINVAL);
    expect(notify_take(address_of(&loopback), loopback.length) == -1);
    ((struct sockaddr_in *)&any4.address)->sin_port ^= htons(1);
    ((struct sockaddr_in6 *)&port.address)->sin6_port ^= htons(1);
    expect(notify_take(address_of(&any4), any4.length) == -1);
    expect(notify_take(address_of(&port), port.length) == -1);
    unused();
    expect(strncmp(unused_text, "[::]:", 5) == 0 && !is_open(3));
}

START_TEST(a_listener_for_both_families_is_refused_and_said_so)
{
    struct where where;
    skip_unless(has_ipv6(), "no IPv6");
    int fd = listener(AF_INET6, "::", 0, &where);
    serve(&fd, 1, refuses_both_families_at_once, &where);
}
END_TEST

static void leaves_what_is_not_there(const struct where *where)
{
    set_number("LISTEN_FDS", 20);
    expect(notify_listen_fds() == 20);
    int later = open("/dev/null", O_RDONLY | O_CLOEXEC);
    expect(later == 4);
    expect(notify_take(address_of(where), where->length) == 3);
    expect(strcmp(unused(), "") == 0);
    expect(is_open(later));
    set_number("LISTEN_PID", getpid());
    set_number("LISTEN_FDS", 2000000000);
    expect(notify_listen_fds() <= 4096);
    notify_close_unused(NULL, NULL);
    expect(!is_open(3) && !is_open(4));
}

START_TEST(descriptors_that_are_not_open_are_nobodys_to_close)
{
    struct where where;
    int fd = listener(AF_INET, "127.0.0.1", 0, &where);
    serve(&fd, 1, leaves_what_is_not_there, &where);
}
END_TEST

/* -- States -- */

static int manager(const char *host, const char *variable)
{
    struct where where;
    int fd = any_socket(AF_UNIX, SOCK_DGRAM, host, 0, &where);
    if (host[5] == '@') /* systemd's abstract names have no NUL; nor have the library's */
        ck_assert_uint_eq(where.length, offsetof(struct sockaddr_un, sun_path) + strlen(host + 5));
    setenv("NOTIFY_SOCKET", variable, 1);
    return fd;
}

static const char *told(int fd)
{
    static char text[200];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return text;
}

START_TEST(states_go_to_a_path_or_an_abstract_name)
{
    char host[128];
    snprintf(host, sizeof host, "unix:%s", path);
    if (_i == 1)
        snprintf(host, sizeof host, "unix:@forward_notify.%d", (int)getpid());
    int fd = manager(host, host + 5);
    notify_send("READY=1");
    ck_assert_str_eq(told(fd), "READY=1");
    notify_send("STOPPING=1\nSTATUS=draining");
    ck_assert_str_eq(told(fd), "STOPPING=1\nSTATUS=draining");
    close(fd);
}
END_TEST

START_TEST(a_reload_tells_the_time_that_systemd_wants)
{
    char host[128];
    snprintf(host, sizeof host, "unix:%s", path);
    int fd = manager(host, path);
    unsigned long long before = clock_ns() / 1000, us;
    int end = 0;
    notify_reloading();
    const char *text = told(fd);
    ck_assert_int_eq(sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%llu%n", &us, &end), 1);
    ck_assert_int_eq(text[end], 0);
    ck_assert(us >= before && us <= clock_ns() / 1000);
    close(fd);
}
END_TEST

/* One that does not listen would hold everything up if it could. */
START_TEST(a_manager_that_does_not_listen_holds_nobody_up)
{
    char host[128];
    snprintf(host, sizeof host, "unix:%s", path);
    int fd = manager(host, path);
    for (int i = 0; i < 5000; i++)
        notify_send("STATUS=one more");
    ck_assert_str_eq(told(fd), "STATUS=one more");
    close(fd);
    notify_send("READY=1"); /* nobody is there */
}
END_TEST

START_TEST(a_place_that_is_none_is_ignored)
{
    char host[128];
    snprintf(host, sizeof host, "unix:%s", path);
    static char longest[300];
    const char *const places[] = {"", "/", "@", "vsock:2:1234", "relative/path", longest, "/none/such"};
    memset(longest, '/', sizeof longest - 1);
    int fd = manager(host, strrchr(path, '/') + 1), here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(chdir(directory), 0);
    notify_send("READY=1"); /* relative */
    ck_assert_str_eq(told(fd), "");
    ck_assert_int_eq(fchdir(here), 0);
    close(here);
    close(fd);
    unsetenv("NOTIFY_SOCKET");
    notify_send("READY=1");
    for (size_t i = 0; i < COUNT(places); i++) {
        setenv("NOTIFY_SOCKET", places[i], 1);
        notify_send("READY=1");
        notify_reloading();
    }
}
END_TEST

static void tests(TCase *t)
{
    tcase_add_checked_fixture(t, in_directory, leave_directory);
    tcase_add_test(t, a_listener_of_each_family_is_given_once);
    tcase_add_test(t, a_listener_that_was_taken_serves);
    tcase_add_test(t, sockets_for_another_process_are_left_alone);
    tcase_add_test(t, what_does_not_listen_for_streams_is_not_given_but_closed);
    tcase_add_test(t, another_address_is_another_listener);
    tcase_add_test(t, a_listener_for_both_families_is_refused_and_said_so);
    tcase_add_test(t, descriptors_that_are_not_open_are_nobodys_to_close);
    tcase_add_loop_test(t, states_go_to_a_path_or_an_abstract_name, 0, 2);
    tcase_add_test(t, a_reload_tells_the_time_that_systemd_wants);
    tcase_add_test(t, a_manager_that_does_not_listen_holds_nobody_up);
    tcase_add_test(t, a_place_that_is_none_is_ignored);
}

int main(void)
{
    return run_suite("forward_notify", tests, NULL);
}
