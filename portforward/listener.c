/* listener.c: making listening sockets.
 *
 * What accepted sockets need (TCP_NODELAY, keepalive, SO_OOBINLINE) is set on the listener, which they inherit it
 * from: no system call a client. Every IPv6 listener is IPv6 only; "*" is one of each family.
 *
 * The file of a Unix socket is made with its mode, by the umask: there is no moment in which it has another. A file
 * that somebody left behind is known by having no socket, and is removed then; one that is not a socket's never is.
 * The file goes with its listener, if it still is the one that was made. */
#include "listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "notify.h"

/* Sockets of other families do not have the option, and need none. */
static int set(struct asyncore_dispatcher *d, int level, int option, unsigned value)
{
    int number = (int)value;
    int r = asyncore_setsockopt(d, level, option, &number, sizeof(number));

    return r == -ENOPROTOOPT || r == -EOPNOTSUPP ? 0 : r;
}

static int set_options(struct asyncore_dispatcher *d, const struct rule_options *options)
{
    const struct keepalive *keepalive = &options->keepalive;
    int r = set(d, IPPROTO_TCP, TCP_NODELAY, 1);

    if (r == 0)
        r = set(d, SOL_SOCKET, SO_OOBINLINE, 1);
    if (r == 0)
        r = set(d, SOL_SOCKET, SO_KEEPALIVE, keepalive->idle > 0);
    if (r < 0 || keepalive->idle == 0)
        return r;
    r = set(d, IPPROTO_TCP, TCP_KEEPIDLE, keepalive->idle);
    if (r == 0)
        r = set(d, IPPROTO_TCP, TCP_KEEPINTVL, keepalive->interval);
    if (r == 0)
        r = set(d, IPPROTO_TCP, TCP_KEEPCNT, keepalive->probes);
    return r;
}

int listener_made(struct asyncore_dispatcher *d, int fd)
{
    int r = set(d, IPPROTO_IPV6, IPV6_V6ONLY, 1);

    (void)fd;
    return r < 0 ? r : set_options(d, ((struct listener *)d)->options);
}

unsigned listener_addresses(const struct endpoint *bind, struct asyncore_address addresses[LISTENERS_MAX])
{
    unsigned count = 0;

    if (asyncore_parse_address(bind->host, bind->port, &addresses[0].address, &addresses[0].length) == 0)
        count++;
    if (count == 1 && strcmp(bind->host, "*") == 0 &&
        asyncore_parse_address("::", bind->port, &addresses[1].address, &addresses[1].length) == 0)
        count++;
    return count;
}

/* -- Files of Unix sockets -- */

/* NULL: the endpoint has no file. */
static const char *file_of(const struct endpoint *bind)
{
    return strncmp(bind->host, "unix:/", 6) == 0 ? bind->host + 5 : NULL;
}

/* A socket's file whose socket is gone. A datagram socket asks, for a stream would be a client of whoever listens
 * there: it is told that the kinds differ. */
static bool is_stale(const char *file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    bool refused;
    int fd;

    if (strlen(file) >= sizeof(address.sun_path) || lstat(file, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    memcpy(address.sun_path, file, strlen(file));
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    refused = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_file(struct listener *listener, const struct endpoint *bind, const char *file)
{
    struct asyncore_dispatcher *d = &listener->base;
    int mode = listener->options->mode;
    mode_t before = mode >= 0 ? umask(~(mode_t)mode & 0777) : 0;
    struct stat status;
    int r;

    listener->file = strdup(file);
    r = listener->file ? asyncore_bind(d, bind->host, bind->port) : -ENOMEM;
    if (r == -EADDRINUSE && is_stale(file) && unlink(file) == 0)
        r = asyncore_bind(d, bind->host, bind->port);
    if (mode >= 0)
        umask(before);
    if (r < 0)
        return r;
    if (stat(file, &status) < 0)
        return -errno;
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
    return 0;
}

static bool has_its_file(const struct listener *listener)
{
    struct stat status;

    return listener->file && lstat(listener->file, &status) == 0 && status.st_dev == listener->device &&
           status.st_ino == listener->inode;
}

/* -- Listeners -- */

static int bind_new(struct listener *listener, const struct endpoint *bind, const struct asyncore_address *address)
{
    struct asyncore_dispatcher *d = &listener->base;
    const char *file = file_of(bind);
    int r = asyncore_create_socket(d, AF_UNSPEC, SOCK_STREAM);

    if (r == 0)
        r = asyncore_set_reuse_addr(d);
    if (r < 0)
        return r;
    if (file)
        return bind_file(listener, bind, file);
    if (address)
        return asyncore_bind_sockaddr(d, (const struct sockaddr *)&address->address, address->length);
    return asyncore_bind(d, bind->host, bind->port);
}

/* A socket of the service manager's, or one of our own. */
static int bind_any(struct listener *listener, const struct endpoint *bind, const struct asyncore_address *address)
{
    struct asyncore_dispatcher *d = &listener->base;
    int fd = address ? notify_take((const struct sockaddr *)&address->address, address->length) : -1;
    int r;

    if (fd < 0)
        return fd == -EINVAL ? LISTENER_EDUAL : bind_new(listener, bind, address);
    r = asyncore_set_socket(d, fd);
    return r < 0 ? r : set_options(d, listener->options);
}

int listener_open(struct listener **ret, struct asyncore_map *map, const struct asyncore_class *class_,
                  const struct endpoint *bind, const struct asyncore_address *address,
                  const struct rule_options *options)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    int r = listener ? asyncore_dispatcher_init(&listener->base, class_, map) : -ENOMEM;

    if (r < 0) {
        free(listener);
        return r;
    }
    listener->options = options;
    r = bind_any(listener, bind, address);
    if (r == 0)
        r = asyncore_listen(&listener->base, (int)options->backlog);
    if (r == 0)
        r = asyncore_sockname(&listener->base, &listener->address, &listener->length);
    listener->options = NULL;
    if (r < 0)
        listener_close(listener);
    else
        *ret = listener;
    return r;
}

void listener_close(struct listener *listener)
{
    if (has_its_file(listener))
        unlink(listener->file);
    asyncore_fini(&listener->base);
    free(listener->file);
    free(listener);
}

int listener_change(struct listener *listener, const struct rule_options *options)
{
    int r = set_options(&listener->base, options);

    if (r == 0)
        r = asyncore_listen(&listener->base, (int)options->backlog);
    if (r == 0 && options->mode >= 0 && has_its_file(listener) && chmod(listener->file, (mode_t)options->mode) < 0)
        r = -errno;
    return r;
}

const char *listener_strerror(int error)
{
    if (error == LISTENER_EDUAL)
        return "the service manager's socket is of both families (it needs BindIPv6Only=ipv6-only)";
    return asyncore_strerror(error);
}

void listener_text(const struct listener *listener, char text[128])
{
    asyncore_address_text((const struct sockaddr *)&listener->address, listener->length, text, 128);
}
