/* sim_kernel_calls.c: one call to one kernel, and what came of it as text. */
#include "sim_kernel.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

static char bytes[1 << 17];

static void tell(struct side *side, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct side *side, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(side->text + side->length, sizeof side->text - side->length, format, arguments);
    va_end(arguments);
    side->length += (size_t)n;
    must(side->length < sizeof side->text);
}

static void tell_result(struct side *side, long n)
{
    side->n = n;
    if (n < 0)
        tell(side, "%s", strerror((int)-n));
    else
        tell(side, "%ld", n);
}

/* -- The real kernel's network -- */

/* A loopback device of the test's own, where nobody else has a port. Nothing changes where that is not allowed. */
bool leave_network(void)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(fd >= 0);
    must(ioctl(fd, SIOCSIFFLAGS, &lo) == 0);
    close(fd);
    return true;
}

/* -- Sequences -- */

void side_begin(struct side *side, struct asyncore_sim *world, const char *directory, unsigned seed)
{
    memset(side, 0, sizeof *side);
    side->world = world;
    side->os = world != NULL ? sim_os(world, "host") : &os_linux;
    side->directory = directory;
    side->seed = seed;
    for (int i = 0; i < SLOTS; i++)
        side->fd[i] = NOT_OPEN;
}

/* Nothing stays: resets, so that no connection waits for its time, and the names in the file system. */
void side_end(struct side *side)
{
    static const struct linger at_once = {1, 0};
    for (int i = 0; i < SLOTS; i++) {
        if (side->fd[i] == NOT_OPEN)
            continue;
        side->os->setsockopt(side->fd[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once, side->os);
        side->os->close(side->fd[i], side->os);
    }
    if (side->world != NULL)
        return;
    DIR *directory = opendir(side->directory);
    must(directory != NULL);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory))
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
}

static int fd_of(const struct side *side, int slot)
{
    return slot < 0 ? -1 : side->fd[slot];
}

static int type_of(const struct side *side, int slot)
{
    return slot < 0 ? 0 : side->type[slot];
}

static void slot_set(struct side *side, int slot, long fd, int type)
{
    if (fd < 0)
        return;
    must(side->fd[slot] == NOT_OPEN);
    side->fd[slot] = (int)fd;
    side->type[slot] = type;
}

/* -- Addresses -- */

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    struct sockaddr_storage storage;
};

static const unsigned char mapped_loopback[16] = {[10] = 0xFF, 0xFF, 127, 0, 0, 1};

static socklen_t make_in(union address *to, uint32_t host, uint16_t port)
{
    to->in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = port, .sin_addr = {htonl(host)}};
    return sizeof to->in;
}

static socklen_t make_in6(union address *to, const void *host, uint16_t port)
{
    to->in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = port};
    memcpy(&to->in6.sin6_addr, host, 16);
    return sizeof to->in6;
}

static socklen_t make_path(const struct side *side, enum where where, int number, union address *to)
{
    socklen_t base = offsetof(struct sockaddr_un, sun_path);
    to->un.sun_family = AF_UNIX;
    int n = snprintf(to->un.sun_path, sizeof to->un.sun_path, "%s%s/%s%d-%u", where == PATH_ABSTRACT ? "@" : "",
                     side->directory, where == PATH_MISSING ? "missing" : "s", number, side->seed);
    if (where == PATH_ABSTRACT)
        to->un.sun_path[0] = '\0';
    if (where == PATH_PADDED)
        return sizeof to->un;
    return base + (socklen_t)n + (where == PATH || where == PATH_MISSING);
}

