/* sim_kernel_values.c: what the sequences do not come to, on both kernels: what each option is at first and may be, how
 * much fits a datagram and how many a Unix socket's queue, signals.
 *
 * A test does the same to each kernel and writes down what came of it; the two texts must be equal. */
#include "sim_kernel.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/signalfd.h>
#include <sys/un.h>
#include <unistd.h>

struct kernel {
    struct os *os;
    struct asyncore_sim *world; /* NULL: the real one */
    char text[1 << 15];
    size_t length;
};

static struct kernel kernels[2];
static bool alone;

static void say(struct kernel *k, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct kernel *k, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    k->length += (size_t)vsnprintf(k->text + k->length, sizeof k->text - k->length, format, arguments);
    va_end(arguments);
    must(k->length < sizeof k->text);
}

static void say_result(struct kernel *k, const char *what, long n)
{
    if (n < 0)
        say(k, " %s: %s", what, strerror((int)-n));
    else
        say(k, " %s: %ld", what, n);
}

/* What one kernel has to say, and the other. */
static void compare(void (*tell)(struct kernel *k, const void *arg), const void *arg)
{
    struct asyncore_sim_options options = {.send_buffer = 212992, .receive_buffer = 212992};
    struct asyncore_sim *world;
    ck_assert_int_eq(asyncore_sim_new(&world, 1, &options), 0);
    kernels[0] = (struct kernel){.os = sim_os(world, "host"), .world = world};
    kernels[1] = (struct kernel){.os = &os_linux};
    for (int i = 0; i < 2; i++)
        tell(&kernels[i], arg);
    asyncore_sim_free(world);
    size_t same = 0;
    while (kernels[0].text[same] != '\0' && kernels[0].text[same] == kernels[1].text[same])
        same++;
    if (kernels[0].text[same] == kernels[1].text[same])
        return;
    size_t from = same > 1000 ? same - 1000 : 0;
    ck_abort_msg("the kernels differ after\n    %.*s\n    simulated: %.200s\n    real:      %.200s", (int)(same - from),
                 kernels[0].text + from, kernels[0].text + same, kernels[1].text + same);
}

static int opened(struct kernel *k, int family, int type)
{
    int fd = k->os->socket(family, type, 0, k->os);
    must(fd >= 0);
    return fd;
}

/* -- Options -- */

static const struct option {
    const char *name;
    int level, option;
} options[] = {
#define OPTION(level, option)                                                                                          \
    {                                                                                                                  \
#option, level, option                                                                                         \
    }
    OPTION(SOL_SOCKET, SO_TYPE),
    OPTION(SOL_SOCKET, SO_ERROR),
    OPTION(SOL_SOCKET, SO_DOMAIN),
    OPTION(SOL_SOCKET, SO_PROTOCOL),
    OPTION(SOL_SOCKET, SO_ACCEPTCONN),
    OPTION(SOL_SOCKET, SO_REUSEADDR),
    OPTION(SOL_SOCKET, SO_LINGER),
    OPTION(SOL_SOCKET, SO_KEEPALIVE),
    OPTION(SOL_SOCKET, SO_BROADCAST),
    OPTION(SOL_SOCKET, SO_OOBINLINE),
    OPTION(SOL_SOCKET, SO_DONTROUTE),
    OPTION(SOL_SOCKET, SO_PRIORITY),
    OPTION(SOL_SOCKET, SO_MARK),
    OPTION(IPPROTO_TCP, TCP_NODELAY),
    OPTION(IPPROTO_TCP, TCP_CORK),
    OPTION(IPPROTO_TCP, TCP_QUICKACK),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL),
    OPTION(IPPROTO_TCP, TCP_KEEPCNT),
    OPTION(IPPROTO_TCP, TCP_SYNCNT),
    OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT),
    OPTION(IPPROTO_IP, IP_TOS),
    OPTION(IPPROTO_IP, IP_TTL),
    OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS),
    OPTION(IPPROTO_IPV6, IPV6_TCLASS),
    OPTION(IPPROTO_IPV6, IPV6_V6ONLY),
    {"no option of sockets", SOL_SOCKET, 999},
    {"no option of TCP", IPPROTO_TCP, 999},
    {"no option of IP", IPPROTO_IP, 999},
    {"no option of IPv6", IPPROTO_IPV6, 999},
    {"no option of UDP", IPPROTO_UDP, 999},
    {"no level", 12345, 1},
};

