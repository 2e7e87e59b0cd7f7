/* support.c: what the Check programs share.
 *
 * A checked fixture surrounds every test, in the process that Check forks for it: before, the open descriptors are
 * counted and a map is made; after, the map is freed, then the probes that were in it, and descriptors are counted
 * again. A test whose channels are on its own stack finishes them itself. */
#include "support.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TIME_LIMIT 20 /* seconds for a test */

struct asyncore_map *map;
static struct probe *probes;
static int descriptors_before;
static char noted[1 << 16];
static size_t noted_length;

/* -- The program -- */

int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(directory);
    int count = -1; /* the directory itself */
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

static void show_descriptors(void)
{
    for (int fd = 0; fd < 4096; fd++) {
        char path[32], target[256];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n > 0)
            fprintf(stderr, "open: %d %.*s\n", fd, (int)n, target);
    }
}

void use_map(const struct asyncore_map_options *options)
{
    ck_assert_int_eq(asyncore_map_free(map), 0);
    map = NULL;
    ck_assert_int_eq(asyncore_map_new(&map, options), 0);
}

static void before_test(void)
{
    descriptors_before = count_descriptors();
    forget_notes();
    ck_assert_int_eq(asyncore_map_new(&map, NULL), 0);
}

static void after_test(void)
{
    if (map != NULL)
        ck_assert_int_eq(asyncore_map_free(map), 0);
    while (probes != NULL) {
        struct probe *p = probes;
        probes = p->next;
        free(p->input);
        free(p);
    }
    int after = count_descriptors();
    if (after != descriptors_before)
        show_descriptors();
    ck_assert_msg(after == descriptors_before, "%d descriptors before the test, %d after it", descriptors_before,
                  after);
}

