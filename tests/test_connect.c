/* test_connect.c: channels that connect, names and their addresses.
 *
 * Names are answered by a name server of the test's own: a datagram channel in the same map, which knows the few names
 * in `zone`. */
#include "support.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

static struct probe *connecting(const struct asyncore_class *class_, const char *host, const char *port)
{
    struct probe *p = probe_new(class_, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, host, port), 0);
    ck_assert_int_eq(asyncore_connected(&p->base), 0);
    assert_notes("");
    return p;
}

/* -- It works -- */

static void assert_talks(struct probe *p, int listener)
{
    char data[8];
    ck_assert_int_eq(asyncore_connecting(&p->base), 1);
    run_until(p->connects == 1);
    ck_assert_int_eq(asyncore_connected(&p->base), 1);
    ck_assert_int_eq(asyncore_connecting(&p->base), 0);
    int peer = peer_accept(listener);
    ck_assert_int_eq((int)asyncore_send(&p->base, "ping", 4), 4);
    ck_assert_uint_eq(peer_recv(peer, data, 4), 4);
    peer_send(peer, "pong", 4);
    run_until(p->bytes == 4);
    close(peer);
    run_until(p->destroys == 1);
    assert_notes("connect read read close destroy");
    ck_assert_int_eq(p->connects, 1);
    close(listener);
}

START_TEST(connects_over_tcp)
{
    const char *host = _i == 0 ? "127.0.0.1" : "::1";
    char port[8] = "0";
    skip_unless(_i == 0 || has_ipv6(), "no IPv6 here");
    int listener = peer_listen(host, port);
    assert_talks(connecting(&probe_class, host, port), listener);
}
END_TEST

START_TEST(connects_to_a_sockaddr)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect_sockaddr(&p->base, (struct sockaddr *)&address, sizeof address), 0);
    assert_notes("");
    assert_talks(p, listener);
}
END_TEST

static int unix_listener(const char *name, size_t length)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, name, length);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

START_TEST(connects_to_a_unix_socket_by_path)
{
    char directory[] = "/tmp/asyncore-XXXXXX", path[64], host[80];
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    snprintf(host, sizeof host, "unix:%s", path);
    int listener = unix_listener(path, strlen(path));
    assert_talks(connecting(&probe_class, host, ""), listener);
    unlink(path);
    rmdir(directory);
}
END_TEST

START_TEST(connects_to_an_abstract_unix_socket)
{
    char name[64], host[80];
    snprintf(name + 1, sizeof name - 1, "asyncore-test-%ld", (long)getpid());
    name[0] = '\0';
    snprintf(host, sizeof host, "unix:@%s", name + 1);
    int listener = unix_listener(name, 1 + strlen(name + 1));
    assert_talks(connecting(&probe_class, host, ""), listener);
}
END_TEST

/* A Unix socket connects at once. Whoever asks it again is told of the listener, which may be full or gone by then. */
START_TEST(a_unix_connection_stands_whatever_became_of_its_listener)
{
    char name[64], host[80];
    snprintf(name + 1, sizeof name - 1, "asyncore-stands-%ld", (long)getpid());
    name[0] = '\0';
    snprintf(host, sizeof host, "unix:@%s", name + 1);
    int listener = unix_listener(name, 1 + strlen(name + 1));
    ck_assert_int_eq(listen(listener, 0), 0);
    struct probe *first = connecting(&probe_class, host, ""); /* and the queue is full */
    run_until(first->connects == 1);
    forget_notes();
    int peer = peer_accept(listener);
    struct probe *second = connecting(&probe_class, host, "");
    close(peer_accept(listener));
    close(listener);
    run_until(second->destroys == 1);
    ck_assert_int_eq(second->connects, 1);
    ck_assert_int_eq(first->errors + second->errors, 0);
    close(peer);
    run_until(first->destroys == 1);
}
END_TEST

START_TEST(handle_connect_comes_once_and_first_when_the_server_speaks_first_and_hangs_up)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = connecting(&probe_class, "127.0.0.1", port);
    int peer = peer_accept(listener);
    peer_send(peer, "welcome", 7);
    close(peer);
    wait_until(waiting_bytes(p->base.fd) == 7);
    run_until(p->destroys == 1);
    assert_notes("connect read read close destroy");
    ck_assert_uint_eq(p->bytes, 7);
    close(listener);
}
END_TEST

