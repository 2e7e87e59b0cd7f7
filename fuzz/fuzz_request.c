/* fuzz_request.c: a request line on its way through the examples: http_parse_request(), http_decode_path(), and
 * http_escape() of what the path names. Refusals are statuses; a name says what a naive decoder says, and its page
 * holds nothing that a browser would take for anything but text. */
#include "common_http.h"
#include "fuzz.h"
#include <strings.h>

static void check_refusal(const char *status)
{
    static const char *const known[] = {"400 Bad Request", "414 URI Too Long", "505 HTTP Version Not Supported"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(status, known[i]) == 0)
            return;
    claim(!"a known status");
}

static int digit(char c)
{
    const char *digits = "0123456789abcdef", *at = memchr(digits, c | (c >= 'A' ? 0x20 : 0), 16);
    return at != NULL ? (int)(at - digits) : -1;
}

/* What a path names, for a path without end; NULL if it names nothing. */
static char *decode(const char *path)
{
    char *name = malloc(strlen(path) + 1), *out = name;
    bool good = *path == '/';
    claim(name != NULL);
    for (path += good; good && *path && *path != '?' && *path != '#'; path++) {
        int byte = (unsigned char)*path;
        good = byte > ' ' && byte != 127;
        if (byte == '%') {
            int high = digit(path[1]), low = high >= 0 ? digit(path[2]) : -1;
            byte = low < 0 ? 0 : high * 16 + low;
            good = byte > 0;
            path += good ? 2 : 0;
        }
        *out++ = (char)byte;
    }
    *out = '\0';
    if (good)
        return name;
    free(name);
    return NULL;
}

/* A page's text, read as a browser does. */
static void check_page(const char *page, const char *text)
{
    static const struct {
        const char *entity;
        char byte;
    } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}};
    claim(strpbrk(page, "<>\"'") == NULL);
    for (; *text; text++) {
        char byte = *page;
        size_t n = 1;
        for (size_t i = 0; *page == '&' && i < sizeof entities / sizeof *entities; i++)
            if (strncmp(page, entities[i].entity, strlen(entities[i].entity)) == 0) {
                byte = entities[i].byte;
                n = strlen(entities[i].entity);
            }
        claim(byte == *text && (*page != '&' || n > 1));
        page += n;
    }
    claim(*page == '\0');
}

static void check_path(const char *path, size_t room)
{
    char *name = malloc(room), *wanted = decode(path);
    claim(name != NULL);
    const char *refused = http_decode_path(path, name, room);
    if (refused != NULL) {
        check_refusal(refused);
        claim(strncmp(refused, "414", 3) == 0 ? wanted == NULL || strlen(wanted) >= room : wanted == NULL);
    } else {
        claim(wanted != NULL && strcmp(name, wanted) == 0);
        char *page = malloc(6 * strlen(name) + 1);
        claim(page != NULL);
        http_escape(page, name);
        check_page(page, name);
        free(page);
    }
    free(wanted);
    free(name);
}

/* The target of a whole URL: what follows the authority. */
static void check_target(const char *target, const char *path)
{
    if (strncasecmp(target, "http://", 7) == 0) {
        target += 7;
        target += strcspn(target, "/?#");
    }
    claim(strcmp(target, path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    size_t room = 1 + take(&in);
    char *line = text_of(in), *copy = copy_of(line, strlen(line) + 1);
    struct http_request request;
    const char *refused = http_parse_request(&request, line);
    if (refused != NULL) {
        check_refusal(refused);
    } else {
        size_t method = strlen(request.method);
        char *target = copy + method + 1, *version = strchr(target, ' ');
        claim(method > 0 && strncmp(copy, request.method, method) == 0 && copy[method] == ' ');
        claim(version != NULL && strncmp(version, " HTTP/1.", 8) == 0 && version[8] == request.minor);
        claim(request.minor >= '0' && request.minor <= '9' && version[9] == '\0');
        *version = '\0';
        check_target(target, request.path);
        check_path(request.path, room);
    }
    free(line);
    free(copy);
    return 0;
}