static socklen_t make_of_slot(const struct side *side, enum where where, int slot, bool binds, union address *to)
{
    union address name = {.any.sa_family = AF_UNSPEC};
    socklen_t length = sizeof name;
    if (side->os->getsockname(fd_of(side, slot), &name.any, &length, side->os) < 0)
        return make_in(to, INADDR_LOOPBACK, htons(1));
    uint16_t port = name.any.sa_family == AF_UNIX ? 0 : name.in.sin_port;
    bool six = name.any.sa_family == AF_INET6, four = name.any.sa_family == AF_INET;
    if (port == 0 && !binds) /* not bound: no port to connect to */
        port = htons(1);
    switch (where) {
    case PORT_AT_4:
        return make_in(to, INADDR_LOOPBACK, port);
    case PORT_AT_6:
        return make_in6(to, &in6addr_loopback, port);
    case PORT_AT_ANY4:
        return make_in(to, INADDR_ANY, port);
    case PORT_AT_ANY6:
        return make_in6(to, &in6addr_any, port);
    case OF_SLOT_MAPPED:
        return make_in6(to, mapped_loopback, port);
    default:
        break;
    }
    if (where == OF_SLOT && four && name.in.sin_addr.s_addr == htonl(INADDR_ANY))
        return make_in(to, INADDR_LOOPBACK, port);
    if (where == OF_SLOT && six && IN6_IS_ADDR_UNSPECIFIED(&name.in6.sin6_addr))
        return make_in6(to, &in6addr_loopback, port);
    if (four || six)
        name.in.sin_port = port;
    *to = name;
    return length;
}

static socklen_t make_address(const struct side *side, const struct call *call, union address *to)
{
    memset(to, 0, sizeof *to);
    switch (call->where) {
    case NOWHERE:
        return 0;
    case LOOPBACK4:
        return make_in(to, INADDR_LOOPBACK, 0);
    case LOOPBACK6:
        return make_in6(to, &in6addr_loopback, 0);
    case MAPPED:
        return make_in6(to, mapped_loopback, 0);
    case ANY4:
        return make_in(to, INADDR_ANY, 0);
    case ANY6:
        return make_in6(to, &in6addr_any, 0);
    case NOBODY4:
        return make_in(to, INADDR_LOOPBACK, htons(1));
    case NOBODY6:
        return make_in6(to, &in6addr_loopback, htons(1));
    case FOREIGN4:
        return make_in(to, 0xC0000201, 0); /* RFC 5737: nobody's */
    case UNSPEC:
        return sizeof to->in;
    case UNKNOWN_FAMILY:
        to->any.sa_family = 77;
        return sizeof to->in;
    case ONE_BYTE:
        return 1;
    case HALF_IN:
        return make_in(to, INADDR_LOOPBACK, htons(1)) / 2;
    case FAMILY_ONLY:
        to->any.sa_family = AF_UNIX;
        return sizeof(sa_family_t);
    case PATH:
    case PATH_PADDED:
    case PATH_UNENDED:
    case PATH_ABSTRACT:
    case PATH_MISSING:
        return make_path(side, call->where, call->number, to);
    default:
        return make_of_slot(side, call->where, call->number, call->kind == BIND, to);
    }
}

/* The n-th port that turned up; small ones are as they are. */
static void tell_port(struct side *side, int type, bool six, int number)
{
    int i = 0;
    while (i < side->port_count &&
           (side->ports[i].number != number || side->ports[i].type != type || side->ports[i].six != six))
        i++;
    if (number < 1024) {
        tell(side, ":%d", number);
        return;
    }
    must(i < (int)COUNT(side->ports));
    side->ports[i] = (struct port){type, number, six};
    side->port_count += i == side->port_count;
    tell(side, ":p%d", i + 1);
}

static void tell_path(struct side *side, const union address *address, socklen_t length)
{
    char name[sizeof address->un.sun_path + 1] = "";
    size_t n = length - offsetof(struct sockaddr_un, sun_path);
    memcpy(name, address->un.sun_path, n < sizeof name ? n : sizeof name - 1);
    if (n == 0)
        tell(side, " unnamed");
    else if (name[0] == '\0' && n == 6)
        tell(side, " automatic");
    else
        tell(side, " %s%s", name[0] == '\0' ? "@" : "", name[0] == '\0' ? name + 1 : name);
}