static const int sockets[][2] = {{AF_INET, SOCK_STREAM}, {AF_INET6, SOCK_STREAM}, {AF_INET, SOCK_DGRAM},
                                 {AF_INET6, SOCK_DGRAM}, {AF_UNIX, SOCK_STREAM},  {AF_UNIX, SOCK_DGRAM}};

static void say_option(struct kernel *k, int fd, const struct option *option, socklen_t size)
{
    int value[4] = {-3, -3, -3, -3};
    socklen_t length = size;
    int result = k->os->getsockopt(fd, option->level, option->option, value, &length, k->os);
    if (result < 0)
        say(k, " %s", strerror(-result));
    else
        say(k, " %u bytes %08x %d", length, (unsigned)value[0], value[1]);
}

/* Whether it is the administrator's, or needs a capability that is not there. */
static bool is_privileged(const struct option *option, int value)
{
    if (alone || option->level != SOL_SOCKET)
        return false;
    return option->option == SO_MARK || (option->option == SO_PRIORITY && (value < 0 || value > 6));
}

static void tell_option(struct kernel *k, const void *arg)
{
    static const int values[] = {INT32_MIN, -2,  -1,  0,   1,   2,    3,     64,    99,    126,
                                 127,       128, 254, 255, 256, 1000, 32767, 32768, 65536, INT32_MAX};
    const struct option *option = arg;
    say(k, " %s", option->name);
    for (size_t i = 0; i < COUNT(sockets); i++) {
        int fd = opened(k, sockets[i][0], sockets[i][1]);
        say(k, "\n        family %d, type %d:", sockets[i][0], sockets[i][1]);
        for (int size = under_valgrind() ? 0 : -1; size <= 16; size++) /* it looks for that much memory */
            say_option(k, fd, option, (socklen_t)size);
        for (size_t v = 0; v < COUNT(values); v++) {
            int value[4] = {values[v], 7};
            if (is_privileged(option, values[v]))
                continue;
            say(k, ", %d", values[v]);
            say_result(k, "set", k->os->setsockopt(fd, option->level, option->option, value, 4, k->os));
            say_option(k, fd, option, 16);
        }
        k->os->close(fd, k->os);
    }
}

static void tell_option_sizes(struct kernel *k, const void *arg)
{
    const struct option *option = arg;
    say(k, " %s", option->name);
    for (size_t i = 0; i < COUNT(sockets); i++) {
        int fd = opened(k, sockets[i][0], sockets[i][1]);
        say(k, "\n        family %d, type %d:", sockets[i][0], sockets[i][1]);
        for (int size = 0; size <= 16; size++) {
            int value[4] = {1 + size % 2, 5 + size};
            say(k, ", %d", size);
            if (!is_privileged(option, 1))
                say_result(k, "set",
                           k->os->setsockopt(fd, option->level, option->option, value, (socklen_t)size, k->os));
            say_option(k, fd, option, 16);
        }
        k->os->close(fd, k->os);
    }
}

START_TEST(options_have_the_same_values)
{
    compare(tell_option, &options[_i]);
    compare(tell_option_sizes, &options[_i]);
}
END_TEST

static void tell_linger(struct kernel *k, const void *arg)
{
    static const int values[][2] = {{0, 0}, {0, 5}, {5, 7}, {0, 9}, {1, 0}, {1, 3600}, {-1, 2}};
    static const struct option option = {"SO_LINGER", SOL_SOCKET, SO_LINGER};
    int fd = opened(k, AF_INET, SOCK_STREAM);
    (void)arg;
    for (size_t i = 0; i < COUNT(values); i++) {
        say_result(k, "set", k->os->setsockopt(fd, SOL_SOCKET, SO_LINGER, values[i], sizeof values[i], k->os));
        say_option(k, fd, &option, 8);
    }
    k->os->close(fd, k->os);
}

