/* log.h: the lines that portforward writes: a connection's at its end (and, on request, at its start), and events. As
 * text or JSON, to stderr or a file.
 *
 * Lines that come thick are gathered: the first goes out at once, what comes within 100 ms after a write goes out
 * together. A reader that does not read (a full pipe) never holds the forwarder up: lines are dropped, and the next
 * that goes out is preceded by how many. Under journald (JOURNAL_STREAM is stderr) lines begin with <N> and have no
 * time.
 *
 *     2020-01-01T09:55:00.123Z rule=web client=192.0.2.7:51234 remote=10.0.0.5:80 up=1234 down=56789 ms=812 end=closed
 *     2020-01-01T09:55:00.123Z rule=web client=192.0.2.7:51234 remote=- start
 *     2020-01-01T09:55:00.123Z portforward: listening on 127.0.0.1:8080
 *     {"time":"...","rule":"web","client":"...","remote":"...","up":1234,"down":56789,"ms":812,"end":"closed"}
 *     {"time":"...","rule":"web","client":"...","remote":"-","start":true}
 *     {"time":"...","level":"info","message":"listening on 127.0.0.1:8080"}      error, warning, notice, info
 *
 * A value with a space, '"', '=' or '\' in it is written as a JSON string in the text form too. */
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
    const char *file; /* NULL or "stderr": stderr */
    bool json;
    bool starts; /* a line at the start of a connection too */
    /* Instead of a file or stderr: gets each line without its time and newline (for the simulation and tests). */
    void (*line)(void *arg, const char *text);
    void *arg;
};

/* -errno of open(2): then nothing was made. A FIFO that nobody reads is -ENXIO. Uses a background timer of the map. */
int log_open(struct log **ret, struct asyncore_map *map, const struct log_options *options);

/* Before asyncore_map_free(). What is gathered goes out first; a reader that does not read gets a second for that. NULL
 * is nothing. */
void log_close(struct log *log);

/* Opens the file anew (after logrotate moved it); on failure it writes on into the old one, and says so. Another `file`
 * than before (a reload) replaces it; NULL: the same as before. 0, or the negative error that was logged. */
int log_reopen(struct log *log, const char *file);

/* A beginning (end NULL) is a line only if `starts` is set. */
void log_connection(struct log *log, const struct log_connection *connection);
bool log_starts(const struct log *log);

/* An event: one line, whatever its text holds. log NULL: straight to stderr (before there is a log), "portforward: ..."
 * without the time. */
void log_event(struct log *log, enum log_priority priority, const char *format, ...) ASYNCORE_PRINTF(3, 4);

#endif