static void tell_address(struct side *side, int type, const union address *address, socklen_t given, socklen_t length)
{
    char host[INET6_ADDRSTRLEN] = "";
    tell(side, " length %u", length);
    if (length > given || length < sizeof(sa_family_t))
        return; /* cut off, or nothing */
    tell(side, " family %d", address->any.sa_family);
    if (address->any.sa_family == AF_UNIX) {
        tell_path(side, address, length);
    } else if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof host);
        tell(side, " %s", host);
        tell_port(side, type, false, ntohs(address->in.sin_port));
    } else if (address->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof host);
        tell(side, " %s", host);
        tell_port(side, type, !IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr), ntohs(address->in6.sin6_port));
    }
}

/* -- Making -- */

/* So much room that what is sent outside FILL always fits, whatever bookkeeping takes of it; and bytes leave at once,
 * where Nagle's algorithm would keep some until others are acknowledged. */
static void make_room(struct side *side, int fd)
{
    int size = 212992, yes = 1;
    side->os->setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes, side->os);
    side->os->setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size, side->os);
    side->os->setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size, side->os);
}

static void call_socket(struct side *side, const struct call *call)
{
    int fd = side->os->socket(call->level, call->flags, call->option, side->os);
    tell_result(side, fd < 0 ? fd : 0);
    if (fd < 0)
        return;
    make_room(side, fd);
    slot_set(side, call->a, fd, call->flags);
}

static void call_pipe(struct side *side, const struct call *call)
{
    int fds[2], result = side->world != NULL                      ? asyncore_sim_pipe(side->world, "host", fds)
                         : pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno
                                                                  : 0;
    tell_result(side, result);
    if (result < 0)
        return;
    for (int i = 0; i < 2 && side->world != NULL; i++)
        side->os->set_flags(fds[i], O_NONBLOCK, side->os);
    slot_set(side, call->a, fds[0], 0);
    slot_set(side, call->b, fds[1], 0);
}

static void call_make(struct side *side, const struct call *call)
{
    int fd = call->kind == EVENTFD ? side->os->eventfd(side->os)
             : call->kind == EPOLL ? side->os->epoll_create(side->os)
                                   : side->os->timerfd(side->os);
    tell_result(side, fd < 0 ? fd : 0);
    slot_set(side, call->a, fd, call->kind == EVENTFD ? EVENTFD_TYPE : 0);
}

/* -- Sockets -- */

static void call_toward(struct side *side, const struct call *call)
{
    union address to;
    socklen_t length = make_address(side, call, &to);
    int fd = fd_of(side, call->a);
    tell_result(side, call->kind == BIND ? side->os->bind(fd, &to.any, length, side->os)
                                         : side->os->connect(fd, &to.any, length, side->os));
}

static void call_accept(struct side *side, const struct call *call)
{
    union address from = {.any.sa_family = 0};
    socklen_t given = (socklen_t)call->size, length = given;
    int fd =
        side->os->accept(fd_of(side, call->a), given != 0 ? &from.any : NULL, given != 0 ? &length : NULL, side->os);
    tell_result(side, fd < 0 ? fd : 0);
    if (fd < 0)
        return;
    make_room(side, fd); /* Unix sockets do not inherit it */
    slot_set(side, call->b, fd, type_of(side, call->a));
    if (given != 0)
        tell_address(side, type_of(side, call->a), &from, given, length);
}

static void call_name(struct side *side, const struct call *call)
{
    union address name = {.any.sa_family = 0};
    socklen_t given = (socklen_t)call->size, length = given;
    int fd = fd_of(side, call->a);
    int result = call->kind == GETSOCKNAME ? side->os->getsockname(fd, &name.any, &length, side->os)
                                           : side->os->getpeername(fd, &name.any, &length, side->os);
    tell_result(side, result);
    if (result == 0)
        tell_address(side, type_of(side, call->a), &name, given, length);
}

static void call_setsockopt(struct side *side, const struct call *call)
{
    union {
        int number;
        struct linger linger;
        char room[16];
    } value = {.room = ""};
    if (call->level == SOL_SOCKET && call->option == SO_LINGER)
        value.linger = (struct linger){call->value != 0, 0};
    else
        value.number = (int)call->value;
    tell_result(side, side->os->setsockopt(fd_of(side, call->a), call->level, call->option, &value,
                                           (socklen_t)call->size, side->os));
}

