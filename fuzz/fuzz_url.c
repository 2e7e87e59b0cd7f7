/* fuzz_url.c: http_parse_url() of the examples. What it takes apart stands in the text as it says, and put together
 * again it is the same URL; the copy of the text ends where its memory does. */
#include "common_http.h"
#include "fuzz.h"
#include <arpa/inet.h>
#include <strings.h>

/* Only what may stand in a message; a URL that is refused is printed beside it. */
static void check_refusal(const char *wrong)
{
    claim(strncmp(wrong, "a URL with", 10) == 0 || strcmp(wrong, "not an http:// URL") == 0);
}

static void check_host(const struct http_url *url)
{
    struct in6_addr address;
    claim(memchr(url->host, '\0', sizeof url->host) != NULL && *url->host);
    if (url->authority[0] == '[')
        claim(inet_pton(AF_INET6, url->host, &address) == 1);
    else
        claim(strpbrk(url->host, ":/?#[]@%\\ ") == NULL);
}

/* The number in `port` is that of the authority, or 80. */
static void check_port(const struct http_url *url)
{
    bool v6 = url->authority[0] == '[';
    const char *rest = url->authority + strlen(url->host) + 2 * v6;
    claim(strncmp(url->authority + v6, url->host, strlen(url->host)) == 0);
    claim(*rest == '\0' || *rest == ':');
    long port = *rest && rest[1] ? strtol(rest + 1, NULL, 10) : 80;
    claim(port >= 1 && port <= 65535 && port == strtol(url->port, NULL, 10));
    claim(strspn(url->port, "0123456789") == strlen(url->port) && url->port[0] != '0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    char *text = text_of(in);
    struct http_url *url = malloc(sizeof *url), *twice = malloc(sizeof *twice);
    claim(url != NULL && twice != NULL);
    memset(url, 0xaa, sizeof *url);
    const char *wrong = http_parse_url(url, text);
    if (wrong != NULL) {
        check_refusal(wrong);
    } else {
        size_t host = strlen("http://"), n = strlen(url->authority);
        claim(strncasecmp(text, "http://", host) == 0);
        claim(strncmp(text + host, url->authority, n) == 0 && url->target == text + host + n);
        claim(*url->target == '\0' || strchr("/?#", *url->target) != NULL);
        for (const char *p = text; *p; p++)
            claim((unsigned char)*p > ' ' && *p != 127);
        check_host(url);
        check_port(url);

        char *again;
        bool v6 = strchr(url->host, ':') != NULL;
        claim(asprintf(&again, "HTTP://%s%s%s:%s%s", v6 ? "[" : "", url->host, v6 ? "]" : "", url->port, url->target) > 0);
        if (http_parse_url(twice, again) == NULL) {
            claim(strcmp(twice->host, url->host) == 0 && strcmp(twice->port, url->port) == 0);
            claim(strcmp(twice->target, url->target) == 0);
        } else {
            claim(strlen(url->host) > 240); /* no room for a port that was not there */
        }
        free(again);
    }
    free(text);
    free(url);
    free(twice);
    return 0;
}