START_TEST(a_channel_that_wants_nothing_is_told_of_its_connect)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = connecting(&probe_class, "127.0.0.1", port);
    asyncore_want(&p->base, 0);
    run_until(p->connects == 1);
    assert_idle_for(30);
    assert_notes("connect");
    close(listener);
}
END_TEST

static int connect_fails(struct asyncore_dispatcher *d)
{
    (void)d;
    return -EPROTO;
}

static const struct asyncore_class refusing_class = {
    .name = "refusing",
    .parent = &probe_class,
    .handle_connect = connect_fails,
};

START_TEST(an_error_of_handle_connect_goes_to_handle_error)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = connecting(&refusing_class, "127.0.0.1", port);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -EPROTO);
    close(listener);
}
END_TEST

START_TEST(send_before_handle_connect_is_enotconn)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = connecting(&probe_class, "127.0.0.1", port);
    ck_assert_int_eq((int)asyncore_send(&p->base, "x", 1), -ENOTCONN);
    run_until(p->connects == 1);
    assert_notes("connect");
    close(listener);
}
END_TEST

static void add_success(TCase *tests)
{
    tcase_add_loop_test(tests, connects_over_tcp, 0, 2);
    tcase_add_test(tests, connects_to_a_sockaddr);
    tcase_add_test(tests, connects_to_a_unix_socket_by_path);
    tcase_add_test(tests, connects_to_an_abstract_unix_socket);
    tcase_add_test(tests, a_unix_connection_stands_whatever_became_of_its_listener);
    tcase_add_test(tests, handle_connect_comes_once_and_first_when_the_server_speaks_first_and_hangs_up);
    tcase_add_test(tests, a_channel_that_wants_nothing_is_told_of_its_connect);
    tcase_add_test(tests, an_error_of_handle_connect_goes_to_handle_error);
    tcase_add_test(tests, send_before_handle_connect_is_enotconn);
}

/* -- It fails -- */

START_TEST(a_refused_connect_is_told_by_the_loop)
{
    char port[8];
    int refusing = refusing_port(port);
    struct probe *p = connecting(&probe_class, "127.0.0.1", port);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -ECONNREFUSED);
    ck_assert_int_eq(asyncore_error(&p->base), -ECONNREFUSED);
    close(refusing);
}
END_TEST

START_TEST(a_missing_unix_socket_is_told_by_the_loop)
{
    struct probe *p = connecting(&probe_class, "unix:/nonexistent/asyncore/socket", "");
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -ENOENT);
}
END_TEST

START_TEST(wrong_arguments_begin_nothing)
{
    static const struct {
        const char *host, *port;
        int error;
    } wrong[] = {
        {"127.0.0.1", "65536", ASYNCORE_EPORT}, {"127.0.0.1", "-1", ASYNCORE_EPORT}, {"127.0.0.1", "", ASYNCORE_EPORT},
        {"127.0.0.1", "http ", ASYNCORE_EPORT}, {"localhost", "80x", ASYNCORE_EPORT},
    };
    char port[8] = "0";
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_UNSPEC, SOCK_STREAM), 0);
    for (size_t i = 0; i < COUNT(wrong); i++)
        ck_assert_int_eq(asyncore_connect(&p->base, wrong[i].host, wrong[i].port), wrong[i].error);
    turn();
    assert_notes("");
    int listener = peer_listen("127.0.0.1", port);
    ck_assert_int_eq(asyncore_connect(&p->base, "127.0.0.1", port), 0);
    assert_talks(p, listener);
}
END_TEST

START_TEST(a_connect_that_nobody_answers_ends_with_the_idle_timeout)
{
    char port[8];
    int fillers[16], count;
    int listener = full_listener(port, fillers, &count);
    skip_unless(count < 16, "this kernel does not let a full listener's clients wait");
    struct probe *p = connecting(&probe_class, "127.0.0.1", port);
    uint64_t begin = clock_ns();
    ck_assert_int_eq(asyncore_set_idle_timeout(&p->base, 50), 0);
    run_until(p->destroys == 1);
    ck_assert_uint_ge(clock_ns() - begin, 50000000u);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -ETIMEDOUT);
    for (int i = 0; i < count; i++)
        close(fillers[i]);
    close(listener);
}
END_TEST

