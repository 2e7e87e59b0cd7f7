/* access.c: see access.h. A list is an array in the order of its lines, and every entry is looked at: lists are short,
 * and the longest that is allowed takes a client 0.2 ms. It grows by doubling, so that its size follows from its
 * count. */
#include "access.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GLOB_SIZE = 24 }; /* the longest IPv4 address has 15 characters; the rest is room for stars */

/* What blocks and globs are compared with. */
struct address {
    int family;
    unsigned char bytes[16];
    uint32_t v4;                /* the first of them, in host order */
    char text[INET_ADDRSTRLEN]; /* of an IPv4 address */
};

struct access_entry {
    bool allow;
    unsigned char family; /* AF_INET, AF_INET6; AF_UNSPEC: a glob */
    unsigned char bits;   /* of an IPv6 block */
    union {
        struct {
            uint32_t v4, mask; /* in host order */
        };
        unsigned char v6[16];
        char glob[GLOB_SIZE];
    };
};

/* The IPv4 address, also if it is in an IPv6 one (::ffff:a.b.c.d). */
static void find_v4(struct address *address)
{
    static const unsigned char mapped[12] = {[10] = 0xff, 0xff};

    if (address->family == AF_INET6 && memcmp(address->bytes, mapped, sizeof(mapped)) == 0) {
        address->family = AF_INET;
        memmove(address->bytes, address->bytes + sizeof(mapped), 4);
    }
    memcpy(&address->v4, address->bytes, 4);
    address->v4 = ntohl(address->v4);
}

/* -- Patterns -- */

static bool glob_parse(struct access_entry *entry, const char *pattern)
{
    size_t length = strlen(pattern);

    if (length >= sizeof(entry->glob) || strspn(pattern, "0123456789.*?") != length)
        return false;
    entry->family = AF_UNSPEC;
    memcpy(entry->glob, pattern, length + 1);
    return true;
}

/* The bits after the slash: as many digits as a number of bits has. */
static bool bits_parse(const char *text, unsigned most, unsigned *bits)
{
    size_t digits = strspn(text, "0123456789");
    unsigned long value = strtoul(text, NULL, 10);

    if (digits < 1 || digits > 3 || text[digits] || value > most)
        return false;
    *bits = (unsigned)value;
    return true;
}

static bool block_parse(struct access_entry *entry, const char *pattern)
{
    struct address address = {0};
    char host[INET6_ADDRSTRLEN];
    const char *slash = strchr(pattern, '/');
    size_t length = slash ? (size_t)(slash - pattern) : strlen(pattern);
    unsigned most, bits;

    if (length >= sizeof(host))
        return false;
    memcpy(host, pattern, length);
    host[length] = '\0';
    address.family = strchr(host, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(address.family, host, address.bytes) != 1)
        return false;
    bits = most = address.family == AF_INET6 ? 128 : 32;
    if (slash && !bits_parse(slash + 1, most, &bits))
        return false;
    if (most == 32 || bits >= 96) /* a block of mapped addresses is one of IPv4; a wider one holds others too */
        find_v4(&address);
    entry->family = (unsigned char)address.family;
    if (address.family == AF_INET) {
        bits -= most - 32;
        entry->mask = bits ? UINT32_MAX << (32 - bits) : 0;
        entry->v4 = address.v4 & entry->mask;
    } else {
        entry->bits = (unsigned char)bits;
        memcpy(entry->v6, address.bytes, sizeof(entry->v6));
    }
    return true;
}

/* -- Lists -- */

/* The array is full whenever the count is a power of two. */
static int make_room(struct access_list *list)
{
    unsigned size = list->count ? list->count * 2 : 1;
    struct access_entry *entries;

    if (list->count & (list->count - 1))
        return 0;
    entries = realloc(list->entries, size * sizeof(*entries));
    if (!entries)
        return -ENOMEM;
    list->entries = entries;
    return 0;
}

int access_add(struct access_list *list, bool allow, const char *pattern)
{
    struct access_entry entry = {.allow = allow};
    bool is_glob = pattern[strcspn(pattern, "*?")] != '\0';
    int r;

    if (!(is_glob ? glob_parse(&entry, pattern) : block_parse(&entry, pattern)))
        return -EINVAL;
    if (list->count >= ACCESS_MAX)
        return -E2BIG;
    r = make_room(list);
    if (r == 0)
        list->entries[list->count++] = entry;
    return r;
}

void access_free(struct access_list *list)
{
    free(list->entries);
    *list = (struct access_list){0};
}

int access_copy(struct access_list *to, const struct access_list *from)
{
    struct access_list copy = {.count = from->count};
    size_t size = 1;

    while (size < from->count) /* what make_room() would have made */
        size *= 2;
    if (from->count) {
        copy.entries = malloc(size * sizeof(*copy.entries));
        if (!copy.entries)
            return -ENOMEM;
        memcpy(copy.entries, from->entries, from->count * sizeof(*copy.entries));
    }
    *to = copy;
    return 0;
}

/* -- Clients -- */

static bool in_v6_block(const struct access_entry *entry, const struct address *address)
{
    unsigned whole = entry->bits / 8, rest = entry->bits % 8;
    unsigned char mask = (unsigned char)(0xff00 >> rest);

    return memcmp(entry->v6, address->bytes, whole) == 0 &&
           (rest == 0 || ((entry->v6[whole] ^ address->bytes[whole]) & mask) == 0);
}

/* A star that did not fit takes one character more, the last star first: those before it need not be tried again. */
static bool glob_matches(const char *glob, const char *text)
{
    const char *star = NULL, *from = NULL;

    while (*text) {
        if (*glob == '*') {
            star = glob++;
            from = text;
        } else if (*glob == '?' || *glob == *text) {
            glob++;
            text++;
        } else if (star) {
            glob = star + 1;
            text = ++from;
        } else {
            return false;
        }
    }
    return glob[strspn(glob, "*")] == '\0';
}

/* Stars alone are every address, of either family; other globs are of IPv4. */
static bool matches(const struct access_entry *entry, const struct address *address)
{
    if (entry->family == AF_UNSPEC)
        return glob_matches(entry->glob, address->text);
    if (entry->family != address->family)
        return false;
    return entry->family == AF_INET ? (address->v4 & entry->mask) == entry->v4 : in_v6_block(entry, address);
}

/* False: a deny matches. What is allowed goes into *needed (there is an allow) and *found (one matches). */
static bool look(const struct access_list *list, const struct address *address, bool *needed, bool *found)
{
    for (unsigned i = 0; i < list->count; i++) {
        const struct access_entry *entry = &list->entries[i];
        bool match = matches(entry, address);

        if (match && !entry->allow)
            return false;
        *needed |= entry->allow;
        *found |= match;
    }
    return true;
}

bool access_permits(const struct access_list *all, const struct access_list *rule, const struct sockaddr *client)
{
    struct address address = {.family = client->sa_family};
    bool needed = false, found = false;

    if (all->count + rule->count == 0)
        return true;
    if (address.family == AF_INET)
        memcpy(address.bytes, &((const struct sockaddr_in *)client)->sin_addr, 4);
    else if (address.family == AF_INET6)
        memcpy(address.bytes, &((const struct sockaddr_in6 *)client)->sin6_addr, 16);
    else
        return true;
    find_v4(&address);
    if (address.family == AF_INET)
        inet_ntop(AF_INET, address.bytes, address.text, sizeof(address.text));
    return look(all, &address, &needed, &found) && look(rule, &address, &needed, &found) && (found || !needed);
}