static void call_getsockopt(struct side *side, const struct call *call)
{
    int value[4] = {0};
    socklen_t length = (socklen_t)call->size;
    int result = side->os->getsockopt(fd_of(side, call->a), call->level, call->option, value, &length, side->os);
    tell_result(side, result);
    if (result < 0)
        return;
    tell(side, " length %u", length);
    for (unsigned i = 0; i < length / sizeof *value; i++)
        tell(side, " %d", value[i]);
    side->n = value[0];
}

/* -- Bytes -- */

static void tell_bytes(struct side *side, const char *data, size_t size)
{
    uint32_t digest = 2166136261u;
    for (size_t i = 0; i < size; i++)
        digest = (digest ^ (unsigned char)data[i]) * 16777619u;
    tell(side, " bytes %08x", digest);
}

static void make_bytes(unsigned index, size_t size)
{
    must(size <= sizeof bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(index * 31 + i + i / 251);
}

static long send_once(struct side *side, const struct call *call)
{
    union address to;
    socklen_t length = make_address(side, call, &to);
    size_t size = (size_t)call->size;
    int fd = fd_of(side, call->a);
    if (call->kind == SEND)
        return side->os->send(fd, bytes, size, call->flags | MSG_NOSIGNAL, side->os);
    if (call->kind == WRITE)
        return side->os->write(fd, bytes, size, side->os);
    return side->os->sendto(fd, bytes, size, call->flags | MSG_NOSIGNAL, call->where == NOWHERE ? NULL : &to.any,
                            length, side->os);
}

static void call_send(struct side *side, const struct call *call, unsigned index)
{
    make_bytes(index, (size_t)call->size);
    if (call->value != 0) { /* an eventfd's */
        uint64_t value = (uint64_t)call->value;
        memcpy(bytes, &value, sizeof value);
    }
    tell_result(side, send_once(side, call));
}

/* The rest of what the simulation had in one piece may come a moment later. */
static long recv_rest(struct side *side, const struct call *call, long n)
{
    bool whole = call->kind == RECV && (call->flags & MSG_PEEK) == 0 && type_of(side, call->a) == SOCK_STREAM;
    while (whole && n > 0 && n < side->expected) {
        struct pollfd wait = {.fd = side->fd[call->a], .events = POLLIN};
        if (poll(&wait, 1, 1000) <= 0)
            break;
        long more = side->os->recv(wait.fd, bytes + n, (size_t)(side->expected - n), 0, side->os);
        if (more <= 0)
            break;
        n += more;
    }
    return n;
}

static void call_recv(struct side *side, const struct call *call)
{
    union address from = {.any.sa_family = 0};
    socklen_t length = sizeof from;
    size_t size = (size_t)call->size;
    int fd = fd_of(side, call->a);
    long n = call->kind == RECV   ? side->os->recv(fd, bytes, size, call->flags, side->os)
             : call->kind == READ ? side->os->read(fd, bytes, size, side->os)
                                  : side->os->recvfrom(fd, bytes, size, call->flags, &from.any, &length, side->os);
    n = side->world == NULL ? recv_rest(side, call, n) : n;
    tell_result(side, n);
    if (n > 0)
        tell_bytes(side, bytes, (size_t)n < size ? (size_t)n : size);
    if (n >= 0 && call->kind == RECVFROM)
        tell_address(side, type_of(side, call->a), &from, sizeof from, length);
}

static unsigned mask_of(struct side *side, int slot, unsigned wanted)
{
    struct pollfd one = {.fd = fd_of(side, slot), .events = (short)wanted};
    side->os->poll(&one, 1, 0, side->os);
    return (unsigned short)one.revents;
}

static int unsent(const struct side *side, int fd)
{
    int bytes_left = 0;
    return side->world == NULL && ioctl(fd, SIOCOUTQ, &bytes_left) == 0 ? bytes_left : 0;
}

/* Reads until nothing is left on the way; the real kernel is given time for it. */
static size_t drain(struct side *side, int from, int to)
{
    size_t total = 0;
    for (int idle = 0; idle < 50;) {
        struct pollfd wait = {.fd = fd_of(side, to), .events = POLLIN};
        ssize_t n = -EAGAIN;
        if (side->os->poll(&wait, 1, side->world == NULL ? 2 : 0, side->os) == 1)
            n = side->os->read(wait.fd, bytes, sizeof bytes, side->os);
        if ((n != -EAGAIN && n < 0) || (n <= 0 && unsent(side, fd_of(side, from)) == 0))
            break;
        if (n <= 0) { /* 0: nothing yet, after SHUT_RD */
            poll(NULL, 0, 1);
            idle++;
        }
        total += n > 0 ? (size_t)n : 0;
    }
    return total;
}

/* How many bytes that takes is each kernel's own; that it ends, and ends well, is not. */
static void call_fill(struct side *side, const struct call *call)
{
    int fd = fd_of(side, call->a);
    size_t sent = 0;
    ssize_t n = 0;
    make_bytes(1, 30000);
    for (int quiet = 0; quiet < (side->world == NULL ? 3 : 1);) { /* what is on its way makes room once more */
        n = side->os->write(fd, bytes, 30000, side->os);
        if (n > 0)
            sent += (size_t)n;
        else if (n != -EAGAIN)
            break;
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        if (n == -EAGAIN && (side->world != NULL || poll(&wait, 1, 2) <= 0 || !(wait.revents & POLLOUT)))
            quiet++;
    }
    tell_result(side, n > 0 ? 0 : n);
    if (n != -EAGAIN)
        return;
    if (sent == 0)
        return;
    tell(side, " after some, then%s writable", mask_of(side, call->a, POLLOUT) & POLLOUT ? "" : " not");
    size_t got = drain(side, call->a, call->b);
    tell(side, "; %s came", got >= sent ? "all" : "not all");
    if (got < sent)
        return;
    for (int i = 0; side->world == NULL && i < 1000 && (mask_of(side, call->a, POLLOUT) & POLLOUT) == 0; i++)
        poll(NULL, 0, 1);
    tell(side, "; %s", mask_of(side, call->a, POLLOUT) & POLLOUT ? "writable" : "not writable");
}

/* -- Waiting -- */

static void call_poll(struct side *side, const struct call *call)
{
    struct pollfd fds[MOST_FDS] = {{0}};
    for (int i = 0; i < call->size; i++)
        fds[i] = (struct pollfd){.fd = fd_of(side, call->fds[i]), .events = (short)call->masks[i], .revents = -1};
    tell_result(side, side->os->poll(fds, (nfds_t)call->size, 0, side->os));
    for (int i = 0; i < call->size; i++)
        tell(side, " %x", (unsigned short)fds[i].revents);
}

static void call_select(struct side *side, const struct call *call)
{
    fd_set sets[3];
    int count = call->value < 0 ? (int)call->value : 0;
    for (int s = 0; s < 3; s++)
        FD_ZERO(&sets[s]);
    for (int i = 0; i < call->size; i++) {
        int fd = fd_of(side, call->fds[i]);
        for (int s = 0; s < 3 && fd >= 0; s++)
            if (call->masks[i] & 1 << s)
                FD_SET(fd, &sets[s]);
        count = fd >= count && call->value >= 0 ? fd + 1 : count;
    }
    int result = side->os->select(count, &sets[0], &sets[1], call->flags & 1 ? NULL : &sets[2], 0, side->os);
    tell_result(side, result);
    for (int i = 0; i < call->size && result >= 0; i++) {
        int fd = fd_of(side, call->fds[i]), in = 0;
        for (int s = 0; s < 3 && fd >= 0; s++)
            in |= (FD_ISSET(fd, &sets[s]) && !(s == 2 && call->flags & 1)) << s;
        tell(side, " %x", in);
    }
}

static void call_epoll_ctl(struct side *side, const struct call *call)
{
    struct epoll_event event = {.events = (uint32_t)call->masks[0], .data.u64 = (uint64_t)call->b};
    tell_result(side, side->os->epoll_ctl(fd_of(side, call->a), call->option, fd_of(side, call->b), &event, side->os));
}

/* A set has no order; of a wait that was too small for all, only their number is told. */
static void call_epoll_wait(struct side *side, const struct call *call)
{
    struct epoll_event events[SLOTS];
    unsigned seen[SLOTS] = {0};
    int count = side->os->epoll_wait(fd_of(side, call->a), events, (int)call->size, 0, side->os);
    tell_result(side, count);
    for (int i = 0; i < count; i++)
        seen[events[i].data.u64] = events[i].events;
    for (int i = 0; i < SLOTS && call->size == SLOTS; i++)
        if (seen[i] != 0)
            tell(side, " %d:%x", i, seen[i]);
}

static void call_timerfd_set(struct side *side, const struct call *call)
{
    uint64_t deadline = call->value > 1 ? side->os->now(side->os) + (uint64_t)call->value : (uint64_t)call->value;
    tell_result(side, side->os->timerfd_set(fd_of(side, call->a), deadline, side->os));
}

void side_masks(struct side *side)
{
    struct pollfd fds[SLOTS];
    int slots[SLOTS], count = 0;
    for (int i = 0; i < SLOTS; i++)
        if (side->fd[i] != NOT_OPEN) {
            fds[count] = (struct pollfd){.fd = side->fd[i], .events = ALL_POLL};
            slots[count++] = i;
        }
    side->length = 0;
    side->text[0] = '\0';
    side->os->poll(fds, (nfds_t)count, 0, side->os);
    for (int i = 0; i < count; i++)
        tell(side, " %d:%x", slots[i], (unsigned short)fds[i].revents);
}

/* -- Printing -- */

static const char *const kind_names[KINDS] = {
    "socket",     "pipe",       "eventfd",     "timerfd",     "epoll_create", "bind",      "listen",    "accept",
    "connect",    "send",       "recv",        "sendto",      "recvfrom",     "read",      "write",     "shutdown",
    "setsockopt", "getsockopt", "getsockname", "getpeername", "close",        "get_flags", "set_flags", "identity",
    "epoll_ctl",  "epoll_wait", "poll",        "select",      "timerfd_set",  "fill"};
static const char *const where_names[WHERES] = {"nowhere",
                                                "127.0.0.1",
                                                "::1",
                                                "::ffff:127.0.0.1",
                                                "0.0.0.0",
                                                "::",
                                                "slot",
                                                "mapped slot",
                                                "exact slot",
                                                "127.0.0.1 at slot's port",
                                                "::1 at slot's port",
                                                "0.0.0.0 at slot's port",
                                                ":: at slot's port",
                                                "127.0.0.1:1",
                                                "[::1]:1",
                                                "192.0.2.1",
                                                "unspecified",
                                                "family 77",
                                                "one byte",
                                                "half an address",
                                                "path",
                                                "padded path",
                                                "path without zero",
                                                "abstract",
                                                "missing path",
                                                "family only"};

static const struct {
    unsigned shown; /* 1 where, 2 size, 4 flags, 8 level and option, 16 value, 32 fds, 64 b */
} parts[KINDS] = {[SOCKET] = {4 | 8},
                  [PIPE] = {64},
                  [BIND] = {1},
                  [LISTEN] = {2},
                  [ACCEPT] = {64 | 2},
                  [CONNECT] = {1},
                  [SEND] = {2 | 4},
                  [RECV] = {2 | 4},
                  [SENDTO] = {1 | 2 | 4},
                  [RECVFROM] = {2 | 4},
                  [READ] = {2},
                  [WRITE] = {2 | 16},
                  [SHUTDOWN] = {4},
                  [SETSOCKOPT] = {2 | 8 | 16},
                  [GETSOCKOPT] = {2 | 8},
                  [GETSOCKNAME] = {2},
                  [GETPEERNAME] = {2},
                  [SET_FLAGS] = {4},
                  [EPOLL_CTL] = {64 | 8 | 128},
                  [EPOLL_WAIT] = {2},
                  [POLL] = {32},
                  [SELECT] = {4 | 32},
                  [TIMERFD_SET] = {16},
                  [FILL] = {64}};

void call_print(const struct call *call, char *text, size_t size)
{
    unsigned shown = parts[call->kind].shown;
    size_t n = (size_t)snprintf(text, size, "%s %d", kind_names[call->kind], call->a);
    if (shown & 64)
        n += (size_t)snprintf(text + n, size - n, ", %d", call->b);
    if (shown & 1)
        n += (size_t)snprintf(text + n, size - n, ", to %s %d", where_names[call->where], call->number);
    if (shown & 2)
        n += (size_t)snprintf(text + n, size - n, ", size %ld", call->size);
    if (shown & 8)
        n += (size_t)snprintf(text + n, size - n, ", level %d, option %d", call->level, call->option);
    if (shown & 4)
        n += (size_t)snprintf(text + n, size - n, ", flags 0x%x", (unsigned)call->flags);
    if (shown & 16)
        n += (size_t)snprintf(text + n, size - n, ", value %lld", call->value);
    if (shown & 128)
        n += (size_t)snprintf(text + n, size - n, ", mask 0x%x", (unsigned)call->masks[0]);
    for (int i = 0; i < call->size && shown & 32; i++)
        n += (size_t)snprintf(text + n, size - n, ", %d: 0x%x", call->fds[i], (unsigned)call->masks[i]);
}

/* -- All of them -- */

static void call_close(struct side *side, const struct call *call)
{
    tell_result(side, side->os->close(fd_of(side, call->a), side->os));
    if (call->a >= 0)
        side->fd[call->a] = NOT_OPEN;
}

static void call_simple(struct side *side, const struct call *call)
{
    struct os *os = side->os;
    uint32_t identity;
    int fd = fd_of(side, call->a);
    switch (call->kind) {
    case LISTEN:
        tell_result(side, os->listen(fd, (int)call->size, os));
        break;
    case SHUTDOWN:
        tell_result(side, os->shutdown(fd, call->flags, os));
        break;
    case GET_FLAGS:
        tell_result(side, os->get_flags(fd, os));
        break;
    case SET_FLAGS:
        tell_result(side, os->set_flags(fd, call->flags, os));
        break;
    case IDENTITY:
        tell_result(side, os->identity(fd, &identity, os));
        break;
    default:
        must(!"a call that nobody makes");
    }
}

void side_call(struct side *side, const struct call *call, unsigned index)
{
    side->length = 0;
    side->text[0] = '\0';
    switch (call->kind) {
    case SOCKET:
        call_socket(side, call);
        break;
    case PIPE:
        call_pipe(side, call);
        break;
    case EVENTFD:
    case TIMERFD:
    case EPOLL:
        call_make(side, call);
        break;
    case BIND:
    case CONNECT:
        call_toward(side, call);
        break;
    case ACCEPT:
        call_accept(side, call);
        break;
    case SEND:
    case SENDTO:
    case WRITE:
        call_send(side, call, index);
        break;
    case RECV:
    case RECVFROM:
    case READ:
        call_recv(side, call);
        break;
    case SETSOCKOPT:
        call_setsockopt(side, call);
        break;
    case GETSOCKOPT:
        call_getsockopt(side, call);
        break;
    case GETSOCKNAME:
    case GETPEERNAME:
        call_name(side, call);
        break;
    case CLOSE:
        call_close(side, call);
        break;
    case EPOLL_CTL:
        call_epoll_ctl(side, call);
        break;
    case EPOLL_WAIT:
        call_epoll_wait(side, call);
        break;
    case POLL:
        call_poll(side, call);
        break;
    case SELECT:
        call_select(side, call);
        break;
    case TIMERFD_SET:
        call_timerfd_set(side, call);
        break;
    case FILL:
        call_fill(side, call);
        break;
    default:
        call_simple(side, call);
    }
}