START_TEST(closed_while_connecting)
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    struct probe *p = connecting(&probe_class, "127.0.0.1", port);
    ck_assert_int_eq(_i == 0 ? asyncore_close(&p->base) : asyncore_fini(&p->base), 0);
    run_for(20);
    assert_notes(_i == 0 ? "destroy" : "");
    close(listener);
}
END_TEST

static const struct asyncore_class again_class;
static char again_port[8];

static int connect_again(struct asyncore_dispatcher *d)
{
    note("close");
    asyncore_close(d);
    ck_assert_int_eq(asyncore_create_socket(d, AF_INET, SOCK_STREAM), 0);
    return asyncore_connect(d, "127.0.0.1", again_port);
}

static int note_connect(struct asyncore_dispatcher *d)
{
    (void)d;
    note("connect");
    return 0;
}

static const struct asyncore_class again_class = {
    .name = "again",
    .handle_connect = note_connect,
    .handle_close = connect_again,
};

START_TEST(a_channel_connects_again_from_its_handle_close)
{
    char refused[8];
    struct asyncore_dispatcher d;
    strcpy(again_port, "0");
    int refusing = refusing_port(refused);
    int listener = peer_listen("127.0.0.1", again_port);
    ck_assert_int_eq(asyncore_dispatcher_init(&d, &again_class, map), 0);
    ck_assert_int_eq(asyncore_create_socket(&d, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&d, "127.0.0.1", refused), 0);
    run_until(asyncore_connected(&d));
    run_for(10);
    assert_notes("close connect");
    ck_assert_int_eq(asyncore_error(&d), 0);
    ck_assert_int_eq(asyncore_fini(&d), 0);
    close(listener);
    close(refusing);
}
END_TEST

static void add_failure(TCase *tests)
{
    tcase_add_test(tests, a_refused_connect_is_told_by_the_loop);
    tcase_add_test(tests, a_missing_unix_socket_is_told_by_the_loop);
    tcase_add_test(tests, wrong_arguments_begin_nothing);
    tcase_add_test(tests, a_connect_that_nobody_answers_ends_with_the_idle_timeout);
    tcase_add_loop_test(tests, closed_while_connecting, 0, 2);
    tcase_add_test(tests, a_channel_connects_again_from_its_handle_close);
}

/* -- A name server -- */

struct zone_entry {
    const char *name;
    int rcode; /* -1: no answer at all */
    uint32_t ttl;
    const char *v4[4], *v6[2];
};

static const struct zone_entry zone[] = {
    {"one.test", 0, 321, {"127.0.0.1"}, {NULL}},
    {"three.test", 0, 60, {"127.0.0.1", "127.0.0.2", "127.0.0.3"}, {NULL}},
    {"both.test", 0, 60, {"127.0.0.1"}, {"::1"}},
    {"four.test", 0, 60, {"127.0.0.4"}, {NULL}},
    {"silent.test", -1, 0, {NULL}, {NULL}},
    {"broken.test", 2, 0, {NULL}, {NULL}},
};

static int questions; /* that the server was asked */

static const struct zone_entry *zone_find(const unsigned char *question)
{
    static const struct zone_entry unknown = {"", 3, 0, {NULL}, {NULL}};
    char name[256];
    size_t length = 0;
    for (; *question != 0 && length + *question + 1 < sizeof name; question += *question + 1) {
        if (length > 0)
            name[length++] = '.';
        memcpy(name + length, question + 1, *question);
        length += *question;
    }
    name[length] = '\0';
    for (size_t i = 0; i < COUNT(zone); i++)
        if (strcasecmp(zone[i].name, name) == 0)
            return &zone[i];
    return &unknown;
}

static unsigned char *put_answer(unsigned char *at, const struct zone_entry *entry, int type, const char *text)
{
    int size = type == 1 ? 4 : 16;
    unsigned char head[12] = {0xc0, 12, 0, (unsigned char)type, 0, 1, 0, 0, 0, 0, 0, (unsigned char)size};
    uint32_t ttl = htonl(entry->ttl);
    memcpy(head + 6, &ttl, 4);
    memcpy(at, head, 12);
    ck_assert_int_eq(inet_pton(type == 1 ? AF_INET : AF_INET6, text, at + 12), 1);
    return at + 12 + size;
}