static void tell_buffers(struct kernel *k, const void *arg)
{
    static const int values[] = {0, 1, 1000, 1151, 1152, 1153, 2303, 2304, 2305, 4607, 5000, 65536, 100000};
    static const struct option which[] = {OPTION(SOL_SOCKET, SO_SNDBUF), OPTION(SOL_SOCKET, SO_RCVBUF)};
    (void)arg;
    for (size_t i = 0; i < COUNT(sockets); i++)
        for (int o = 0; o < 2; o++) {
            int fd = opened(k, sockets[i][0], sockets[i][1]);
            say(k, "\n        family %d, type %d, %s:", sockets[i][0], sockets[i][1], which[o].name);
            for (size_t v = 0; v < COUNT(values); v++) {
                say(k, ", %d", values[v]);
                say_result(k, "set", k->os->setsockopt(fd, SOL_SOCKET, which[o].option, &values[v], 4, k->os));
                say_option(k, fd, &which[o], 4);
            }
            k->os->close(fd, k->os);
        }
}

START_TEST(linger_and_buffers_have_the_same_values)
{
    compare(tell_linger, NULL);
    compare(tell_buffers, NULL);
}
END_TEST

/* -- Datagrams -- */

static const struct {
    int family, target;
    bool mapped;
} ways[] = {{AF_INET, AF_INET, false}, {AF_INET6, AF_INET6, false}, {AF_INET6, AF_INET, true}};

/* What a socket there has as its address, for one of the other family maybe. */
static socklen_t address_of(struct kernel *k, int fd, bool mapped, struct sockaddr_storage *address)
{
    socklen_t length = sizeof *address;
    must(k->os->getsockname(fd, (struct sockaddr *)address, &length, k->os) == 0);
    if (!mapped)
        return length;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = ((struct sockaddr_in *)address)->sin_port};
    memcpy(&in6.sin6_addr, (const unsigned char[16]){[10] = 255, 255, 127, 0, 0, 1}, 16);
    memcpy(address, &in6, sizeof in6);
    return sizeof in6;
}

static unsigned mask(struct kernel *k, int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN | POLLOUT};
    k->os->poll(&one, 1, 0, k->os);
    return (unsigned short)one.revents;
}

static void tell_udp_sizes(struct kernel *k, const void *arg)
{
    static const size_t sizes[] = {0, 1, 65506, 65507, 65508, 65526, 65527, 65528, 65535, 65536, 70000};
    static char data[70000];
    int way = *(const int *)arg;
    struct sockaddr_storage bound = {.ss_family = (sa_family_t)ways[way].target}, to;
    int in = opened(k, ways[way].target, SOCK_DGRAM), out = opened(k, ways[way].family, SOCK_DGRAM);
    if (bound.ss_family == AF_INET)
        ((struct sockaddr_in *)&bound)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)&bound)->sin6_addr = in6addr_loopback;
    socklen_t length = bound.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    must(k->os->bind(in, (struct sockaddr *)&bound, length, k->os) == 0);
    length = address_of(k, in, ways[way].mapped, &to);
    for (size_t i = 0; i < COUNT(sizes); i++)
        say_result(k, "to nobody", k->os->send(out, data, sizes[i], 0, k->os));
    for (int connected = 0; connected < 2; connected++) {
        if (connected)
            must(k->os->connect(out, (struct sockaddr *)&to, length, k->os) == 0);
        for (size_t i = 0; i < COUNT(sizes); i++) {
            say(k, "\n        %zu bytes", sizes[i]);
            long n = connected ? k->os->send(out, data, sizes[i], 0, k->os)
                               : k->os->sendto(out, data, sizes[i], 0, (struct sockaddr *)&to, length, k->os);
            say_result(k, "sent", n);
            for (int tries = 0; n >= 0 && k->world == NULL && !(mask(k, in) & POLLIN) && tries < 1000; tries++)
                poll(NULL, 0, 1);
            say_result(k, "came", k->os->recv(in, data, sizeof data, 0, k->os));
            say_result(k, "masks", (int)(mask(k, in) << 8 | mask(k, out)));
        }
    }
    k->os->close(in, k->os);
    k->os->close(out, k->os);
}

