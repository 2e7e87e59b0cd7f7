/* names_cares.c: names by c-ares, behind os_linux. One channel of c-ares a map. c-ares tells which sockets it waits
 * for and calls back with the answer, possibly within the call that asks; a question that was cancelled stays in
 * c-ares until it ends, with nobody to tell. */
#include "os.h"
#include <ares.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define TRY_MS 2000 /* a server's time to answer, doubled by c-ares with every round */
#define TRIES  2

struct question {
    struct question *next, **previous;
    struct names *names;
    void *query; /* NULL: cancelled */
};

struct names {
    ares_channel channel;
    struct names_client *client;
    struct question *questions;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int library;

static void library_init(void)
{
    library = ares_library_init(ARES_LIB_INIT_ALL);
}

static void sock_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct names *names = data;
    names->client->watch(names->client, fd, (readable ? POLLIN : 0u) | (writable ? POLLOUT : 0u));
}

int cares_open(struct names **ret, struct names_client *client, const char *servers, struct os *os)
{
    char lookups[] = "b"; /* DNS alone: /etc/hosts was asked before */
    struct ares_options options = {.timeout = TRY_MS, .tries = TRIES, .sock_state_cb = sock_state, .lookups = lookups};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_LOOKUPS;
    (void)os;
    pthread_once(&once, library_init);
    struct names *names = library == ARES_SUCCESS ? calloc(1, sizeof *names) : NULL;
    if (names == NULL)
        return -ENOMEM;
    names->client = client;
    options.sock_state_cb_data = names;
    int status = ares_init_options(&names->channel, &options, mask);
    if (status != ARES_SUCCESS) {
        free(names);
        return status == ARES_ENOMEM ? -ENOMEM : ASYNCORE_ENAMESERVER;
    }
    if (servers != NULL && ares_set_servers_ports_csv(names->channel, servers) != ARES_SUCCESS) {
        ares_destroy(names->channel);
        free(names);
        return -EINVAL;
    }
    *ret = names;
    return 0;
}

void cares_close(struct names *names)
{
    ares_cancel(names->channel); /* answers every question; up to 1.17.1, destroy itself crashes when one is open */
    ares_destroy(names->channel);
    free(names);
}

static int error_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENOMEM:
        return -ENOMEM;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_ENONAME:
    case ARES_EBADNAME:
        return ASYNCORE_ENONAME;
    default:
        return ASYNCORE_ENAMESERVER;
    }
}

static size_t copy(const struct ares_addrinfo_node *node, struct asyncore_address *addresses)
{
    size_t count = 0;
    for (; node != NULL; node = node->ai_next) {
        if (node->ai_addrlen > sizeof addresses->address)
            continue;
        if (addresses != NULL) {
            memset(&addresses[count], 0, sizeof *addresses);
            memcpy(&addresses[count].address, node->ai_addr, node->ai_addrlen);
            addresses[count].length = node->ai_addrlen;
            addresses[count].ttl = (uint32_t)node->ai_ttl;
        }
        count++;
    }
    return count;
}

static void tell(struct question *q, int error, const struct ares_addrinfo *result)
{
    struct names_client *client = q->names->client;
    struct asyncore_address *addresses = NULL;
    size_t count = 0;
    if (error == 0) {
        count = copy(result->nodes, NULL);
        addresses = calloc(count + 1, sizeof *addresses);
        if (addresses != NULL)
            copy(result->nodes, addresses);
        else
            error = -ENOMEM;
    }
    client->done(client, q->query, error, addresses, error == 0 ? count : 0);
    free(addresses);
}

static void answered(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
    struct question *q = arg;
    (void)timeouts;
    if (q->query != NULL)
        tell(q, error_of(status), result);
    if (result != NULL)
        ares_freeaddrinfo(result);
    *q->previous = q->next;
    if (q->next != NULL)
        q->next->previous = q->previous;
    free(q);
}

int cares_start(struct names *names, const char *host, int family, void *query)
{
    struct ares_addrinfo_hints hints = {.ai_family = family, .ai_socktype = SOCK_STREAM};
    struct question *q = malloc(sizeof *q);
    if (q == NULL)
        return -ENOMEM;
    *q = (struct question){names->questions, &names->questions, names, query};
    if (q->next != NULL)
        q->next->previous = &q->next;
    names->questions = q;
    ares_getaddrinfo(names->channel, host, NULL, &hints, answered, q);
    return 0;
}

void cares_cancel(struct names *names, void *query)
{
    for (struct question *q = names->questions; q != NULL; q = q->next)
        if (q->query == query)
            q->query = NULL;
}

void cares_event(struct names *names, int fd, unsigned events)
{
    ares_socket_t none = ARES_SOCKET_BAD;
    ares_socket_t r = events & (POLLIN | POLLERR | POLLHUP) ? fd : none;
    ares_socket_t w = events & (POLLOUT | POLLERR | POLLHUP) ? fd : none;
    ares_process_fd(names->channel, r, w);
}

uint64_t cares_deadline(struct names *names, uint64_t now)
{
    struct timeval t, *wait = ares_timeout(names->channel, NULL, &t);
    if (wait == NULL)
        return 0;
    return now + (uint64_t)wait->tv_sec * 1000000000u + (uint64_t)wait->tv_usec * 1000u + 1000000u;
}