/* Turns a question into its answer: the same header and question, then the records. Returns its length, 0 for none. */
static size_t answer(unsigned char *packet, size_t size)
{
    unsigned char *at = packet + 12;
    while (at < packet + size && *at != 0)
        at += *at + 1;
    const struct zone_entry *entry = zone_find(packet + 12);
    int type = at[2], count = 0;
    at += 5;
    questions++;
    if (entry->rcode < 0)
        return 0;
    const char *const *texts = type == 1 ? entry->v4 : entry->v6;
    size_t most = type == 1 ? COUNT(entry->v4) : type == 28 ? COUNT(entry->v6) : 0;
    for (size_t i = 0; i < most && texts[i] != NULL; i++, count++)
        at = put_answer(at, entry, type, texts[i]);
    packet[2] = 0x81; /* an answer, recursion was desired */
    packet[3] = (unsigned char)(0x80 | entry->rcode);
    memset(packet + 6, 0, 6);
    packet[7] = (unsigned char)count;
    return (size_t)(at - packet);
}

static int serve_question(struct asyncore_dispatcher *d)
{
    unsigned char packet[1024];
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    ssize_t n = asyncore_recvfrom(d, packet, 512, &from, &length);
    if (n < 16)
        return n < 0 ? (int)n : 0;
    size_t size = answer(packet, (size_t)n);
    return size > 0 ? (int)asyncore_sendto(d, packet, size, (struct sockaddr *)&from, length) : 0;
}

static const struct asyncore_class server_class = {
    .name = "name server", .parent = &probe_class, .handle_read = serve_question};

/* A new map whose names come from a server in it. */
static void with_name_server(void)
{
    static char servers[32];
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct asyncore_map_options options = {.name_servers = servers};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(servers, sizeof servers, "127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    use_map(&options);
    asyncore_set_background(&probe_on(&server_class, "server", fd)->base, 1);
    questions = 0;
}

/* -- Lookups -- */

struct result {
    int calls, error;
    size_t count;
    struct asyncore_address addresses[8];
};

static void take_result(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses,
                        size_t count, void *arg)
{
    struct result *result = arg;
    (void)lookup;
    result->calls++;
    result->error = error;
    result->count = count;
    ck_assert_uint_le(count, COUNT(result->addresses));
    if (count > 0)
        memcpy(result->addresses, addresses, count * sizeof *addresses);
}

static struct result look_up(const char *host, const char *port, int family)
{
    struct asyncore_lookup lookup = {0};
    struct result result = {0};
    ck_assert_int_eq(asyncore_resolve(map, &lookup, host, port, family, take_result, &result), 0);
    ck_assert_int_eq(result.calls, 0);
    run_until(result.calls == 1);
    run_for(5);
    ck_assert_int_eq(result.calls, 1);
    return result;
}

static const char *text_of(const struct asyncore_address *address)
{
    static char text[128];
    asyncore_address_text((const struct sockaddr *)&address->address, address->length, text, sizeof text);
    return text;
}

START_TEST(the_list_of_servers_is_not_needed_after_map_new)
{
    char *servers = strdup("127.0.0.1:1");
    struct asyncore_map_options options = {.name_servers = servers};
    skip_unless(has_cares(), "built without c-ares");
    use_map(&options);
    memset(servers, '?', strlen(servers));
    free(servers);
    ck_assert_int_eq(look_up("one.test", "1", AF_INET).error, ASYNCORE_ENAMESERVER); /* nobody listens there */
}
END_TEST

START_TEST(a_numeric_address_is_looked_up_without_a_server)
{
    struct result result = look_up("127.0.0.1", "80", AF_UNSPEC);
    ck_assert_int_eq(result.error, 0);
    ck_assert_uint_eq(result.count, 1);
    ck_assert_str_eq(text_of(&result.addresses[0]), "127.0.0.1:80");
    ck_assert_uint_eq(result.addresses[0].ttl, UINT32_MAX);
    result = look_up("::1", "81", AF_INET6);
    ck_assert_str_eq(text_of(&result.addresses[0]), "[::1]:81");
}
END_TEST

static bool hosts_file_has(const char *line_with)
{
    char line[256];
    bool has = false;
    FILE *file = fopen("/etc/hosts", "re");
    while (file != NULL && !has && fgets(line, sizeof line, file) != NULL)
        has = strncmp(line, "127.0.0.1", 9) == 0 && strstr(line, line_with) != NULL;
    if (file != NULL)
        fclose(file);
    return has;
}

START_TEST(a_name_of_the_hosts_file_is_found_and_good_for_ever)
{
    skip_unless(hosts_file_has("localhost"), "no localhost in the hosts file");
    struct result result = look_up("localhost", "80", AF_INET);
    ck_assert_int_eq(result.error, 0);
    ck_assert_str_eq(text_of(&result.addresses[0]), "127.0.0.1:80");
    ck_assert_uint_eq(result.addresses[0].ttl, UINT32_MAX);
}
END_TEST

START_TEST(a_numeric_address_of_the_other_family_is_no_name)
{
    ck_assert_int_eq(look_up("127.0.0.1", "80", AF_INET6).error, ASYNCORE_ENONAME);
}
END_TEST

START_TEST(a_lookup_with_a_wrong_port_begins_nothing)
{
    struct asyncore_lookup lookup = {0};
    struct result result = {0};
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "99999", AF_UNSPEC, take_result, &result),
                     ASYNCORE_EPORT);
    run_for(10);
    ck_assert_int_eq(result.calls, 0);
}
END_TEST