START_TEST(udp_takes_as_much)
{
    compare(tell_udp_sizes, &_i);
}
END_TEST

static socklen_t abstract(struct sockaddr_un *address, char name)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(&address->sun_path[1], sizeof address->sun_path - 1, "asyncore-%ld-%c", (long)getpid(), name);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int bound_unix(struct kernel *k, char name)
{
    struct sockaddr_un address;
    socklen_t length = abstract(&address, name);
    int fd = opened(k, AF_UNIX, SOCK_DGRAM);
    must(k->os->bind(fd, (struct sockaddr *)&address, length, k->os) == 0);
    return fd;
}

static void tell_unix_sizes(struct kernel *k, const void *arg)
{
    static const size_t sizes[] = {0, 1, 99967, 99968, 99969, 100000, 200000};
    static char data[200000];
    struct sockaddr_un to;
    socklen_t length = abstract(&to, 'a');
    int in = bound_unix(k, 'a'), out = opened(k, AF_UNIX, SOCK_DGRAM), size = 50000;
    (void)arg;
    must(k->os->setsockopt(out, SOL_SOCKET, SO_SNDBUF, &size, sizeof size, k->os) == 0);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        say(k, "\n        %zu bytes", sizes[i]);
        say_result(k, "sent", k->os->sendto(out, data, sizes[i], 0, (struct sockaddr *)&to, length, k->os));
        say_result(k, "came", k->os->recv(in, data, sizeof data, 0, k->os));
        say_result(k, "masks", (int)(mask(k, in) << 8 | mask(k, out)));
    }
    k->os->close(in, k->os);
    k->os->close(out, k->os);
}

START_TEST(unix_datagrams_take_as_much)
{
    compare(tell_unix_sizes, NULL);
}
END_TEST

/* What the wait says of a sender before and after its receiver is full, and when there is room again. */
static void say_sender(struct kernel *k, int out, int set)
{
    struct epoll_event event = {.events = 0};
    int count = k->os->epoll_wait(set, &event, 1, 0, k->os);
    say(k, " [poll %x, epoll %d %x]", mask(k, out), count, count > 0 ? event.events : 0);
}

enum relation {
    STRANGERS,
    ONE_WAY,
    MUTUAL,
    TO_ITSELF,
    ELSEWHERE, /* one way; its receiver turns away when it is full */
    RELATIONS
};

/* Sends until it is refused: how often. */
static int fill(struct kernel *k, int out, enum relation relation, const struct sockaddr_un *to, socklen_t length)
{
    int sent = 0;
    long n = 1;
    while (n > 0 && sent < 50) {
        n = relation == STRANGERS ? k->os->sendto(out, "x", 1, 0, (const struct sockaddr *)to, length, k->os)
                                  : k->os->send(out, "x", 1, 0, k->os);
        sent += n > 0;
    }
    say_result(k, "sent", sent);
    say_result(k, "then", n);
    return sent;
}

static void turn_away(struct kernel *k, int in, int out, int set)
{
    struct sockaddr_un other;
    socklen_t length = abstract(&other, 'c');
    int third = bound_unix(k, 'c');
    say_result(k, "away", k->os->connect(in, (struct sockaddr *)&other, length, k->os));
    say_sender(k, out, set);
    say_result(k, "sent", k->os->send(out, "x", 1, 0, k->os));
    other.sun_family = AF_UNSPEC;
    say_result(k, "back", k->os->connect(in, (struct sockaddr *)&other, sizeof other.sun_family, k->os));
    say_sender(k, out, set);
    k->os->close(third, k->os);
}

