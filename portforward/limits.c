/* limits.c: counts of source addresses in a tree (tsearch(3)), and rates.
 *
 * A rate needs no bucket that somebody fills: it is enough to know when the bucket will be full again. Each connection
 * moves that by the time of one token, and may not move it further than a second away. */
#include "limits.h"

#include <netinet/in.h>
#include <search.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { SECOND = 1000000000 };

struct source {
    unsigned char address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint32_t zone;
    unsigned count;
};

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, offsetof(struct source, count));
}

static void source_of(struct source *source, const struct sockaddr *client)
{
    memset(source, 0, sizeof(*source));
    if (client->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)client;

        memcpy(source->address, &in6->sin6_addr, 16);
        source->zone = in6->sin6_scope_id;
    } else if (client->sa_family == AF_INET) {
        memset(source->address + 10, 0xff, 2);
        memcpy(source->address + 12, &((const struct sockaddr_in *)client)->sin_addr, 4);
    }
}

struct source *source_take(struct sources *sources, const struct sockaddr *client, unsigned max)
{
    struct source key, *source, **place;

    source_of(&key, client);
    place = tfind(&key, &sources->tree, compare);
    if (place) {
        source = *place;
        if (source->count >= max)
            return NULL;
        source->count++;
        return source;
    }
    source = malloc(sizeof(*source));
    if (!source)
        return NULL;
    *source = key;
    source->count = 1;
    if (!tsearch(source, &sources->tree, compare)) {
        free(source);
        return NULL;
    }
    return source;
}

void source_give(struct sources *sources, struct source *source)
{
    if (!source || --source->count > 0)
        return;
    tdelete(source, &sources->tree, compare);
    free(source);
}

/* Rates beyond a token a nanosecond are none. */
static uint64_t token_time(unsigned per_second)
{
    return SECOND / per_second;
}

uint64_t rate_wait(const struct rate *rate, unsigned per_second, uint64_t now)
{
    uint64_t latest = now + SECOND - token_time(per_second);

    return rate->next > latest ? rate->next - latest : 0;
}

void rate_take(struct rate *rate, unsigned per_second, uint64_t now)
{
    rate->next = (rate->next > now ? rate->next : now) + token_time(per_second);
}

socklen_t unmap_address(struct sockaddr_storage *to, const struct sockaddr *from, socklen_t length)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    struct sockaddr_in in = {.sin_family = AF_INET};

    if (from->sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        memcpy(to, from, length);
        return length;
    }
    in.sin_port = in6->sin6_port;
    memcpy(&in.sin_addr, in6->sin6_addr.s6_addr + 12, 4);
    memcpy(to, &in, sizeof(in));
    return sizeof(in);
}