START_TEST(the_server_is_asked_and_its_ttl_told)
{
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    struct result result = look_up("one.test", "8080", AF_INET);
    ck_assert_int_eq(result.error, 0);
    ck_assert_uint_eq(result.count, 1);
    ck_assert_str_eq(text_of(&result.addresses[0]), "127.0.0.1:8080");
    ck_assert_uint_eq(result.addresses[0].ttl, 321);
    ck_assert_int_ge(questions, 1);
}
END_TEST

START_TEST(addresses_of_both_families_are_found)
{
    int families = 0;
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    struct result result = look_up("both.test", "1", AF_UNSPEC);
    ck_assert_uint_eq(result.count, 2);
    for (size_t i = 0; i < result.count; i++)
        families += result.addresses[i].address.ss_family;
    ck_assert_int_eq(families, AF_INET + AF_INET6);
    result = look_up("both.test", "1", AF_INET6);
    ck_assert_uint_eq(result.count, 1);
    ck_assert_str_eq(text_of(&result.addresses[0]), "[::1]:1");
}
END_TEST

START_TEST(names_that_cannot_be_found_have_errors_of_their_own)
{
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    ck_assert_int_eq(look_up("missing.test", "1", AF_UNSPEC).error, ASYNCORE_ENONAME);
    ck_assert_int_eq(look_up("one.test", "1", AF_INET6).error, ASYNCORE_ENONAME);
    ck_assert_int_eq(look_up("broken.test", "1", AF_INET).error, ASYNCORE_ENAMESERVER);
}
END_TEST

START_TEST(a_cancelled_lookup_is_not_told)
{
    struct asyncore_lookup lookup = {0}, numeric = {0};
    struct result result = {0};
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "silent.test", "1", AF_INET, take_result, &result), 0);
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "one.test", "1", AF_INET, take_result, &result), -EALREADY);
    run_until(questions > 0);
    asyncore_resolve_cancel(&lookup);
    asyncore_resolve_cancel(&lookup);
    ck_assert_int_eq(asyncore_resolve(map, &numeric, "127.0.0.1", "1", AF_INET, take_result, &result), 0);
    asyncore_resolve_cancel(&numeric);
    memset(&lookup, 0xa5, sizeof lookup);
    memset(&numeric, 0xa5, sizeof numeric);
    run_for(30);
    ck_assert_int_eq(result.calls, 0);
}
END_TEST

START_TEST(a_lookup_in_flight_is_forgotten_by_map_free)
{
    static struct asyncore_lookup lookup;
    static struct result result;
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "silent.test", "1", AF_INET, take_result, &result), 0);
    run_until(questions > 0);
    use_map(NULL);
    ck_assert_int_eq(result.calls, 0);
}
END_TEST

static void look_up_again(struct asyncore_lookup *lookup, int error, const struct asyncore_address *addresses,
                          size_t count, void *arg)
{
    ck_assert_int_eq(error, 0);
    ck_assert_uint_eq(count, 1);
    ck_assert_ptr_nonnull(addresses);
    ck_assert_int_eq(asyncore_resolve(map, lookup, "127.0.0.1", "7", AF_INET, take_result, arg), 0);
}

