/* forward.c: the listener, and the list of the pairs that came of it.
 *
 * The forwarder owns its listener; a pair owns itself. A pair leaves the list when it is closed, not when the
 * map frees it, so that nothing points to a forwarder that was stopped. */
#include "forward.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "pair.h"

static int listener_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length);

/* A client that was gone before it was accepted, a shortage of descriptors: the listener outlives them all. */
static int listener_error(struct asyncore_dispatcher *d, int error)
{
    asyncore_log_info(d, "error", "accept: %s", asyncore_strerror(error));
    return 0;
}

static int listener_close(struct asyncore_dispatcher *d)
{
    (void)d;
    return 0;
}

static const struct asyncore_class listener_class = {
    .name = "forward",
    .handle_accepted = listener_accepted,
    .handle_error = listener_error,
    .handle_close = listener_close,
};

/* A client that there is no memory for is reset, which takes a channel; the listener then rests for a while. */
static int listener_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct asyncore_dispatcher refused;
    int r = pair_start(d->data, fd);

    (void)address, (void)length;
    if (r == 0)
        return 0;
    asyncore_dispatcher_init(&refused, &listener_class, d->map); /* cannot fail: the class is in use */
    if (asyncore_set_socket(&refused, fd) == 0)
        reset_on_close(&refused);
    asyncore_fini(&refused);
    return r;
}

int forward_start(struct forward *forward, struct asyncore_map *map, const struct forward_options *options)
{
    struct asyncore_dispatcher *d = &forward->listener;
    int r = asyncore_dispatcher_init(d, &listener_class, map);

    if (r < 0)
        return r;
    forward->options = *options;
    forward->pairs = NULL;
    d->data = forward;
    r = asyncore_create_socket(d, AF_UNSPEC, SOCK_STREAM);
    if (r == 0)
        r = asyncore_set_reuse_addr(d);
    if (r == 0)
        r = asyncore_bind(d, options->local_host, options->local_port);
    if (r == 0) /* every accepted socket inherits it */
        r = asyncore_setsockopt(d, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (r == 0)
        r = asyncore_listen(d, SOMAXCONN);
    if (r < 0)
        asyncore_fini(d);
    return r;
}

void forward_stop(struct forward *forward)
{
    asyncore_fini(&forward->listener);
    while (forward->pairs)
        pair_reset(forward->pairs);
}

int forward_address(const struct forward *forward, char *text, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    int r = asyncore_sockname((struct asyncore_dispatcher *)&forward->listener, &address, &length);

    return r < 0 ? r : asyncore_address_text((struct sockaddr *)&address, length, text, size);
}
