/* common_http.c: see common_http.h. What comes from the network is taken as the grammar has it or not at all: a text
 * that two programs read in two ways is what attacks are made of. */
#include "common_http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common.h"

#define DIGITS "0123456789"
#define HEX_DIGITS DIGITS "abcdefABCDEF"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define LOWER "abcdefghijklmnopqrstuvwxyz"

bool http_line_add(struct http_line *line, const void *data, size_t n)
{
    if (n >= sizeof line->text - line->used)
        return false;
    memcpy(line->text + line->used, data, n);
    line->used += n;
    return true;
}

char *http_line_end(struct http_line *line)
{
    size_t n = line->used;

    line->used = 0;
    if (n > 0 && line->text[n - 1] == '\r')
        n--;
    line->text[n] = '\0';
    return strcspn(line->text, "\r") == n ? line->text : NULL;
}

char *http_value(char *line)
{
    size_t name = strcspn(line, ": \t");
    char *end;

    if (name == 0 || line[name] != ':')
        return NULL;
    line[name] = '\0';
    line += name + 1;
    line += strspn(line, " \t");
    end = line + strlen(line);
    while (end > line && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = '\0';
    return line;
}

bool http_has_token(const char *list, const char *token)
{
    size_t n = strlen(token);

    for (; *list; list += strcspn(list, ",")) {
        list += strspn(list, ", \t");
        if (strncasecmp(list, token, n) == 0 && strchr(",", list[n + strspn(list + n, " \t")]))
            return true;
    }
    return false;
}

/* host and what follows it of an authority: "host:port" or "[::1]:port". */
static const char *parse_host(struct http_url *url, const char **rest)
{
    const char *authority = url->authority;
    struct in6_addr ignored;
    size_t n;

    if (*authority == '[') {
        n = strcspn(authority, "]");
        snprintf(url->host, sizeof url->host, "%.*s", (int)n - 1, authority + 1);
        if (authority[n] != ']' || inet_pton(AF_INET6, url->host, &ignored) != 1)
            return "a URL with a bad IPv6 address";
        n++;
    } else {
        n = strspn(authority, UPPER LOWER DIGITS ".-_");
        snprintf(url->host, sizeof url->host, "%.*s", (int)n, authority);
        if (n == 0)
            return "a URL without a host";
    }
    *rest = authority + n;
    return NULL;
}

const char *http_parse_url(struct http_url *url, const char *text)
{
    const char *host = text + strlen("http://"), *rest, *wrong;
    size_t port = 80, n;

    if (strncasecmp(text, "http://", strlen("http://")) != 0)
        return "not an http:// URL";
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 127)
            return "a URL with a blank or a control character";
    n = strcspn(host, "/?#");
    url->target = host + n;
    if (n >= sizeof url->host)
        return "a URL with too long a host";
    snprintf(url->authority, sizeof url->authority, "%.*s", (int)n, host);
    wrong = parse_host(url, &rest);
    if (wrong)
        return wrong;
    if (*rest && *rest != ':')
        return "a URL with a bad host";
    if (*rest && rest[1] && (!example_number(rest + 1, 65535, &port) || port == 0))
        return "a URL with a bad port";
    snprintf(url->port, sizeof url->port, "%zu", port);
    return NULL;
}

const char *http_parse_request(struct http_request *request, char *line)
{
    char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;

    if (!version || strspn(line, UPPER "-") != (size_t)(target - line) || target == line)
        return "400 Bad Request";
    *target++ = *version++ = '\0';
    if (strncmp(version, "HTTP/", 5) != 0 || strspn(version + 5, DIGITS) != 1 || version[6] != '.' ||
        strspn(version + 7, DIGITS) != 1 || version[8])
        return "400 Bad Request";
    if (version[5] != '1')
        return "505 HTTP Version Not Supported";
    request->method = line;
    request->minor = version[7];
    if (strncasecmp(target, "http://", strlen("http://")) == 0) /* a whole URL, as proxies get it */
        target += strlen("http://") + strcspn(target + strlen("http://"), "/?#");
    request->path = target;
    return NULL;
}

const char *http_decode_path(const char *path, char *name, size_t size)
{
    size_t n = 0;

    if (*path++ != '/')
        return "400 Bad Request";
    for (; *path && *path != '?' && *path != '#'; path++) {
        unsigned byte = (unsigned char)*path;
        if (byte <= ' ' || byte == 127)
            return "400 Bad Request";
        if (byte == '%') {
            if (strspn(path + 1, HEX_DIGITS) < 2 || sscanf(path + 1, "%2x", &byte) != 1 || byte == 0)
                return "400 Bad Request";
            path += 2;
        }
        if (n + 1 == size)
            return "414 URI Too Long";
        name[n++] = (char)byte;
    }
    name[n] = '\0';
    return NULL;
}

bool http_parse_status(const char *line, char *status, size_t size)
{
    if (strncmp(line, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)line[7]) || line[8] != ' ' ||
        strspn(line + 9, DIGITS) != 3 || line[9] == '0' || (line[12] && line[12] != ' '))
        return false;
    snprintf(status, size, "%s", line + 9);
    for (; *status; status++)
        if (!isprint((unsigned char)*status))
            *status = '?';
    return true;
}

bool http_parse_chunk_size(const char *line, size_t *size)
{
    size_t digits = strspn(line, HEX_DIGITS);
    unsigned long long number;

    if (digits == 0 || digits > 15 || !strchr("; \t", line[digits]))
        return false;
    number = strtoull(line, NULL, 16);
    *size = (size_t)number;
    return number < SIZE_MAX;
}

void http_escape(char *out, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '&': out = stpcpy(out, "&amp;"); break;
        case '<': out = stpcpy(out, "&lt;"); break;
        case '>': out = stpcpy(out, "&gt;"); break;
        case '"': out = stpcpy(out, "&quot;"); break;
        case '\'': out = stpcpy(out, "&#39;"); break;
        default: *out++ = *text;
        }
    *out = '\0';
}