static void tell_unix_queue(struct kernel *k, const void *arg)
{
    enum relation relation = *(const enum relation *)arg;
    struct sockaddr_un to, back;
    socklen_t length = abstract(&to, 'a'), back_length = abstract(&back, 'b');
    int in = bound_unix(k, 'a'), out = relation == TO_ITSELF ? in : bound_unix(k, 'b');
    int set = k->os->epoll_create(k->os);
    struct epoll_event event = {.events = EPOLLOUT};
    char byte;
    must(k->os->epoll_ctl(set, EPOLL_CTL_ADD, out, &event, k->os) == 0);
    if (relation != STRANGERS)
        must(k->os->connect(out, (struct sockaddr *)&to, length, k->os) == 0);
    if (relation == MUTUAL)
        must(k->os->connect(in, (struct sockaddr *)&back, back_length, k->os) == 0);
    for (int round = 0; round < 3; round++) {
        say_sender(k, out, set);
        /* No limit but what the sender's buffer takes, which is each kernel's own. */
        if (relation == MUTUAL || relation == TO_ITSELF)
            for (int i = 0; i < 20; i++)
                say_result(k, "sent", k->os->send(out, "x", 1, 0, k->os));
        else
            fill(k, out, relation, &to, length);
        say_sender(k, out, set);
        if (relation == ELSEWHERE && round == 0)
            turn_away(k, in, out, set);
        for (int i = 0; i <= round; i++) {
            say_result(k, "came", k->os->recv(in, &byte, 1, 0, k->os));
            say_sender(k, out, set);
        }
        if (round == 1) /* all of it */
            while (k->os->recv(in, &byte, 1, 0, k->os) > 0)
                ;
    }
    k->os->close(in, k->os);
    say_sender(k, out, set);
    if (out != in)
        k->os->close(out, k->os);
    k->os->close(set, k->os);
}

START_TEST(unix_queues_are_as_long)
{
    enum relation relation = (enum relation)_i;
    skip_unless(alone, "the length of queues may be the administrator's");
    compare(tell_unix_queue, &relation);
}
END_TEST

/* -- Once found by sequences -- */

static void tell_listening_again(struct kernel *k, const void *arg)
{
    struct sockaddr_storage to;
    int listener = opened(k, AF_INET6, SOCK_STREAM), clients[3];
    (void)arg;
    for (int i = 0; i < 3; i++)
        clients[i] = opened(k, AF_INET6, SOCK_STREAM);
    must(k->os->listen(listener, 2, k->os) == 0);
    socklen_t length = address_of(k, listener, false, &to);
    ((struct sockaddr_in6 *)&to)->sin6_addr = in6addr_loopback;
    for (int i = 0; i < 2; i++)
        k->os->connect(clients[i], (struct sockaddr *)&to, length, k->os);
    say_result(k, "shutdown", k->os->shutdown(listener, SHUT_RD, k->os));
    say_result(k, "listen", k->os->listen(listener, 1, k->os));
    address_of(k, listener, false, &to); /* with another port */
    ((struct sockaddr_in6 *)&to)->sin6_addr = in6addr_loopback;
    k->os->connect(clients[2], (struct sockaddr *)&to, length, k->os);
    for (int tries = 0; k->world == NULL && !(mask(k, listener) & POLLIN) && tries < 1000; tries++)
        poll(NULL, 0, 1);
    say_result(k, "listener", (int)mask(k, listener));
    for (int i = 0; i < 3; i++) {
        say_result(k, "client", (int)mask(k, clients[i]));
        k->os->close(clients[i], k->os);
    }
    k->os->close(listener, k->os);
}

START_TEST(a_listener_that_was_shut_down_listens_again)
{
    compare(tell_listening_again, NULL);
}
END_TEST

static void tell_late_name(struct kernel *k, const void *arg)
{
    struct sockaddr_un to, name, from;
    socklen_t length = abstract(&to, 'a'), name_length = abstract(&name, 'b'), from_length = sizeof from;
    int in = bound_unix(k, 'a'), out = opened(k, AF_UNIX, SOCK_DGRAM);
    char byte;
    (void)arg;
    say_result(k, "sent", k->os->sendto(out, "x", 1, 0, (struct sockaddr *)&to, length, k->os));
    say_result(k, "bind", k->os->bind(out, (struct sockaddr *)&name, name_length, k->os));
    k->os->close(out, k->os);
    say_result(k, "came", k->os->recvfrom(in, &byte, 1, 0, (struct sockaddr *)&from, &from_length, k->os));
    say(k, " from %u bytes", from_length);
    for (int i = 0; i < 20; i++) /* its own queue has no end */
        say_result(k, "sent", k->os->sendto(in, "x", 1, 0, (struct sockaddr *)&to, length, k->os));
    k->os->close(in, k->os);
}

