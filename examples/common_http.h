/* common_http.h: HTTP's text (RFC 9112), as http_client and hello_http need it. It knows nothing of channels. */
#ifndef COMMON_HTTP_H
#define COMMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>

/* A line of a head, gathered from the pieces that it comes in. add: false when it is too long. end: the text without
 * its last CR, NULL when there is a NUL or another CR in it; the next line begins. */
struct http_line {
    size_t used;
    char text[8192];
};
bool http_line_add(struct http_line *line, const void *data, size_t n);
char *http_line_end(struct http_line *line);

/* Takes "http://host:port/path" apart. Returns what is wrong with it, or NULL. */
struct http_url {
    char host[256], port[8];
    char authority[264]; /* both, as they stand in the URL */
    const char *target;  /* the rest of the text */
};
const char *http_parse_url(struct http_url *url, const char *text);

/* "GET /kongxx HTTP/1.1", cut into pieces. Returns the status to refuse it with, or NULL. */
struct http_request {
    const char *method, *path; /* the path begins with a slash, and may have a query */
    char minor;                /* '1' */
};
const char *http_parse_request(struct http_request *request, char *line);

/* What a path names, decoded, its first slash and its query left out. Result as above. */
const char *http_decode_path(const char *path, char *name, size_t size);

/* "HTTP/1.1 404 Not Found": "404 Not Found", fit for a terminal. */
bool http_parse_status(const char *line, char *status, size_t size);

bool http_parse_chunk_size(const char *line, size_t *size);

/* Cuts "Name: value" in two, blanks around the value gone. NULL: no header. */
char *http_value(char *line);

/* Whether a comma-separated list has this token, in any case. */
bool http_has_token(const char *list, const char *token);

/* As text of an HTML page. out: room for six times as much, and the NUL. */
void http_escape(char *out, const char *text);

#endif