int run_suite(const char *name, void (*add)(TCase *tests), ...)
{
    Suite *suite = suite_create(name);
    va_list more;
    va_start(more, add);
    for (; add != NULL; add = va_arg(more, void (*)(TCase *))) {
        TCase *tests = tcase_create(name);
        tcase_set_timeout(tests, TIME_LIMIT);
        tcase_add_checked_fixture(tests, before_test, after_test);
        add(tests);
        suite_add_tcase(suite, tests);
    }
    va_end(more);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#ifdef ASYNCORE_COVERAGE
void __gcov_dump(void);
#endif

void leave_child(int status)
{
#ifdef ASYNCORE_COVERAGE
    __gcov_dump();
#endif
    _exit(status);
}

bool has_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

bool has_cares(void)
{
    return strstr(asyncore_features(), "c-ares") != NULL;
}

bool engine_is(const char *name)
{
    return strcmp(asyncore_map_engine(map), name) == 0;
}

bool under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

bool runs_slowly(void)
{
    const char *multiplier = getenv("CK_TIMEOUT_MULTIPLIER");
    return under_valgrind() || (multiplier != NULL && atoi(multiplier) > 1);
}

/* -- Notes -- */

void note(const char *format, ...)
{
    va_list arguments;
    if (noted_length > 0 && noted_length < sizeof noted - 1)
        noted[noted_length++] = ' ';
    size_t room = sizeof noted - noted_length;
    va_start(arguments, format);
    size_t n = (size_t)vsnprintf(noted + noted_length, room, format, arguments);
    va_end(arguments);
    noted_length += n < room ? n : room - 1;
}

const char *notes(void)
{
    return noted;
}

void forget_notes(void)
{
    noted_length = 0;
    noted[0] = '\0';
}

/* -- Time -- */

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t cpu_ns(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

unsigned patience(void)
{
    const char *multiplier = getenv("CK_TIMEOUT_MULTIPLIER");
    int times = multiplier != NULL ? atoi(multiplier) : 1;
    return 5000u * (unsigned)(times > 0 ? times : 1);
}

void rest_ms(unsigned milliseconds)
{
    struct timespec t = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    nanosleep(&t, NULL);
}

int run_for(unsigned milliseconds)
{
    int turns = 0;
    uint64_t end = clock_ns() + milliseconds * UINT64_C(1000000);
    for (uint64_t now = clock_ns(); now < end; now = clock_ns()) {
        must(asyncore_poll(map, (int)((end - now + 999999) / 1000000)) >= 0);
        turns++;
    }
    return turns;
}

void assert_idle_for(unsigned milliseconds)
{
    int turns = run_for(milliseconds);
    /* select has to look after channels that wait for errors alone, ten times a second */
    int allowed = 4 + (int)milliseconds / 50;
    ck_assert_msg(turns <= allowed, "%d turns in %u ms without anything to do (notes: %.200s)", turns, milliseconds,
                  notes());
}

void turn(void)
{
    must(asyncore_poll(map, 0) >= 0);
}

/* -- Probes -- */

void probe_note(struct probe *p, const char *what)
{
    if (p->name[0] != '\0')
        note("%s:%s", p->name, what);
    else
        note("%s", what);
}

static int probe_connect(struct asyncore_dispatcher *d)
{
    probe_of(d)->connects++;
    probe_note(probe_of(d), "connect");
    return 0;
}

static int probe_read(struct asyncore_dispatcher *d)
{
    struct probe *p = probe_of(d);
    size_t size = p->piece != 0 ? p->piece : 65536;
    p->reads++;
    probe_note(p, "read");
    p->input = realloc(p->input, p->bytes + size);
    ck_assert_ptr_nonnull(p->input);
    ssize_t n = asyncore_recv(d, p->input + p->bytes, size);
    if (n <= 0)
        return (int)n;
    p->bytes += (size_t)n;
    return p->result;
}

static int probe_write(struct asyncore_dispatcher *d)
{
    probe_of(d)->writes++;
    probe_note(probe_of(d), "write");
    return 0;
}

static int probe_close(struct asyncore_dispatcher *d)
{
    probe_of(d)->closes++;
    probe_note(probe_of(d), "close");
    return probe_of(d)->stays ? 0 : asyncore_super(d, &probe_class)->handle_close(d);
}

static int probe_error(struct asyncore_dispatcher *d, int error)
{
    probe_of(d)->errors++;
    probe_of(d)->error = error;
    probe_note(probe_of(d), "error");
    return probe_of(d)->stays ? 0 : asyncore_super(d, &probe_class)->handle_error(d, error);
}

static int probe_socket(struct asyncore_dispatcher *d, int fd)
{
    (void)fd;
    probe_of(d)->sockets++;
    return 0;
}

static void probe_destroy(struct asyncore_dispatcher *d)
{
    probe_of(d)->destroys++;
    probe_note(probe_of(d), "destroy");
}

const struct asyncore_class probe_class = {
    .name = "probe",
    .handle_connect = probe_connect,
    .handle_read = probe_read,
    .handle_write = probe_write,
    .handle_close = probe_close,
    .handle_error = probe_error,
    .handle_socket = probe_socket,
    .destroy = probe_destroy,
};

struct probe *probe_new(const struct asyncore_class *class_, const char *name)
{
    struct probe *p = calloc(1, sizeof *p);
    ck_assert_ptr_nonnull(p);
    snprintf(p->name, sizeof p->name, "%s", name);
    ck_assert_int_eq(asyncore_dispatcher_init(&p->base, class_, map), 0);
    p->next = probes;
    probes = p;
    return p;
}

struct probe *probe_on(const struct asyncore_class *class_, const char *name, int fd)
{
    struct probe *p = probe_new(class_, name);
    ck_assert_int_eq(asyncore_set_socket(&p->base, fd), 0);
    return p;
}

struct probe *probe_listen(const struct asyncore_class *class_, const char *name, const char *host, char port[8])
{
    struct probe *p = probe_new(class_, name);
    ck_assert_int_eq(asyncore_create_socket(&p->base, AF_UNSPEC, SOCK_STREAM), 0);
    ck_assert_int_eq(asyncore_bind(&p->base, host, "0"), 0);
    ck_assert_int_eq(asyncore_listen(&p->base, 128), 0);
    channel_port(&p->base, port);
    return p;
}

struct probe *probe_with_peer(const struct asyncore_class *class_, int *peer)
{
    int fds[2];
    unix_pair(fds);
    *peer = fds[1];
    return probe_on(class_, "", fds[0]);
}

/* -- Peers -- */

static void give_up_in_time(int fd)
{
    struct timeval limit = {patience() / 1000, 0};
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
}

void unix_pair(int fds[2])
{
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    set_blocking(fds[0], false);
    give_up_in_time(fds[1]);
}

void tcp_pair(int fds[2])
{
    char port[8] = "0";
    int listener = peer_listen("127.0.0.1", port);
    fds[0] = peer_connect("127.0.0.1", port);
    fds[1] = peer_accept(listener);
    close(listener);
    set_blocking(fds[0], false);
}

static struct addrinfo *numeric(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found = NULL;
    ck_assert_int_eq(getaddrinfo(host, port[0] != '\0' ? port : "0", &hints, &found), 0);
    return found;
}

static void port_text(const struct sockaddr_storage *address, char port[8])
{
    in_port_t number = address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                      : ((const struct sockaddr_in *)address)->sin_port;
    snprintf(port, 8, "%u", (unsigned)ntohs(number));
}

int peer_listen(const char *host, char port[8])
{
    struct addrinfo *a = numeric(host, port);
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    int on = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ck_assert_msg(bind(fd, a->ai_addr, a->ai_addrlen) == 0, "bind %s %s: %s", host, port, strerror(errno));
    ck_assert_int_eq(listen(fd, 128), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&name, &length), 0);
    port_text(&name, port);
    freeaddrinfo(a);
    give_up_in_time(fd);
    return fd;
}

int peer_connect(const char *host, const char *port)
{
    struct addrinfo *a = numeric(host, port);
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    give_up_in_time(fd);
    ck_assert_msg(connect(fd, a->ai_addr, a->ai_addrlen) == 0, "connect %s %s: %s", host, port, strerror(errno));
    freeaddrinfo(a);
    return fd;
}

int peer_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_msg(fd >= 0, "accept: %s", strerror(errno));
    give_up_in_time(fd);
    return fd;
}