START_TEST(a_lookup_is_used_again_in_its_callback)
{
    struct asyncore_lookup lookup = {0};
    struct result result = {0};
    ck_assert_int_eq(asyncore_resolve(map, &lookup, "127.0.0.1", "1", AF_INET, look_up_again, &result), 0);
    run_until(result.calls == 1);
    ck_assert_str_eq(text_of(&result.addresses[0]), "127.0.0.1:7");
}
END_TEST

static void add_lookups(TCase *tests)
{
    tcase_add_test(tests, the_list_of_servers_is_not_needed_after_map_new);
    tcase_add_test(tests, a_numeric_address_is_looked_up_without_a_server);
    tcase_add_test(tests, a_name_of_the_hosts_file_is_found_and_good_for_ever);
    tcase_add_test(tests, a_numeric_address_of_the_other_family_is_no_name);
    tcase_add_test(tests, a_lookup_with_a_wrong_port_begins_nothing);
    tcase_add_test(tests, the_server_is_asked_and_its_ttl_told);
    tcase_add_test(tests, addresses_of_both_families_are_found);
    tcase_add_test(tests, names_that_cannot_be_found_have_errors_of_their_own);
    tcase_add_test(tests, a_cancelled_lookup_is_not_told);
    tcase_add_test(tests, a_lookup_in_flight_is_forgotten_by_map_free);
    tcase_add_test(tests, a_lookup_is_used_again_in_its_callback);
}

/* -- Connecting by name -- */

static void host_of(const struct asyncore_address *address, char host[64])
{
    const void *bytes = address->address.ss_family == AF_INET
                            ? (const void *)&((const struct sockaddr_in *)&address->address)->sin_addr
                            : (const void *)&((const struct sockaddr_in6 *)&address->address)->sin6_addr;
    ck_assert_ptr_nonnull(inet_ntop(address->address.ss_family, bytes, host, 64));
}

/* Only the address that is tried last listens. */
static void assert_tries_all(const char *name, const struct result *known)
{
    char host[64], port[8] = "0";
    host_of(&known->addresses[known->count - 1], host);
    int listener = peer_listen(host, port);
    struct probe *p = connecting(&probe_class, name, port);
    assert_talks(p, listener);
    ck_assert_int_eq(p->sockets, (int)known->count);
    ck_assert_int_eq(p->errors, 0);
}

START_TEST(every_address_of_a_name_is_tried_in_turn)
{
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    struct result known = look_up("three.test", "1", AF_UNSPEC);
    ck_assert_uint_eq(known.count, 3);
    assert_tries_all("three.test", &known);
}
END_TEST

START_TEST(both_families_of_a_name_are_tried)
{
    skip_unless(has_cares(), "built without c-ares");
    skip_unless(has_ipv6(), "no IPv6 here");
    with_name_server();
    struct result known = look_up("both.test", "1", AF_UNSPEC);
    ck_assert_uint_eq(known.count, 2);
    assert_tries_all("both.test", &known);
}
END_TEST

START_TEST(every_address_of_localhost_is_tried)
{
    struct result known = look_up("localhost", "1", AF_UNSPEC);
    skip_unless(known.count >= 1 && (known.count == 1 || has_ipv6()), "no localhost, or no IPv6, here");
    assert_tries_all("localhost", &known);
}
END_TEST

START_TEST(the_last_error_is_reported_once_when_every_address_refuses)
{
    char port[8];
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    int refusing = refusing_port(port);
    struct probe *p = connecting(&probe_class, "three.test", port);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -ECONNREFUSED);
    ck_assert_int_eq(p->sockets, 3);
    close(refusing);
}
END_TEST

START_TEST(the_sockets_family_chooses_among_the_addresses)
{
    char port[8];
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    int refusing = refusing_port(port);
    struct probe *p = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_connect(&p->base, "both.test", port), 0);
    run_until(p->destroys == 1);
    ck_assert_int_eq(p->error, -ECONNREFUSED);
    ck_assert_int_eq(p->sockets, 1);
    close(refusing);
}
END_TEST

START_TEST(a_name_that_does_not_exist_fails_from_the_loop)
{
    if (has_cares())
        with_name_server();
    struct probe *p = connecting(&probe_class, "missing.test", "80");
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, ASYNCORE_ENONAME);
}
END_TEST

