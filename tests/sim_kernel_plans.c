/* sim_kernel_plans.c: sequences of calls from a seed. A PLAN is a few calls that lead somewhere, as a program makes
 * them: a listener, its clients, bytes, their ends. A sequence weaves some plans together, throws calls in that
 * nobody would make, and goes on with more of those when the plans are through.
 *
 * What a sequence sends outside FILL is bounded as a whole (`budget`, `datagrams`), so that it fits the smallest buffer
 * on its way whatever the kernel's bookkeeping takes of it. */
#include "sim_kernel.h"
#include <fcntl.h>
#include <netinet/tcp.h>

#define PLANS 4
#define LONG  80

struct maker {
    uint32_t random;
    enum theme theme;
    struct call plans[PLANS][LONG];
    int counts[PLANS], current;
    int slots;     /* used so far */
    long budget;   /* bytes that may still be sent */
    int datagrams; /* likewise */
    bool is_dgram[SLOTS];
    bool alone; /* in a network of its own */
};

static unsigned below(struct maker *m, unsigned n)
{
    return (unsigned)((uint64_t)random_next(&m->random) * n >> 24); /* its upper bits are the better ones */
}

static bool one_in(struct maker *m, unsigned n)
{
    return below(m, n) == 0;
}

#define one_of(m, ...) ((const int[]){__VA_ARGS__}[below(m, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))])

static void add(struct maker *m, struct call call)
{
    if (m->counts[m->current] < LONG)
        m->plans[m->current][m->counts[m->current]++] = call;
}

static int slot(struct maker *m)
{
    return m->slots < SLOTS ? m->slots++ : SLOTS - 1;
}

/* -- Pieces of plans -- */

static int some_socket(struct maker *m, int family, int type)
{
    int s = slot(m);
    m->is_dgram[s] = type == SOCK_DGRAM;
    add(m, (struct call){.kind = SOCKET, .a = s, .level = family, .flags = type});
    return s;
}

static void set(struct maker *m, int s, int level, int option, int value)
{
    add(m, (struct call){.kind = SETSOCKOPT,
                         .a = s,
                         .level = level,
                         .option = option,
                         .value = value,
                         .size = 4 + 4 * (option == SO_LINGER)});
}

static long some_size(struct maker *m)
{
    static const long sizes[] = {0,    1,    2,    10,    100,   999,   1448,  4095,
                                 4096, 4097, 9000, 16384, 30000, 65507, 65508, 70000};
    long size = one_in(m, 2) ? (long)below(m, 3000) : sizes[below(m, COUNT(sizes))];
    return size <= m->budget ? size : m->budget;
}

static void send_some(struct maker *m, int s)
{
    static const enum kind kinds[] = {SEND, SEND, SEND, WRITE, SENDTO};
    struct call call = {.kind = kinds[below(m, COUNT(kinds))], .a = s, .size = some_size(m)};
    if (s >= 0 && m->is_dgram[s] && m->datagrams-- <= 0)
        return;
    m->budget -= call.size;
    add(m, call);
}

static void recv_some(struct maker *m, int s)
{
    static const enum kind kinds[] = {RECV, RECV, RECV, READ, RECVFROM};
    static const long sizes[] = {0, 1, 10, 100, 2000, 70000, 100000, 100000};
    int flags = one_in(m, 5) ? MSG_PEEK : 0;
    enum kind kind = kinds[below(m, COUNT(kinds))];
    if (s >= 0 && m->is_dgram[s])
        flags |= one_in(m, 5) ? MSG_TRUNC : 0;
    add(m, (struct call){.kind = kind, .a = s, .size = sizes[below(m, COUNT(sizes))], .flags = flags});
}

static void talk(struct maker *m, int a, int b, int turns)
{
    while (turns-- > 0) {
        int from = one_in(m, 2) ? a : b, to = from == a ? b : a;
        if (!one_in(m, 4))
            send_some(m, from);
        if (!one_in(m, 3))
            recv_some(m, to);
        if (one_in(m, 12))
            add(m, (struct call){.kind = GETSOCKOPT, .a = from, .level = SOL_SOCKET, .option = SO_ERROR, .size = 4});
    }
}