START_TEST(a_datagram_keeps_the_name_that_its_sender_got_later)
{
    compare(tell_late_name, NULL);
}
END_TEST

static void tell_failed_bind(struct kernel *k, const void *arg)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(1), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_storage taken, name;
    int holder = opened(k, AF_INET6, SOCK_STREAM), client = opened(k, AF_INET6, SOCK_STREAM), error = 0;
    socklen_t length, error_length = sizeof error;
    (void)arg;
    must(k->os->listen(holder, 1, k->os) == 0);
    k->os->connect(client, (struct sockaddr *)&to, sizeof to, k->os);
    for (int tries = 0; k->world == NULL && !(mask(k, client) & POLLHUP) && tries < 1000; tries++)
        poll(NULL, 0, 1);
    k->os->getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &error_length, k->os);
    say_result(k, "connect", -error);
    length = address_of(k, holder, false, &taken);
    say_result(k, "bind", k->os->bind(client, (struct sockaddr *)&taken, length, k->os));
    address_of(k, client, false, &name);
    say(k, " any: %d", IN6_IS_ADDR_UNSPECIFIED(&((struct sockaddr_in6 *)&name)->sin6_addr));
    k->os->close(client, k->os);
    k->os->close(holder, k->os);
}

START_TEST(a_bind_that_fails_forgets_the_address_of_a_connection)
{
    compare(tell_failed_bind, NULL);
}
END_TEST

/* -- What is refused -- */

static int try_socket(struct os *os, int family, int type, int protocol)
{
    int fd = os->socket(family, type, protocol, os);
    if (fd >= 0)
        os->close(fd, os);
    return fd >= 0 ? 0 : fd;
}