START_TEST(closed_while_looking_up)
{
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    struct probe *p = connecting(&probe_class, "silent.test", "80");
    if (_i >= 2)
        run_until(questions > 0);
    ck_assert_int_eq(_i % 2 == 0 ? asyncore_close(&p->base) : asyncore_fini(&p->base), 0);
    if (_i % 2 == 1)
        memset(&p->base, 0xa5, sizeof p->base);
    ck_assert_int_eq(asyncore_loop(map, 20, 5), 0); /* the lookup is gone too */
    run_for(30);
    assert_notes(_i % 2 == 0 ? "destroy" : "");
}
END_TEST

START_TEST(the_idle_timeout_counts_while_looking_up)
{
    skip_unless(has_cares(), "built without c-ares");
    with_name_server();
    struct probe *p = connecting(&probe_class, "silent.test", "80");
    asyncore_set_idle_timeout(&p->base, 50);
    run_until(p->destroys == 1);
    assert_notes("error close destroy");
    ck_assert_int_eq(p->error, -ETIMEDOUT);
}
END_TEST

static void add_names(TCase *tests)
{
    tcase_add_test(tests, every_address_of_a_name_is_tried_in_turn);
    tcase_add_test(tests, both_families_of_a_name_are_tried);
    tcase_add_test(tests, every_address_of_localhost_is_tried);
    tcase_add_test(tests, the_last_error_is_reported_once_when_every_address_refuses);
    tcase_add_test(tests, the_sockets_family_chooses_among_the_addresses);
    tcase_add_test(tests, a_name_that_does_not_exist_fails_from_the_loop);
    tcase_add_loop_test(tests, closed_while_looking_up, 0, 4);
    tcase_add_test(tests, the_idle_timeout_counts_while_looking_up);
}

/* -- Addresses as text -- */

START_TEST(text_becomes_an_address_and_text_again)
{
    static const struct {
        const char *host, *port, *text;
    } good[] = {
        {"127.0.0.1", "80", "127.0.0.1:80"}, {"::1", "443", "[::1]:443"},       {"", "0", "0.0.0.0:0"},
        {"*", "65535", "0.0.0.0:65535"},     {"unix:/a/b", "", "unix:/a/b"},    {"unix:@name", "", "unix:@name"},
        {"192.0.2.7", "1", "192.0.2.7:1"},   {"2001:db8::5", "5", "[2001:db8::5]:5"},
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        struct sockaddr_storage address;
        socklen_t length = 0;
        char text[128];
        ck_assert_int_eq(asyncore_parse_address(good[i].host, good[i].port, &address, &length), 0);
        ck_assert_int_eq(asyncore_address_text((struct sockaddr *)&address, length, text, sizeof text),
                         (int)strlen(good[i].text));
        ck_assert_str_eq(text, good[i].text);
    }
}
END_TEST

START_TEST(text_that_is_no_address_leaves_the_outputs_alone)
{
    static const struct {
        const char *host, *port;
        int error;
    } bad[] = {
        {"example.com", "80", ASYNCORE_EHOST}, {"1.2.3", "80", ASYNCORE_EHOST},     {"1.2.3.4.5", "80", ASYNCORE_EHOST},
        {"1.2.3.4", "65536", ASYNCORE_EPORT},  {"1.2.3.4", "-1", ASYNCORE_EPORT},   {"1.2.3.4", "", ASYNCORE_EPORT},
        {"1.2.3.4", "80x", ASYNCORE_EPORT},    {"1.2.3.4", " 80", ASYNCORE_EPORT},  {"1.2.3.4", "+80", ASYNCORE_EPORT},
        {"1.2.3.4", "99999999999999999999", ASYNCORE_EPORT},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct sockaddr_storage address, before;
        socklen_t length = 77;
        memset(&address, 0xa5, sizeof address);
        before = address;
        ck_assert_int_eq(asyncore_parse_address(bad[i].host, bad[i].port, &address, &length), bad[i].error);
        ck_assert_uint_eq(length, 77);
        ck_assert_int_eq(memcmp(&address, &before, sizeof address), 0);
    }
}
END_TEST