static void finish(struct maker *m, int s)
{
    if (one_in(m, 3))
        add(m, (struct call){.kind = SHUTDOWN, .a = s, .flags = one_of(m, SHUT_RD, SHUT_WR, SHUT_WR, SHUT_RDWR)});
    if (one_in(m, 3))
        recv_some(m, s);
    if (one_in(m, 6))
        set(m, s, SOL_SOCKET, SO_LINGER, 1);
    if (!one_in(m, 3))
        add(m, (struct call){.kind = CLOSE, .a = s});
}

static void watched(struct maker *m, int s)
{
    static const int masks[] = {0, POLLIN, POLLOUT, POLLIN | POLLOUT, POLLIN | POLLRDHUP, POLLPRI, ALL_POLL};
    if (!one_in(m, 3))
        return;
    int e = slot(m);
    add(m, (struct call){.kind = EPOLL, .a = e});
    add(m, (struct call){
               .kind = EPOLL_CTL, .a = e, .b = s, .option = EPOLL_CTL_ADD, .masks = {masks[below(m, COUNT(masks))]}});
    add(m, (struct call){.kind = EPOLL_WAIT, .a = e, .size = SLOTS});
}

/* -- Plans -- */

static void converse(struct maker *m, int client, int server)
{
    watched(m, one_in(m, 2) ? client : server);
    talk(m, client, server, 1 + (int)below(m, 6));
    if (one_in(m, 10))
        add(m, (struct call){.kind = FILL, .a = client, .b = server});
    int first = one_in(m, 2) ? client : server, second = first == client ? server : client;
    finish(m, first);
    talk(m, client, server, (int)below(m, 3));
    finish(m, second);
    talk(m, client, server, (int)below(m, 2));
}

static void connect_to(struct maker *m, int s, enum where where, int number)
{
    for (int n = one_of(m, 1, 1, 2, 2, 3); n > 0; n--)
        add(m, (struct call){.kind = CONNECT, .a = s, .where = where, .number = number});
}

