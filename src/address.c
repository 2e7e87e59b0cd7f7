/* address.c: text to socket address and back, without any lookup. Numeric hosts are inet_pton(3)'s, an IPv6 zone
 * included ("fe80::1%eth0"); "" and "*" are any IPv4 address; "unix:/path" and "unix:@abstract" are Unix sockets. */
#include "address.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

int address_port(const char *text, uint16_t *port)
{
    unsigned long value = 0;
    if (text == NULL || *text == '\0')
        return ASYNCORE_EPORT;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return ASYNCORE_EPORT;
        value = value * 10 + (unsigned long)(*text - '0');
        if (value > 65535)
            return ASYNCORE_EPORT;
    }
    *port = (uint16_t)value;
    return 0;
}

static int parse_unix(const char *path, struct asyncore_address *ret)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&ret->address;
    size_t n = strlen(path);
    bool abstract = *path == '@';
    if (n == 0 || n + !abstract > sizeof un->sun_path || (abstract && n == 1))
        return ASYNCORE_EHOST;
    memset(un, 0, sizeof *un);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, n);
    if (abstract)
        un->sun_path[0] = '\0';
    ret->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + !abstract);
    return 0;
}

static int parse_v6(const char *host, struct asyncore_address *ret, struct os *os)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->address;
    char text[INET6_ADDRSTRLEN];
    const char *zone = strchr(host, '%');
    size_t n = zone != NULL ? (size_t)(zone - host) : strlen(host);
    if (n >= sizeof text)
        return ASYNCORE_EHOST;
    memcpy(text, host, n);
    text[n] = '\0';
    memset(in6, 0, sizeof *in6);
    if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1)
        return ASYNCORE_EHOST;
    if (zone != NULL && (in6->sin6_scope_id = os->interface_index(zone + 1, os)) == 0)
        return ASYNCORE_EHOST;
    in6->sin6_family = AF_INET6;
    ret->length = sizeof *in6;
    return 0;
}

int address_numeric(const char *host, struct asyncore_address *ret, struct os *os)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&ret->address;
    ret->ttl = UINT32_MAX;
    if (strncmp(host, "unix:", 5) == 0)
        return parse_unix(host + 5, ret);
    if (*host == '\0' || strcmp(host, "*") == 0)
        host = "0.0.0.0";
    memset(in, 0, sizeof *in);
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        ret->length = sizeof *in;
        return 0;
    }
    return parse_v6(host, ret, os);
}

void address_set_port(struct asyncore_address *address, uint16_t port)
{
    if (address->address.ss_family == AF_INET)
        ((struct sockaddr_in *)&address->address)->sin_port = htons(port);
    else if (address->address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&address->address)->sin6_port = htons(port);
}

int address_parse(const char *host, const char *port, struct asyncore_address *ret, struct os *os)
{
    struct asyncore_address parsed;
    uint16_t number = 0;
    int result = host == NULL ? ASYNCORE_EHOST : address_numeric(host, &parsed, os);
    if (result == 0 && parsed.address.ss_family != AF_UNIX)
        result = address_port(port, &number);
    if (result < 0)
        return result;
    address_set_port(&parsed, number);
    *ret = parsed;
    return 0;
}

int asyncore_parse_address(const char *host, const char *port, struct sockaddr_storage *address, socklen_t *length)
{
    struct asyncore_address parsed;
    int result = address_parse(host, port, &parsed, &os_linux);
    if (result < 0)
        return result;
    memcpy(address, &parsed.address, parsed.length);
    *length = parsed.length;
    return 0;
}

static int text_unix(const struct sockaddr_un *un, socklen_t length, char *text, size_t size)
{
    size_t n = length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;
    if (n > sizeof un->sun_path) /* the NUL of a full one is counted too */
        n = sizeof un->sun_path;
    if (n == 0)
        return snprintf(text, size, "unix:");
    if (un->sun_path[0] == '\0')
        return snprintf(text, size, "unix:@%.*s", (int)n - 1, un->sun_path + 1);
    return snprintf(text, size, "unix:%.*s", (int)strnlen(un->sun_path, n), un->sun_path);
}

int asyncore_address_text(const struct sockaddr *address, socklen_t length, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "", zone[IF_NAMESIZE + 1] = "";
    const struct sockaddr_in *in = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
    if (length >= sizeof *in && address->sa_family == AF_INET) {
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        return snprintf(text, size, "%s:%u", host, ntohs(in->sin_port));
    }
    if (length >= sizeof *in6 && address->sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        if (in6->sin6_scope_id != 0 && os_linux.interface_name(in6->sin6_scope_id, zone + 1, &os_linux) != NULL)
            zone[0] = '%';
        return snprintf(text, size, "[%s%s]:%u", host, zone, ntohs(in6->sin6_port));
    }
    if (length >= sizeof(sa_family_t) && address->sa_family == AF_UNIX)
        return text_unix((const struct sockaddr_un *)address, length, text, size);
    return snprintf(text, size, "?");
}
