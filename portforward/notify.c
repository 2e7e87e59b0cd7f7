/* notify.c: both protocols are a few environment variables, so nothing of systemd is linked.
 *
 * The sockets that were handed over are the descriptors from 3 on. Each belongs to this file until somebody takes it;
 * what is left is closed once all rules had their turn. A number that was not open in the first place counts as taken:
 * whatever has it later is not ours to close. */
#include "notify.h"

#include <asyncore.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    FIRST = 3,
    SOCKETS_MAX = 4096, /* more are left alone */
};

static bool taken[SOCKETS_MAX];
static int count;

union any_address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
    struct sockaddr_storage storage;
};

/* -- LISTEN_FDS -- */

/* -1: not a number, or there is none. */
static long number_of(const char *name)
{
    const char *text = getenv(name);
    char *end;
    long number;

    if (!text || *text < '0' || *text > '9')
        return -1;
    errno = 0;
    number = strtol(text, &end, 10);
    return *end || errno ? -1 : number;
}

int notify_listen_fds(void)
{
    long pid = number_of("LISTEN_PID"), fds = number_of("LISTEN_FDS");

    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (pid != getpid() || fds <= 0)
        return 0;
    count = fds < SOCKETS_MAX ? (int)fds : SOCKETS_MAX;
    for (int i = 0; i < count; i++)
        taken[i] = fcntl(FIRST + i, F_SETFD, FD_CLOEXEC) < 0;
    return count;
}

static bool option_is(int fd, int level, int option, int value)
{
    int is;
    socklen_t length = sizeof(is);

    return getsockopt(fd, level, option, &is, &length) == 0 && is == value;
}

static bool listens(int fd, union any_address *address, socklen_t *length)
{
    *length = sizeof(*address);
    memset(address, 0, sizeof(*address));
    return option_is(fd, SOL_SOCKET, SO_TYPE, SOCK_STREAM) && option_is(fd, SOL_SOCKET, SO_ACCEPTCONN, 1) &&
           getsockname(fd, &address->any, length) == 0 && *length <= sizeof(*address);
}

/* Of a path only what is before its NUL, whether that was counted or not; of an abstract name all. */
static size_t unix_name_length(const struct sockaddr_un *un, socklen_t length)
{
    size_t size = length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;

    if (size > sizeof(un->sun_path)) /* the kernel counts a NUL for which there was no room */
        size = sizeof(un->sun_path);
    return size && un->sun_path[0] ? strnlen(un->sun_path, size) : size;
}

static bool same_unix(const struct sockaddr_un *a, socklen_t a_length, const struct sockaddr_un *b, socklen_t b_length)
{
    size_t size = unix_name_length(a, a_length);

    return size == unix_name_length(b, b_length) && memcmp(a->sun_path, b->sun_path, size) == 0;
}

static bool same_address(const union any_address *a, socklen_t a_length, const union any_address *b, socklen_t b_length)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    switch (a->any.sa_family) {
    case AF_INET: return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(struct in6_addr)) == 0;
    case AF_UNIX: return same_unix(&a->un, a_length, &b->un, b_length);
    default: return false;
    }
}

/* Any IPv6 address, and IPv4 as well. */
static bool is_dual(int fd, const union any_address *bound)
{
    return bound->any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&bound->in6.sin6_addr) &&
           option_is(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
}

/* ... which is in the way of `wanted`: of IPv4, or of any IPv6 address. */
static bool covers(const union any_address *dual, const union any_address *wanted)
{
    if (wanted->any.sa_family == AF_INET)
        return wanted->in.sin_port == dual->in6.sin6_port;
    return wanted->any.sa_family == AF_INET6 && wanted->in6.sin6_port == dual->in6.sin6_port &&
           IN6_IS_ADDR_UNSPECIFIED(&wanted->in6.sin6_addr);
}

int notify_take(const struct sockaddr *address, socklen_t length)
{
    union any_address wanted, bound;
    int r = -1;

    if (length > sizeof(wanted))
        return r;
    memset(&wanted, 0, sizeof(wanted));
    memcpy(&wanted, address, length);
    for (int i = 0; i < count; i++) {
        int fd = FIRST + i;
        socklen_t bound_length;

        if (taken[i] || !listens(fd, &bound, &bound_length))
            continue;
        if (is_dual(fd, &bound)) {
            r = covers(&bound, &wanted) ? -EINVAL : r;
        } else if (same_address(&bound, bound_length, &wanted, length)) {
            taken[i] = true;
            return fd;
        }
    }
    return r;
}

static void describe(int fd, char *text, size_t size)
{
    union any_address address;
    socklen_t length = sizeof(address);

    if (getsockname(fd, &address.any, &length) < 0 || length > sizeof(address) ||
        asyncore_address_text(&address.any, length, text, size) <= 0)
        snprintf(text, size, "descriptor %d", fd);
}

void notify_close_unused(void (*unused)(void *arg, const char *address), void *arg)
{
    for (int i = 0; i < count; i++) {
        char text[128];

        if (taken[i])
            continue;
        describe(FIRST + i, text, sizeof(text));
        close(FIRST + i);
        if (unused)
            unused(arg, text);
    }
    count = 0;
}

/* -- NOTIFY_SOCKET -- */

/* A path or "@name"; whatever else systemd may give to a virtual machine is none of ours. */
static bool manager_address(struct sockaddr_un *address, socklen_t *length)
{
    const char *name = getenv("NOTIFY_SOCKET");
    size_t size = name ? strlen(name) : 0;

    if (size < 2 || size >= sizeof(address->sun_path) || (*name != '/' && *name != '@'))
        return false;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, name, size);
    if (*name == '@')
        address->sun_path[0] = 0;
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    return true;
}

void notify_send(const char *state)
{
    struct sockaddr_un address;
    socklen_t length;
    int fd;

    if (!manager_address(&address, &length))
        return;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length); /* nobody to tell */
    close(fd);
}

void notify_reloading(void)
{
    struct timespec now;
    char state[64];

    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
    notify_send(state);
}