static void plan_tcp(struct maker *m)
{
    static const struct {
        int family;
        enum where bind, connect;
        int client;
    } ways[] = {
        {AF_INET, LOOPBACK4, OF_SLOT, AF_INET},
        {AF_INET, LOOPBACK4, OF_SLOT, AF_INET},
        {AF_INET, ANY4, OF_SLOT, AF_INET},
        {AF_INET6, LOOPBACK6, OF_SLOT, AF_INET6},
        {AF_INET6, ANY6, OF_SLOT, AF_INET6},
        {AF_INET6, ANY6, PORT_AT_4, AF_INET},
        {AF_INET6, ANY6, OF_SLOT_MAPPED, AF_INET6},
        {AF_INET6, MAPPED, PORT_AT_4, AF_INET},
        {AF_INET, LOOPBACK4, OF_SLOT_MAPPED, AF_INET6},
        {AF_INET, ANY4, OF_SLOT_EXACT, AF_INET},
    };
    unsigned way = below(m, COUNT(ways));
    int listener = some_socket(m, ways[way].family, SOCK_STREAM);
    if (one_in(m, 3))
        set(m, listener, SOL_SOCKET, SO_REUSEADDR, 1);
    if (one_in(m, 6))
        set(m, listener, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (!one_in(m, 12))
        add(m, (struct call){.kind = BIND, .a = listener, .where = ways[way].bind});
    if (!one_in(m, 12))
        add(m, (struct call){.kind = LISTEN, .a = listener, .size = one_of(m, 0, 1, 1, 2, 5, 128, -1)});
    watched(m, listener);
    int clients = one_of(m, 1, 1, 1, 2, 3), client[3], server[3];
    for (int i = 0; i < clients; i++) {
        client[i] = some_socket(m, ways[way].client, SOCK_STREAM);
        watched(m, client[i]);
        connect_to(m, client[i], ways[way].connect, listener);
    }
    for (int i = 0; i < clients; i++)
        add(m, (struct call){
                   .kind = ACCEPT, .a = listener, .b = server[i] = slot(m), .size = one_of(m, 0, 128, 128, 128, 4)});
    if (one_in(m, 4))
        add(m, (struct call){.kind = CLOSE, .a = listener});
    for (int i = 0; i < clients; i++)
        converse(m, client[i], server[i]);
}

static const int paths[] = {PATH, PATH, PATH_PADDED, PATH_UNENDED, PATH_ABSTRACT, PATH_ABSTRACT};

static void plan_unix(struct maker *m)
{
    int listener = some_socket(m, AF_UNIX, SOCK_STREAM), path = (int)below(m, 3);
    enum where where = (enum where)paths[below(m, COUNT(paths))];
    add(m, (struct call){.kind = BIND, .a = listener, .where = where, .number = path});
    if (!one_in(m, 12))
        add(m, (struct call){.kind = LISTEN, .a = listener, .size = one_of(m, 0, 1, 1, 2, 5, 128)});
    watched(m, listener);
    int clients = one_of(m, 1, 1, 1, 2, 3), client[3], server[3];
    for (int i = 0; i < clients; i++) {
        client[i] = some_socket(m, AF_UNIX, SOCK_STREAM);
        if (one_in(m, 4))
            add(m, (struct call){.kind = BIND, .a = client[i], .where = PATH_ABSTRACT, .number = 10 + client[i]});
        connect_to(m, client[i], one_in(m, 3) ? OF_SLOT : where, where == OF_SLOT ? listener : path);
        m->plans[m->current][m->counts[m->current] - 1].number =
            m->plans[m->current][m->counts[m->current] - 1].where == OF_SLOT ? listener : path;
    }
    for (int i = 0; i < clients; i++)
        add(m, (struct call){.kind = ACCEPT, .a = listener, .b = server[i] = slot(m), .size = one_of(m, 0, 128, 128)});
    if (one_in(m, 4))
        add(m, (struct call){.kind = CLOSE, .a = listener});
    for (int i = 0; i < clients; i++)
        converse(m, client[i], server[i]);
}

static void exchange(struct maker *m, const int s[3])
{
    for (int i = 1 + (int)below(m, 8); i > 0; i--) {
        int from = s[below(m, 3)], to = s[below(m, 3)];
        if (one_in(m, 4)) {
            send_some(m, from);
        } else if (m->datagrams-- > 0) {
            long size = some_size(m);
            m->budget -= size;
            add(m, (struct call){.kind = SENDTO, .a = from, .where = OF_SLOT, .number = to, .size = size});
        }
        if (!one_in(m, 3))
            recv_some(m, to);
    }
}

/* More than a queue takes. How long that is is known only where nobody has set it. */
static void flood(struct maker *m, const int s[3])
{
    for (int i = 0; m->alone && i < 16; i++) {
        int from = s[one_in(m, 3) ? below(m, 3) : 0];
        long size = below(m, 50);
        enum kind kind = one_in(m, 2) ? SEND : SENDTO;
        add(m, (struct call){.kind = kind, .a = from, .where = OF_SLOT, .number = s[1], .size = size});
        if (one_in(m, 6))
            recv_some(m, s[1]);
    }
}

static void plan_dgram(struct maker *m)
{
    bool local = one_in(m, 2), six = one_in(m, 3);
    int s[3];
    for (int i = 0; i < 3; i++) {
        s[i] = some_socket(m, local ? AF_UNIX : six && i != 1 ? AF_INET6 : AF_INET, SOCK_DGRAM);
        enum where bind = local           ? (enum where)paths[below(m, COUNT(paths))]
                          : six && i != 1 ? (enum where)one_of(m, LOOPBACK6, ANY6, MAPPED)
                                          : (enum where)one_of(m, LOOPBACK4, ANY4);
        if (!one_in(m, 4))
            add(m, (struct call){.kind = BIND, .a = s[i], .where = bind, .number = 20 + s[i]});
        watched(m, s[i]);
    }
    exchange(m, s);
    if (one_in(m, 2))
        add(m, (struct call){.kind = CONNECT, .a = s[0], .where = OF_SLOT, .number = s[1]});
    if (one_in(m, 3))
        add(m, (struct call){.kind = CONNECT, .a = s[1], .where = OF_SLOT, .number = s[0]});
    exchange(m, s);
    if (local && one_in(m, 4))
        flood(m, s);
    if (one_in(m, 3))
        add(m, (struct call){.kind = CONNECT, .a = s[2], .where = one_in(m, 2) ? NOBODY4 : UNSPEC});
    exchange(m, s);
    for (int i = 0; i < 3; i++)
        finish(m, s[i]);
    exchange(m, s);
}

static void plan_pipe(struct maker *m)
{
    int in = slot(m), out = slot(m);
    add(m, (struct call){.kind = PIPE, .a = in, .b = out});
    watched(m, one_in(m, 2) ? in : out);
    for (int i = (int)below(m, 8); i > 0; i--) {
        long size = some_size(m) / 4;
        m->budget -= size;
        add(m, (struct call){.kind = WRITE, .a = out, .size = size});
        if (one_in(m, 2))
            add(m, (struct call){.kind = READ, .a = in, .size = one_of(m, 0, 1, 100, 5000, 100000)});
    }
    if (one_in(m, 4))
        add(m, (struct call){.kind = FILL, .a = out, .b = in});
    if (!one_in(m, 4))
        add(m, (struct call){.kind = CLOSE, .a = one_in(m, 2) ? in : out});
    add(m, (struct call){.kind = WRITE, .a = out, .size = 10});
    add(m, (struct call){.kind = READ, .a = in, .size = 100});
}

static void plan_counters(struct maker *m)
{
    int event = slot(m), timer = slot(m);
    add(m, (struct call){.kind = EVENTFD, .a = event});
    add(m, (struct call){.kind = TIMERFD, .a = timer});
    watched(m, one_in(m, 2) ? event : timer);
    for (int i = 1 + (int)below(m, 8); i > 0; i--) {
        if (one_in(m, 2))
            add(m, (struct call){.kind = WRITE,
                                 .a = event,
                                 .size = one_of(m, 8, 8, 8, 8, 7, 0),
                                 .value = one_of(m, 0, 1, 1, 5, -1, -2, -2, -3)});
        if (one_in(m, 3))
            add(m, (struct call){.kind = TIMERFD_SET, .a = timer, .value = one_of(m, 0, 1, 1, 2000000000)});
        if (one_in(m, 3))
            add(m,
                (struct call){.kind = READ, .a = one_in(m, 2) ? event : timer, .size = one_of(m, 0, 7, 8, 8, 8, 100)});
    }
}

static void plan_sets(struct maker *m)
{
    int sets[3], event = slot(m);
    add(m, (struct call){.kind = EVENTFD, .a = event});
    for (int i = 0; i < 3; i++)
        add(m, (struct call){.kind = EPOLL, .a = sets[i] = slot(m)});
    for (int i = 2 + (int)below(m, 8); i > 0; i--) {
        int target = one_in(m, 2) ? sets[below(m, 3)] : (int)below(m, (unsigned)m->slots);
        add(m, (struct call){.kind = EPOLL_CTL,
                             .a = sets[below(m, 3)],
                             .b = target,
                             .option =
                                 one_of(m, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL),
                             .masks = {one_of(m, POLLIN, POLLIN, POLLIN | POLLOUT, 0)}});
        if (one_in(m, 2))
            add(m, (struct call){.kind = EPOLL_WAIT, .a = sets[below(m, 3)], .size = SLOTS});
        if (one_in(m, 3))
            add(m, (struct call){.kind = WRITE, .a = event, .size = 8, .value = 1});
        if (one_in(m, 4))
            add(m, (struct call){.kind = READ, .a = event, .size = 8});
        if (one_in(m, 8))
            add(m, (struct call){.kind = CLOSE, .a = sets[below(m, 3)]});
    }
}

/* Who may have which name. */
static void plan_names(struct maker *m)
{
    int type = one_of(m, SOCK_STREAM, SOCK_STREAM, SOCK_DGRAM), first = m->slots, count = 2 + (int)below(m, 3);
    if (first + count >= SLOTS)
        return;
    for (int i = 0; i < count; i++) {
        int family = one_of(m, AF_INET, AF_INET, AF_INET6, AF_UNIX), s = some_socket(m, family, type);
        if (one_in(m, 2))
            set(m, s, SOL_SOCKET, SO_REUSEADDR, 1);
        if (one_in(m, 6))
            set(m, s, SOL_SOCKET, SO_REUSEPORT, 1);
        if (family == AF_INET6 && one_in(m, 3))
            set(m, s, IPPROTO_IPV6, IPV6_V6ONLY, one_of(m, 0, 1));
        int where = family == AF_UNIX ? one_of(m, PATH, PATH_PADDED, PATH_UNENDED, PATH_ABSTRACT, FAMILY_ONLY)
                    : s == first      ? one_of(m, LOOPBACK4, ANY4, LOOPBACK6, ANY6)
                                 : one_of(m, OF_SLOT, OF_SLOT_EXACT, OF_SLOT_MAPPED, PORT_AT_4, PORT_AT_6, PORT_AT_ANY4,
                                          PORT_AT_ANY6);
        int number = family == AF_UNIX ? (int)below(m, 2) : first;
        add(m, (struct call){.kind = BIND, .a = s, .where = (enum where)where, .number = number});
        if (one_in(m, 3))
            add(m, (struct call){.kind = LISTEN, .a = s, .size = 5});
        if (one_in(m, 6))
            add(m, (struct call){.kind = CLOSE, .a = s});
    }
    for (int i = 0; i < count; i++)
        if (one_in(m, 2))
            add(m, (struct call){.kind = LISTEN, .a = first + i, .size = 5});
}

/* -- Calls that nobody would make -- */

static void stray_option(struct maker *m, int s)
{
    static const int options[][2] = {
        {SOL_SOCKET, SO_ERROR},     {SOL_SOCKET, SO_ERROR},      {SOL_SOCKET, SO_TYPE},
        {SOL_SOCKET, SO_DOMAIN},    {SOL_SOCKET, SO_PROTOCOL},   {SOL_SOCKET, SO_ACCEPTCONN},
        {SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_REUSEPORT},  {SOL_SOCKET, SO_LINGER},
        {SOL_SOCKET, SO_KEEPALIVE}, {SOL_SOCKET, SO_BROADCAST},  {SOL_SOCKET, 999},
        {IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_IPV6, IPV6_V6ONLY}, {IPPROTO_TCP, 999},
        {IPPROTO_IP, 999},          {IPPROTO_IPV6, 999},         {12345, 1},
        {SOL_SOCKET, SO_OOBINLINE}, {SOL_SOCKET, SO_SNDBUF},     {SOL_SOCKET, SO_RCVBUF},
        {IPPROTO_TCP, TCP_CORK},    {IPPROTO_TCP, TCP_KEEPIDLE}, {IPPROTO_TCP, TCP_KEEPCNT},
        {IPPROTO_IP, IP_TOS},       {IPPROTO_IP, IP_TTL},        {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
        {IPPROTO_IPV6, IPV6_TCLASS}};
    unsigned i = below(m, COUNT(options));
    struct call call = {
        .kind = one_in(m, 2) ? SETSOCKOPT : GETSOCKOPT, .a = s, .level = options[i][0], .option = options[i][1]};
    call.size = one_of(m, 4, 4, 4, 4, 8, 1, 0);
    call.value = one_of(m, 0, 1, 1, 2);
    if (call.level == SOL_SOCKET && call.option == SO_LINGER)
        call.size = one_of(m, 8, 8, 4);
    if (call.level == SOL_SOCKET && (call.option == SO_SNDBUF || call.option == SO_RCVBUF)) /* room enough: see above */
        call.value = 150000;
    if (call.option == TCP_CORK && call.level == IPPROTO_TCP)
        call.value = 0; /* what a cork holds back is let go after 200 ms */
    if (call.option == TCP_NODELAY && call.level == IPPROTO_TCP)
        call.value = 1; /* see make_room() */
    add(m, call);
}

/* Now and then one that is empty. */
static int some_slot(struct maker *m)
{
    int s = (int)below(m, (unsigned)m->slots + one_in(m, 8));
    return s < SLOTS ? s : SLOTS - 1;
}

static void stray_wait(struct maker *m, enum kind kind)
{
    struct call call = {.kind = kind, .size = 1 + below(m, MOST_FDS), .flags = (int)below(m, 2)};
    for (int i = 0; i < call.size; i++) {
        call.fds[i] = one_in(m, 12) ? -1 : some_slot(m);
        call.masks[i] = kind == SELECT ? (int)below(m, 8) : one_of(m, POLLIN, POLLOUT, POLLIN | POLLOUT, 0, ALL_POLL);
    }
    if (kind == SELECT && one_in(m, 30))
        call.value = -1;
    add(m, call);
}

static void stray_epoll(struct maker *m, int s)
{
    int target = (int)below(m, (unsigned)m->slots);
    if (one_in(m, 2))
        add(m, (struct call){.kind = EPOLL_WAIT, .a = s, .size = one_of(m, SLOTS, SLOTS, SLOTS, 1, 0, -1)});
    else
        add(m, (struct call){.kind = EPOLL_CTL,
                             .a = s,
                             .b = target,
                             .option = one_of(m, 1, 1, 2, 3, 3, 9),
                             .masks = {one_of(m, POLLIN, POLLOUT, 0)}});
}

static void stray_simple(struct maker *m, int s)
{
    static const enum kind kinds[] = {GETSOCKNAME, GETSOCKNAME, GETPEERNAME, GETPEERNAME, LISTEN, ACCEPT,
                                      GET_FLAGS,   SET_FLAGS,   IDENTITY,    SHUTDOWN,    CLOSE,  TIMERFD_SET};
    struct call call = {.kind = kinds[below(m, COUNT(kinds))], .a = s, .size = 128, .value = one_of(m, 0, 1)};
    if (call.kind == GETSOCKNAME || call.kind == GETPEERNAME)
        call.size = one_of(m, 128, 128, 128, 16, 5, 0);
    if (call.kind == LISTEN)
        call.size = one_of(m, 0, 1, 5);
    if (call.kind == ACCEPT)
        call.b = slot(m);
    if (call.kind == SET_FLAGS)
        call.flags = one_of(m, O_NONBLOCK, O_NONBLOCK | O_APPEND, O_NONBLOCK | O_CREAT | O_WRONLY);
    if (call.kind == SHUTDOWN)
        call.flags = one_of(m, SHUT_RD, SHUT_WR, SHUT_RDWR, SHUT_RDWR, 3, -1);
    add(m, call);
}

static void stray_address(struct maker *m, int s)
{
    struct call call = {.kind = one_in(m, 2) ? CONNECT : one_in(m, 2) ? BIND : SENDTO, .a = s};
    call.where = (enum where)(1 + below(m, WHERES - 1));
    call.number = call.where >= PATH ? (int)below(m, 3) : (int)below(m, (unsigned)m->slots);
    if (call.kind == SENDTO && m->datagrams-- <= 0)
        return;
    if (call.kind == SENDTO) {
        call.size = some_size(m);
        m->budget -= call.size;
    }
    add(m, call);
}

static void stray_socket(struct maker *m)
{
    int family = one_of(m, AF_INET, AF_INET6, AF_UNIX, AF_UNIX, 77, -1);
    int type = one_of(m, SOCK_STREAM, SOCK_STREAM, SOCK_DGRAM, SOCK_DGRAM, SOCK_RDM, 99);
    int protocol = one_of(m, 0, 0, IPPROTO_TCP, IPPROTO_UDP, 1, 999);
    if (type == SOCK_RAW || (family != AF_UNIX && protocol == 1))
        protocol = 0;
    int s = slot(m);
    m->is_dgram[s] = type == SOCK_DGRAM;
    add(m, (struct call){.kind = SOCKET, .a = s, .level = family, .flags = type, .option = protocol});
}

static void stray(struct maker *m)
{
    int s = one_in(m, 25) ? -1 : some_slot(m);
    switch (below(m, 12)) {
    case 0:
        stray_option(m, s);
        break;
    case 1:
        stray_wait(m, POLL);
        break;
    case 2:
        stray_wait(m, SELECT);
        break;
    case 3:
        stray_epoll(m, s);
        break;
    case 4:
    case 5:
        stray_simple(m, s);
        break;
    case 6:
        stray_address(m, s);
        break;
    case 7:
        send_some(m, s);
        break;
    case 8:
    case 9:
        recv_some(m, s);
        break;
    case 10:
        stray_option(m, s);
        break;
    default:
        if (one_in(m, 3))
            stray_socket(m);
        else
            stray_simple(m, s);
    }
}

/* -- Weaving -- */

static void one_plan(struct maker *m)
{
    switch (m->theme) {
    case TCP:
        plan_tcp(m);
        break;
    case UNIX_STREAMS:
        plan_unix(m);
        break;
    case DATAGRAMS:
        plan_dgram(m);
        break;
    case NAMES:
        plan_names(m);
        break;
    case DESCRIPTORS: {
        void (*const plans[])(struct maker * m) = {plan_pipe, plan_counters, plan_sets};
        plans[below(m, 3)](m);
        break;
    }
    default: {
        void (*const plans[])(struct maker * m) = {plan_tcp,      plan_unix, plan_dgram, plan_pipe,
                                                   plan_counters, plan_sets, plan_names};
        plans[below(m, COUNT(plans))](m);
    }
    }
}

int plan(enum theme theme, uint32_t seed, bool alone, struct call calls[MOST])
{
    struct maker m = {.random = seed * 2654435761u + 1,
                      .theme = theme,
                      .budget = theme == TCP ? 70000 : 25000,
                      .datagrams = 9,
                      .alone = alone};
    int count = 0, at[PLANS] = {0}, plans = 1 + (int)below(&m, theme == NAMES ? 2 : 3),
        wildness = one_of(&m, 0, 2, 6, 12);
    for (int i = 0; i < plans; i++) {
        m.current = i;
        one_plan(&m);
    }
    m.current = PLANS - 1; /* strays come from here */
    for (int left = plans; left > 0 && count < MOST;) {
        int from = (int)below(&m, (unsigned)plans);
        if (wildness != 0 && one_in(&m, (unsigned)wildness)) {
            m.counts[PLANS - 1] = 0;
            stray(&m);
            for (int i = 0; i < m.counts[PLANS - 1] && count < MOST; i++)
                calls[count++] = m.plans[PLANS - 1][i];
        } else if (at[from] < m.counts[from]) {
            calls[count++] = m.plans[from][at[from]++];
        }
        left = 0;
        for (int i = 0; i < plans; i++)
            left += at[i] < m.counts[i];
    }
    m.counts[PLANS - 1] = 0;
    for (int i = (int)below(&m, 15); i > 0 && wildness != 0; i--)
        stray(&m);
    for (int i = 0; i < m.counts[PLANS - 1] && count < MOST; i++)
        calls[count++] = m.plans[PLANS - 1][i];
    return count;
}
