/* fuzz_address.c: text to socket address and back. The first byte chooses: a host and a port as text, which must come
 * back from the address that they are; or the bytes of an address as a kernel might give them, of any length, whose
 * text must fit the buffer whatever its size. Ports beside a naive reader. */
#include "address.h"
#include "fuzz.h"
#include <netinet/in.h>
#include <sys/un.h>

static void check_port(const char *text)
{
    uint16_t port = 7;
    long value = 0;
    bool good = *text != '\0';
    for (const char *p = text; *p && good; p++) {
        good = *p >= '0' && *p <= '9';
        value = good && value <= 65535 ? value * 10 + (*p - '0') : value;
    }
    good = good && value <= 65535;
    int result = address_port(text, &port);
    claim(result == (good ? 0 : ASYNCORE_EPORT));
    claim(port == (good ? value : 7));
}

/* Cut to every size: what is there is the beginning of the whole, and the length is always the whole one's. */
static void check_sizes(const struct sockaddr *address, socklen_t length, size_t size)
{
    char whole[128];
    int n = asyncore_address_text(address, length, whole, sizeof whole);
    claim(n > 0 && (size_t)n == strlen(whole));
    char *text = malloc(size > 0 ? size : 1);
    claim(text != NULL);
    claim(asyncore_address_text(address, length, text, size) == n);
    if (size > 0)
        claim(memchr(text, '\0', size) != NULL && strncmp(text, whole, strlen(text)) == 0 &&
              strlen(text) == ((size_t)n < size ? (size_t)n : size - 1));
    free(text);
}

/* "[host]:port" or "host:port" or "unix:..." in two. */
static const char *split(char *text)
{
    if (strncmp(text, "unix:", 5) == 0)
        return "";
    char *colon = strrchr(text, ':');
    claim(colon != NULL && colon > text);
    *colon = '\0';
    if (*text == '[') {
        claim(colon[-1] == ']');
        colon[-1] = '\0';
        memmove(text, text + 1, strlen(text));
    }
    return colon + 1;
}

static void check_round(const struct sockaddr_storage *address, socklen_t length)
{
    struct sockaddr_storage again;
    socklen_t again_length = 0;
    char text[128];
    asyncore_address_text((const struct sockaddr *)address, length, text, sizeof text);
    const char *port = split(text);
    claim(asyncore_parse_address(text, port, &again, &again_length) == 0);
    claim(again_length == length && memcmp(&again, address, length) == 0);
}

static void check_text(struct input in)
{
    size_t size = take(&in);
    char *host = text_of(take_until(&in, '\n')), *port = text_of(in);
    struct sockaddr_storage address, untouched;
    socklen_t length = 12345;
    memset(&address, 0xaa, sizeof address);
    memset(&untouched, 0xaa, sizeof untouched);
    check_port(port);
    int result = asyncore_parse_address(host, port, &address, &length);
    if (result == 0) {
        claim(length <= sizeof address);
        claim(address.ss_family == AF_UNIX || address.ss_family == AF_INET || address.ss_family == AF_INET6);
        check_sizes((struct sockaddr *)&address, length, size);
        check_round(&address, length);
    } else {
        claim(result == ASYNCORE_EHOST || result == ASYNCORE_EPORT);
        claim(length == 12345 && memcmp(&address, &untouched, sizeof address) == 0);
    }
    free(host);
    free(port);
}

static void check_raw(struct input in)
{
    static const sa_family_t families[] = {AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC};
    size_t size = take(&in);
    sa_family_t family = families[take(&in) % 4];
    uint8_t *address = copy_of(in.at, in.left);
    if (in.left >= sizeof family)
        memcpy(address, &family, sizeof family);
    if (in.left <= sizeof(struct sockaddr_storage))
        check_sizes((struct sockaddr *)address, (socklen_t)in.left, size);
    free(address);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (take(&in) & 1)
        check_raw(in);
    else
        check_text(in);
    return 0;
}
