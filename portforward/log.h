/* log.h: the lines that portforward writes: a connection's at its end (and, on request, at its start), and events. As
 * text or JSON, to stderr or a file.
 *
 * Lines that come thick are gathered: the first goes out at once, what comes within 100 ms after a write goes out
 * together. A reader that does not read (a full pipe) never holds the forwarder up: lines are dropped, and the next that
 * goes out is preceded by how many. Under journald (JOURNAL_STREAM is stderr) lines begin with <N> and have no time. */
#ifndef PORTFORWARD_LOG_H
#define PORTFORWARD_LOG_H

#include <asyncore.h>
#include <stdbool.h>

enum log_priority { LOG_PRIORITY_ERROR = 3, LOG_PRIORITY_WARNING = 4, LOG_PRIORITY_NOTICE = 5, LOG_PRIORITY_INFO = 6 };

/* What a line of a connection says. Texts are the caller's. */
struct log_connection {
    const char *rule, *client, *remote; /* remote "-": none was reached */
    uint64_t up, down;                  /* bytes from the client, bytes to the client, as delivered */
    uint64_t ms;
    const char *end; /* the reason; NULL: the connection begins */
};

struct log;

struct log_options {
    const char *file; /* NULL: stderr */
    bool json;
    bool starts; /* a line at the start of a connection too */
    /* Instead of a file or stderr: gets each line without its newline (for the simulation and tests). */
    void (*line)(void *arg, const char *text);
    void *arg;
};

/* -errno of open(2): then nothing was made. Uses a background timer of the map. */
int log_open(struct log **ret, struct asyncore_map *map, const struct log_options *options);
void log_close(struct log *log); /* what is gathered goes out first; NULL is nothing */

/* Opens the file anew (after logrotate moved it); on failure it writes on into the old one, and says so. Another `file`
 * than before (a reload) replaces it; NULL: the same as before. */
int log_reopen(struct log *log, const char *file);

void log_connection(struct log *log, const struct log_connection *connection);
bool log_starts(const struct log *log);

/* An event: "portforward: ..." on stderr as text. log NULL: straight to stderr (before there is a log). */
void log_event(struct log *log, enum log_priority priority, const char *format, ...) ASYNCORE_PRINTF(3, 4);

#endif
