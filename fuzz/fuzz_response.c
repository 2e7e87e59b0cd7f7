/* fuzz_response.c: the head of a response on its way through the examples: lines gathered from pieces, the status
 * line, headers, lists of tokens, sizes of chunks; each beside a naive reader of the grammar (RFC 9112). */
#include "common_http.h"
#include "fuzz.h"
#include <ctype.h>
#include <strings.h>

#define BLANK " \t"

static void check_status(const char *line)
{
    char status[40];
    memset(status, 'x', sizeof status);
    if (!http_parse_status(line, status, sizeof status))
        return;
    claim(strncmp(line, "HTTP/1.", 7) == 0 && isdigit((unsigned char)line[7]) && line[8] == ' ');
    claim(memchr(status, '\0', sizeof status) != NULL);
    claim(strspn(status, "0123456789") == 3 && status[0] != '0' && (status[3] == '\0' || status[3] == ' '));
    for (size_t i = 0; status[i]; i++)
        claim(isprint((unsigned char)status[i]) &&
              (status[i] == line[9 + i] || (status[i] == '?' && !isprint((unsigned char)line[9 + i]))));
}

static void check_chunk(const char *line)
{
    size_t size = 0, wanted = 0, digits = 0;
    bool taken = http_parse_chunk_size(line, &size);
    for (; isxdigit((unsigned char)line[digits]); digits++)
        wanted = wanted * 16 + (size_t)(isdigit((unsigned char)line[digits]) ? line[digits] - '0'
                                                                              : (line[digits] | 0x20) - 'a' + 10);
    bool good = digits > 0 && digits <= 15 && strchr("; \t", line[digits]) != NULL;
    claim(taken == good && (!taken || size == wanted));
}

/* Elements between commas, blanks around them left out. */
static bool has_token(const char *list, const char *token)
{
    for (;;) {
        size_t n = strcspn(list, ","), begin = strspn(list, BLANK), end = n;
        while (end > begin && strchr(BLANK, list[end - 1]) != NULL)
            end--;
        if (begin < end && end - begin == strlen(token) && strncasecmp(list + begin, token, end - begin) == 0)
            return true;
        if (list[n] == '\0')
            return false;
        list += n + 1;
    }
}

static void check_list(const char *list)
{
    static const char *const tokens[] = {"close", "keep-alive", "chunked", "a"};
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
        claim(http_has_token(list, tokens[i]) == has_token(list, tokens[i]));
}

static void check_header(char *line)
{
    char *copy = copy_of(line, strlen(line) + 1), *value = http_value(line);
    size_t name = strcspn(copy, ": \t");
    claim((value != NULL) == (name > 0 && copy[name] == ':'));
    if (value != NULL) {
        claim(strlen(line) == name && strncmp(copy, line, name) == 0);
        const char *from = copy + name + 1 + strspn(copy + name + 1, BLANK);
        size_t n = strlen(from);
        while (n > 0 && strchr(BLANK, from[n - 1]) != NULL)
            n--;
        claim(strlen(value) == n && strncmp(value, from, n) == 0);
        check_list(value);
    }
    free(copy);
}

/* One line in pieces, up to its LF; `in` is behind it. */
static void check_line(struct http_line *line, struct input *in, unsigned piece)
{
    struct input all = take_until(in, '\n');
    bool fits = true;
    for (struct input left = all; left.left > 0 && fits;) {
        struct input some = take_some(&left, piece);
        fits = http_line_add(line, some.at, some.left);
    }
    claim(fits == (all.left < sizeof line->text));
    if (!fits) {
        line->used = 0;
        return;
    }
    size_t n = all.left > 0 && all.at[all.left - 1] == '\r' ? all.left - 1 : all.left;
    bool good = n == 0 || (memchr(all.at, '\r', n) == NULL && memchr(all.at, '\0', n) == NULL);
    const char *text = http_line_end(line);
    claim((text != NULL) == good && line->used == 0);
    if (!good)
        return;
    claim(strlen(text) == n && (n == 0 || memcmp(text, all.at, n) == 0));
    char *copy = copy_of(text, n + 1);
    check_status(copy);
    check_chunk(copy);
    check_header(copy);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct http_line *line = malloc(sizeof *line);
    unsigned piece = take(&in);
    claim(line != NULL);
    memset(line, 'x', sizeof *line);
    line->used = 0;
    while (in.left > 0)
        check_line(line, &in, piece > 0 ? piece : 4096);
    free(line);
    return 0;
}