START_TEST(a_unix_path_that_is_too_long_is_refused)
{
    char host[200];
    struct sockaddr_storage address;
    socklen_t length;
    memset(host, 'x', sizeof host);
    memcpy(host, "unix:/", 6);
    host[sizeof host - 1] = '\0';
    ck_assert_int_lt(asyncore_parse_address(host, "", &address, &length), 0);
}
END_TEST

START_TEST(address_text_is_cut_to_size)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char text[16];
    memset(text, '!', sizeof text);
    asyncore_address_text((struct sockaddr *)&address, sizeof address, text, 4);
    ck_assert_str_eq(text, "0.0");
    ck_assert_int_eq(text[4], '!');
}
END_TEST

START_TEST(bind_takes_addresses_and_names_of_the_hosts_file)
{
    char port[8];
    struct probe *p = probe_listen(&probe_class, "", "127.0.0.1", port), *q = probe_new(&probe_class, "");
    ck_assert_int_eq(asyncore_create_socket(&q->base, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(&q->base, "no-such-host.test", "0"), ASYNCORE_EHOST);
    ck_assert_int_eq(asyncore_bind(&q->base, "127.0.0.1", "x"), ASYNCORE_EPORT);
    ck_assert_int_eq(asyncore_set_reuse_addr(&q->base), 0);
    ck_assert_int_eq(asyncore_bind(&q->base, "127.0.0.1", port), -EADDRINUSE);
    asyncore_close(&p->base);
    ck_assert_int_eq(asyncore_bind(&q->base, "127.0.0.1", port), 0);
    if (look_up("localhost", "1", AF_INET).count > 0)
        probe_listen(&probe_class, "", "localhost", port);
    probe_listen(&probe_class, "", "", port);
}
END_TEST

static int connect_other(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    char byte;
    if (!asyncore_connecting(&p->other->base) && !asyncore_connected(&p->other->base))
        ck_assert_int_eq(asyncore_connect(&p->other->base, "localhost", "1"), 0);
    return (int)asyncore_recv(d, &byte, 1);
}

static int look_away(struct asyncore_dispatcher *d)
{
    (void)d;
    return 0;
}

/* Its error comes in the same turn as what makes a neighbour connect it; one of two neighbours comes before it. */
START_TEST(an_error_of_before_is_no_answer_while_the_name_is_looked_up)
{
    static const struct asyncore_class class_ = {.name = "eager", .parent = &probe_class, .handle_read = connect_other};
    static const struct asyncore_class calm = {.name = "calm", .parent = &probe_class, .handle_read = look_away};
    skip_unless(hosts_file_has("localhost"), "no localhost in the hosts file");
    struct sockaddr_in nobody = {.sin_family = AF_INET};
    int peers[2], one = 1;
    char port[8];
    int refusing = refusing_port(port);
    nobody.sin_port = htons((uint16_t)atoi(port)); /* of UDP: nobody has it, or what comes is thrown away */
    nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct probe *before = probe_with_peer(&class_, &peers[0]), *p = probe_new(&calm, "");
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_INET, SOCK_DGRAM), 0);
    ck_assert_int_eq(asyncore_setsockopt(&p->base, IPPROTO_IP, IP_RECVERR, &one, sizeof one), 0);
    struct probe *after = probe_with_peer(&class_, &peers[1]);
    before->other = after->other = p;
    turn();
    peer_send(peers[0], "x", 1);
    ck_assert_int_eq((int)asyncore_sendto(&p->base, "x", 1, (struct sockaddr *)&nobody, sizeof nobody), 1);
    peer_send(peers[1], "x", 1);
    run_until(p->connects == 1);
    asyncore_close(&p->base);
    close(peers[0]);
    close(peers[1]);
    close(refusing);
}
END_TEST

static void add_texts(TCase *tests)
{
    tcase_add_test(tests, text_becomes_an_address_and_text_again);
    tcase_add_test(tests, text_that_is_no_address_leaves_the_outputs_alone);
    tcase_add_test(tests, a_unix_path_that_is_too_long_is_refused);
    tcase_add_test(tests, address_text_is_cut_to_size);
    tcase_add_test(tests, bind_takes_addresses_and_names_of_the_hosts_file);
    tcase_add_test(tests, an_error_of_before_is_no_answer_while_the_name_is_looked_up);
}

int main(void)
{
    return run_suite("connect", add_success, add_failure, add_lookups, add_names, add_texts, NULL);
}