void peer_send(int fd, const void *data, size_t size)
{
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fd, (const char *)data + sent, size - sent, MSG_NOSIGNAL);
        if (n <= 0)
            ck_abort_msg("peer cannot send: %s", strerror(errno));
        sent += (size_t)n;
    }
}

size_t peer_recv(int fd, void *data, size_t size)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = recv(fd, (char *)data + got, size - got, 0);
        if (n < 0)
            ck_abort_msg("peer cannot receive: %s", strerror(errno));
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return got;
}

bool peer_at_end(int fd)
{
    char byte;
    return recv(fd, &byte, 1, 0) == 0;
}

bool peer_reset_came(int fd)
{
    char byte;
    return recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET;
}

void peer_reset(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    close(fd);
}

bool readable_now(int fd, int milliseconds)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, milliseconds) > 0;
}

size_t waiting_bytes(int fd)
{
    int n = 0;
    ck_assert_int_eq(ioctl(fd, FIONREAD, &n), 0);
    return (size_t)n;
}

void small_buffers(int fd)
{
    int size = 1;
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
}

void set_blocking(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    ck_assert_int_eq(fcntl(fd, F_SETFL, on ? flags & ~O_NONBLOCK : flags | O_NONBLOCK), 0);
}

bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* The kernel lets a few more wait than it was told; one that is still connecting after a while has to wait. */
int full_listener(char port[8], int fillers[], int *count)
{
    strcpy(port, "0");
    int listener = peer_listen("127.0.0.1", port);
    ck_assert_int_eq(listen(listener, 0), 0);
    struct addrinfo *a = numeric("127.0.0.1", port);
    for (*count = 0; *count < 16;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        fillers[(*count)++] = fd;
        ck_assert(connect(fd, a->ai_addr, a->ai_addrlen) == 0 || errno == EINPROGRESS);
        struct pollfd one = {.fd = fd, .events = POLLOUT};
        if (poll(&one, 1, 100) == 0)
            break;
    }
    freeaddrinfo(a);
    return listener;
}

int refusing_port(char port[8])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(port, 8, "%u", (unsigned)ntohs(address.sin_port));
    return fd;
}

void channel_port(struct asyncore_dispatcher *d, char port[8])
{
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    ck_assert_int_eq(asyncore_sockname(d, &name, &length), 0);
    port_text(&name, port);
}

/* -- Bytes -- */

static unsigned char pattern_at(size_t offset)
{
    return (unsigned char)((offset * 2654435761u) >> 16 ^ offset);
}

void pattern_fill(void *data, size_t offset, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((unsigned char *)data)[i] = pattern_at(offset + i);
}

void pattern_check(const void *data, size_t offset, size_t size)
{
    size_t i = 0;
    while (i < size && ((const unsigned char *)data)[i] == pattern_at(offset + i))
        i++;
    if (i < size)
        ck_abort_msg("byte %zu is wrong", offset + i);
}

uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}