START_TEST(what_is_not_simulated_is_refused)
{
    static const int refused[][2] = {{SOL_SOCKET, SO_RCVTIMEO},   {SOL_SOCKET, SO_SNDTIMEO},
                                     {SOL_SOCKET, SO_RCVLOWAT},   {SOL_SOCKET, SO_TIMESTAMP},
                                     {SOL_SOCKET, SO_PASSCRED},   {IPPROTO_TCP, TCP_DEFER_ACCEPT},
                                     {IPPROTO_TCP, TCP_MAXSEG},   {IPPROTO_TCP, TCP_FASTOPEN},
                                     {IPPROTO_IP, IP_FREEBIND},   {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
                                     {IPPROTO_IP, IP_TRANSPARENT}};
    struct asyncore_sim *world;
    int value[4] = {0};
    ck_assert_int_eq(asyncore_sim_new(&world, 1, NULL), 0);
    struct os *os = sim_os(world, "host");
    ck_assert_int_eq(try_socket(os, AF_UNIX, SOCK_SEQPACKET, 0), -ESOCKTNOSUPPORT);
    ck_assert_int_eq(try_socket(os, AF_INET, SOCK_SEQPACKET, 0), -ESOCKTNOSUPPORT);
    ck_assert_int_eq(try_socket(os, AF_NETLINK, SOCK_DGRAM, 0), -EAFNOSUPPORT);
    int fd = os->socket(AF_INET, SOCK_STREAM, 0, os);
    for (size_t i = 0; i < COUNT(refused); i++) {
        socklen_t length = sizeof value;
        ck_assert_int_eq(os->setsockopt(fd, refused[i][0], refused[i][1], value, sizeof value, os), -ENOPROTOOPT);
        ck_assert_int_eq(os->getsockopt(fd, refused[i][0], refused[i][1], value, &length, os), -ENOPROTOOPT);
    }
    os->close(fd, os);
    asyncore_sim_free(world);
}
END_TEST

/* -- Signals -- */

#define MOST_SIGNALS 4

struct listener {
    int fd, number, was_blocked; /* fd -1: not open */
};

static int numbers(uint32_t which)
{
    const int all[] = {SIGUSR1, SIGUSR2, SIGRTMIN, SIGRTMIN + 1};
    return all[which % COUNT(all)];
}

/* Only what is blocked, by whoever opened it first: it would end the process, and do nothing in a simulated host. */
static void raise_one(struct kernel *k, int number, const bool blocked[65])
{
    if (!blocked[number])
        return;
    say(k, " raise %d", number);
    if (k->world == NULL)
        must(raise(number) == 0);
    else
        must(asyncore_sim_raise(k->world, "host", number) == 0);
}

static void read_signals(struct kernel *k, int fd, size_t size)
{
    struct signalfd_siginfo info[4] = {{.ssi_signo = 0}};
    say(k, " size %zu", size);
    say_result(k, "read", k->os->read(fd, info, size, k->os));
    say(k, " of %u %u %u", info[0].ssi_signo, info[1].ssi_signo, info[2].ssi_signo);
}

static void open_or_close(struct kernel *k, struct listener *l, int number, bool blocked[65])
{
    if (l->fd >= 0) {
        k->os->signal_close(l->fd, l->number, l->was_blocked, k->os);
        say(k, " close %d", l->number);
        blocked[l->number] = blocked[l->number] && l->was_blocked;
        l->fd = -1;
        return;
    }
    l->number = number;
    l->fd = k->os->signal_open(number, &l->was_blocked, k->os);
    must(l->fd >= 0);
    say(k, " open %d, was blocked: %d", number, l->was_blocked);
    blocked[number] = true;
}

static void tell_signals(struct kernel *k, const void *arg)
{
    static const size_t sizes[] = {0, 127, 128, 128, 255, 256, 512};
    uint32_t random = *(const uint32_t *)arg;
    struct listener listeners[MOST_SIGNALS];
    bool blocked[65] = {false};
    for (int i = 0; i < MOST_SIGNALS; i++)
        listeners[i].fd = -1;
    for (int i = 0; i < 40; i++) {
        struct listener *l = &listeners[(random_next(&random) >> 8) % MOST_SIGNALS];
        uint32_t what = (random_next(&random) >> 8) % 8, which = random_next(&random) >> 8;
        if (what == 0)
            open_or_close(k, l, numbers(which), blocked);
        else if (what < 5)
            raise_one(k, numbers(which), blocked);
        else if (l->fd >= 0)
            read_signals(k, l->fd, sizes[which % COUNT(sizes)]);
        for (int j = 0; j < MOST_SIGNALS; j++)
            if (listeners[j].fd >= 0)
                say(k, " %d:%x", j, mask(k, listeners[j].fd));
    }
    for (int i = 0; i < MOST_SIGNALS; i++)
        if (listeners[i].fd >= 0)
            open_or_close(k, &listeners[i], 0, blocked);
}

static void tell_signal_numbers(struct kernel *k, const void *arg)
{
    (void)arg;
    for (int number = -1; number <= 66; number++) {
        int was_blocked = 0, fd = k->os->signal_open(number, &was_blocked, k->os);
        say(k, " %d", number);
        say_result(k, "open", fd < 0 ? fd : 0);
        if (fd < 0)
            continue;
        say_result(k, "write", k->os->write(fd, "12345678", 8, k->os));
        k->os->signal_close(fd, number, was_blocked, k->os);
    }
}

START_TEST(signals_come_alike)
{
    compare(tell_signal_numbers, NULL);
    for (uint32_t seed = 1; seed <= (runs_slowly() ? 50 : 500); seed++)
        compare(tell_signals, &seed);
}
END_TEST

static void begin(void)
{
    alone = leave_network();
}

void add_values(TCase *tests)
{
    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_loop_test(tests, options_have_the_same_values, 0, COUNT(options));
    tcase_add_test(tests, linger_and_buffers_have_the_same_values);
    tcase_add_loop_test(tests, udp_takes_as_much, 0, COUNT(ways));
    tcase_add_test(tests, unix_datagrams_take_as_much);
    tcase_add_loop_test(tests, unix_queues_are_as_long, 0, RELATIONS);
    tcase_add_test(tests, a_listener_that_was_shut_down_listens_again);
    tcase_add_test(tests, a_datagram_keeps_the_name_that_its_sender_got_later);
    tcase_add_test(tests, a_bind_that_fails_forgets_the_address_of_a_connection);
    tcase_add_test(tests, what_is_not_simulated_is_refused);
    tcase_add_test(tests, signals_come_alike);
}
