/* log.c: a line is formatted, then gathered, then written; each step knows nothing of the others.
 *
 * A line is at most LINE_SIZE bytes with its newline: texts that would make it longer are cut. In the text form a value
 * that is not plain (it is empty, or has a space, '"', '=', '\' or anything else than ASCII's signs in it) is written
 * as a JSON string; bytes that are no UTF-8 become U+FFFD in both forms. So a line is one line, whatever a name holds.
 *
 * Lines wait in one buffer, in order. The first is written at once and sets the timer; until that is due the others
 * gather, unless the buffer fills up. What could not be written stays, and a line of which a part was written
 * stays whole, so that it can begin anew in another file:
 *
 *     FREE     the next line is written at once
 *     RESTING  something was written just now: the timer will write what came since
 *     BLOCKED  the reader does not read: the timer tries again, less and less often
 *     FAILED   an error, ENOSPC or EPIPE: the timer ends this state, and the next line tries again. A log that is of no
 *              use so takes no time while nothing happens.
 *
 * In the last two a full buffer is not written before the timer is due: lines are dropped and counted.
 *
 * Nothing waits for a reader. Standard error is shared with others, so it is never made non-blocking: a pipe or a
 * terminal is opened a second time where that is allowed, and is asked by poll(2) where not; a pipe that has room takes
 * PIPE_BUF bytes without waiting, which is why a line is no longer than that. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_SIZE = PIPE_BUF,    /* 4096 */
    VALUE_MOST = 1200,       /* bytes of a value, escaped: a line has three */
    MESSAGE_MOST = 3900,     /* bytes of an event's message, escaped */
    BUFFER_SIZE = 64 << 10,
    GATHER = 100,            /* ms */
    RETRY_LEAST = 10,        /* ms: a terminal takes 4 KiB at a time */
    RETRY_MOST = 1000,       /* ms */
    LAST_WAIT = 1000,        /* ms that log_close() waits at most */
};

enum stamp { STAMP_TIME, STAMP_PRIORITY, STAMP_NONE };
enum state { FREE, RESTING, BLOCKED, FAILED };

/* How lines look. */
struct form {
    bool json;
    enum stamp stamp;
    time_t second; /* of `date` */
    char date[64];
};

struct line {
    bool json;
    size_t start; /* where the members begin */
    size_t length;
    char text[LINE_SIZE];
};

struct log {
    struct asyncore_map *map;
    struct asyncore_timer timer;
    struct log_options options;
    char *file; /* NULL: stderr */
    int fd;
    mode_t type; /* of fd: S_IFREG, ... */
    struct form form;
    enum state state;
    unsigned retry; /* ms; how long it waits if the next write is BLOCKED, too */
    uint64_t dropped;
    size_t used, written; /* `written` is less than the first line's length */
    char buffer[BUFFER_SIZE];
};

/* -- A line -- */

static void put_char(struct line *line, char c)
{
    if (line->length < LINE_SIZE - 1)
        line->text[line->length++] = c;
}

static void put_text(struct line *line, const char *text)
{
    while (*text)
        put_char(line, *text++);
}

static void put_number(struct line *line, uint64_t number)
{
    char digits[20];
    unsigned count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    while (count)
        put_char(line, digits[--count]);
}

/* The length of the UTF-8 character at `text`, and which it is; 0: there is none. */
static unsigned utf8_character(const char *text, uint32_t *character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)text;
    unsigned length = *p < 0x80 ? 1 : *p < 0xc0 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf8 ? 4 : 0;
    uint32_t c = length <= 1 ? *p : *p & (0x7fu >> length);

    for (unsigned i = 1; i < length; i++) { /* the NUL at the end is no continuation */
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    *character = c;
    return length && c >= least[length] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? length : 0;
}

/* Control characters, and those that end a line or turn the direction of writing. */
static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/* Text as it stands in a JSON string, of `most` bytes at most; what is not quoted keeps '"' and '\'. */
static void put_escaped(struct line *line, const char *text, size_t most, bool quoted)
{
    size_t end = line->length + most;

    while (*text && line->length + 6 <= end) {
        uint32_t c;
        unsigned length = utf8_character(text, &c);
        char escape[8] = "";

        if (length == 0)
            snprintf(escape, sizeof(escape), "\\ufffd");
        else if (is_control(c))
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)c & 0xffff);
        else if (quoted && (c == '"' || c == '\\'))
            put_char(line, '\\');
        put_text(line, escape);
        for (unsigned i = 0; !*escape && i < length; i++)
            put_char(line, text[i]);
        text += length ? length : 1;
    }
}

static void put_quoted(struct line *line, const char *text, size_t most)
{
    put_char(line, '"');
    put_escaped(line, text, most, true);
    put_char(line, '"');
}

static bool is_plain(const char *text)
{
    const char *p = text;

    while (*p > ' ' && *p <= '~' && !strchr("\"=\\", *p))
        p++;
    return *text && !*p && p - text <= VALUE_MOST;
}

static void put_separator(struct line *line)
{
    if (line->length > line->start)
        put_char(line, line->json ? ',' : ' ');
}

static void put_name(struct line *line, const char *name)
{
    put_separator(line);
    if (line->json)
        put_char(line, '"');
    put_text(line, name);
    put_text(line, line->json ? "\":" : "=");
}

static void put_text_member(struct line *line, const char *name, const char *value)
{
    put_name(line, name);
    if (!line->json && is_plain(value))
        put_text(line, value);
    else
        put_quoted(line, value, VALUE_MOST);
}

static void put_number_member(struct line *line, const char *name, uint64_t value)
{
    put_name(line, name);
    put_number(line, value);
}

/* UTC to the millisecond; the date is made once a second. */
static void put_time(struct line *line, struct form *form)
{
    struct timespec now;
    struct tm parts;
    unsigned ms;

    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != form->second || !*form->date) {
        gmtime_r(&now.tv_sec, &parts);
        strftime(form->date, sizeof(form->date), "%Y-%m-%dT%H:%M:%S", &parts);
        form->second = now.tv_sec;
    }
    ms = (unsigned)(now.tv_nsec / 1000000);
    put_text(line, form->date);
    put_char(line, '.');
    put_char(line, (char)('0' + ms / 100));
    put_char(line, (char)('0' + ms / 10 % 10));
    put_char(line, (char)('0' + ms % 10));
    put_char(line, 'Z');
}

static void put_priority(struct line *line, enum log_priority priority)
{
    put_char(line, '<');
    put_number(line, priority);
    put_char(line, '>');
}

static void line_begin(struct line *line, struct form *form, enum log_priority priority)
{
    line->json = form->json;
    line->length = 0;
    if (form->stamp == STAMP_PRIORITY)
        put_priority(line, priority);
    if (line->json)
        put_char(line, '{');
    line->start = line->length;
    if (form->stamp == STAMP_TIME && line->json) {
        put_text(line, "\"time\":\"");
        put_time(line, form);
        put_char(line, '"');
    } else if (form->stamp == STAMP_TIME) {
        put_time(line, form);
    }
}

static void line_event(struct line *line, struct form *form, enum log_priority priority, const char *message)
{
    static const char *const levels[] = {"error", "warning", "notice", "info"};

    line_begin(line, form, priority);
    if (line->json) {
        put_text_member(line, "level", levels[priority - LOG_PRIORITY_ERROR]);
        put_name(line, "message");
        put_quoted(line, message, MESSAGE_MOST);
        put_char(line, '}');
        return;
    }
    put_separator(line);
    if (form->stamp != STAMP_PRIORITY) /* the journal knows who writes */
        put_text(line, "portforward: ");
    put_escaped(line, message, MESSAGE_MOST, false);
}

static void line_connection(struct line *line, struct form *form, const struct log_connection *connection)
{
    line_begin(line, form, LOG_PRIORITY_INFO);
    put_text_member(line, "rule", connection->rule);
    put_text_member(line, "client", connection->client);
    put_text_member(line, "remote", connection->remote);
    if (connection->end) {
        put_number_member(line, "up", connection->up);
        put_number_member(line, "down", connection->down);
        put_number_member(line, "ms", connection->ms);
        put_text_member(line, "end", connection->end);
    } else {
        put_separator(line);
        put_text(line, line->json ? "\"start\":true" : "start");
    }
    if (line->json)
        put_char(line, '}');
}

/* -- Writing -- */

/* Pipes and terminals get whole lines, as many as a write takes without waiting. */
static size_t piece_size(const struct log *log, size_t from)
{
    size_t size = log->used - from;
    const char *newline;

    if (log->type == S_IFREG || log->type == S_IFSOCK || size <= PIPE_BUF)
        return size;
    newline = memrchr(log->buffer + from, '\n', PIPE_BUF);
    return newline ? (size_t)(newline + 1 - (log->buffer + from)) : PIPE_BUF;
}

static ssize_t write_piece(const struct log *log, const char *data, size_t size)
{
    struct pollfd room = {.fd = log->fd, .events = POLLOUT};

    if (log->type == S_IFSOCK)
        return send(log->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (log->type != S_IFREG && poll(&room, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return write(log->fd, data, size);
}

/* Forgets the lines of which everything was written up to `to`. */
static void forget_written(struct log *log, size_t to)
{
    const char *newline = memrchr(log->buffer, '\n', to);
    size_t lines = newline ? (size_t)(newline + 1 - log->buffer) : 0;

    if (lines)
        memmove(log->buffer, log->buffer + lines, log->used - lines);
    log->used -= lines;
    log->written = to - lines;
}

static enum state write_buffer(struct log *log)
{
    size_t at = log->written;
    enum state state = RESTING;

    while (at < log->used && state == RESTING) {
        ssize_t n = write_piece(log, log->buffer + at, piece_size(log, at));

        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || errno == EAGAIN)
            state = BLOCKED;
        else if (errno != EINTR)
            state = FAILED;
    }
    if (at > log->written)
        log->retry = RETRY_LEAST;
    forget_written(log, at);
    return state;
}

static void append(struct log *log, const struct line *line)
{
    memcpy(log->buffer + log->used, line->text, line->length);
    log->used += line->length;
    log->buffer[log->used++] = '\n';
}

static bool has_room(const struct log *log, size_t size)
{
    return log->used + size <= BUFFER_SIZE;
}

static void append_dropped(struct log *log)
{
    char message[64];
    struct line line;

    snprintf(message, sizeof(message), "%llu line%s dropped", (unsigned long long)log->dropped,
             log->dropped == 1 ? " was" : "s were");
    line_event(&line, &log->form, LOG_PRIORITY_WARNING, message);
    append(log, &line);
    log->dropped = 0;
}

static void timer_due(struct asyncore_timer *timer, void *arg);

/* Writes what is there, and then how much is not. */
static void flush(struct log *log)
{
    unsigned delay = GATHER;

    log->state = write_buffer(log);
    if (log->state == RESTING && log->dropped) {
        append_dropped(log);
        log->state = write_buffer(log);
    }
    if (log->state == FAILED) {
        delay = RETRY_MOST;
    } else if (log->state == BLOCKED) {
        delay = log->retry;
        log->retry = delay * 2 < RETRY_MOST ? delay * 2 : RETRY_MOST;
    }
    asyncore_timer_set_background(&log->timer, 1);
    if (asyncore_call_later(log->map, &log->timer, delay, timer_due, log) < 0)
        log->state = FREE;
}

static void timer_due(struct asyncore_timer *timer, void *arg)
{
    struct log *log = arg;
    bool failed = log->state == FAILED;

    (void)timer;
    log->state = FREE;
    if (!failed && (log->used || log->dropped))
        flush(log);
}

static void put_line(struct log *log, struct line *line)
{
    size_t size;

    if (log->options.line) {
        line->text[line->length] = 0;
        log->options.line(log->options.arg, line->text);
        return;
    }
    size = line->length + 1 + (log->dropped ? LINE_SIZE : 0);
    if (!has_room(log, size) && (log->state == FREE || log->state == RESTING))
        flush(log);
    if (!has_room(log, size)) {
        log->dropped++;
        return;
    }
    if (log->dropped)
        append_dropped(log);
    append(log, line);
    if (log->state == FREE)
        flush(log);
}

/* -- Where to -- */

/* systemd says which file its journal's end of standard error is: it may have been redirected since. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    char here[64];
    struct stat s;

    if (!stream || fstat(STDERR_FILENO, &s) < 0)
        return false;
    snprintf(here, sizeof(here), "%ju:%ju", (uintmax_t)s.st_dev, (uintmax_t)s.st_ino);
    return strcmp(stream, here) == 0;
}

static enum stamp stderr_stamp(enum stamp other)
{
    return stderr_is_journal() ? STAMP_PRIORITY : other;
}

static mode_t type_of(int fd)
{
    struct stat s;

    return fstat(fd, &s) < 0 ? S_IFREG : s.st_mode & S_IFMT;
}

/* Standard error, or a descriptor of the same pipe or terminal that is this process's alone. (A regular file opened
 * twice would have two positions.) */
static int open_stderr(void)
{
    mode_t type = type_of(STDERR_FILENO);
    int fd = -1;

    if (type == S_IFIFO || type == S_IFCHR)
        fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? STDERR_FILENO : fd;
}

/* A FIFO is a log if somebody reads it (-ENXIO), a directory is none (-EISDIR). */
static int open_file(const char *file)
{
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0640);

    return fd < 0 ? -errno : fd;
}

static void close_output(struct log *log)
{
    if (log->fd >= 0 && log->fd != STDERR_FILENO)
        close(log->fd);
    free(log->file);
}

/* NULL, and "stderr", is standard error. On failure everything is as it was. */
static int set_output(struct log *log, const char *file)
{
    char *name = file && strcmp(file, "stderr") != 0 ? strdup(file) : NULL;
    int fd;

    if (!name && file && strcmp(file, "stderr") != 0)
        return -ENOMEM;
    fd = name ? open_file(name) : open_stderr();
    if (fd < 0) {
        free(name);
        return fd;
    }
    close_output(log);
    log->file = name;
    log->fd = fd;
    log->type = type_of(fd);
    log->form.stamp = name ? STAMP_TIME : stderr_stamp(STAMP_TIME);
    log->written = 0;
    return 0;
}

int log_open(struct log **ret, struct asyncore_map *map, const struct log_options *options)
{
    struct log *log = calloc(1, sizeof(*log));
    int r = 0;

    if (!log)
        return -ENOMEM;
    log->map = map;
    log->options = *options;
    log->form.json = options->json;
    log->fd = -1;
    log->retry = RETRY_LEAST;
    log->form.stamp = STAMP_NONE;
    if (!options->line)
        r = set_output(log, options->file);
    if (r < 0)
        free(log);
    else
        *ret = log;
    return r;
}

int log_reopen(struct log *log, const char *file)
{
    const char *name = file ? file : log->file ? log->file : "stderr";
    int r;

    if (log->options.line)
        return 0;
    write_buffer(log); /* what came before belongs into the old file */
    r = set_output(log, name);
    if (r < 0) {
        log_event(log, LOG_PRIORITY_ERROR, "cannot open the log %s, so the old one goes on: %s", name,
                  asyncore_strerror(r));
        return r;
    }
    asyncore_cancel(&log->timer);
    log->state = FREE;
    if (log->used || log->dropped)
        flush(log);
    return 0;
}

static int64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A reader that is only slow gets the rest. */
static void write_last(struct log *log)
{
    struct pollfd room = {.fd = log->fd, .events = POLLOUT};
    int64_t end = clock_ms() + LAST_WAIT, left = LAST_WAIT;

    do {
        flush(log);
        left = end - clock_ms();
    } while (log->state == BLOCKED && left > 0 && poll(&room, 1, (int)left) > 0);
}

void log_close(struct log *log)
{
    if (!log)
        return;
    if (log->used || log->dropped)
        write_last(log);
    asyncore_cancel(&log->timer);
    close_output(log);
    free(log);
}

void log_connection(struct log *log, const struct log_connection *connection)
{
    struct line line;

    if (!connection->end && !log->options.starts)
        return;
    line_connection(&line, &log->form, connection);
    put_line(log, &line);
}

bool log_starts(const struct log *log)
{
    return log->options.starts;
}

/* Before there is a log. If nobody can read it there is nobody to tell. */
static void event_to_stderr(enum log_priority priority, const char *message)
{
    struct form form = {.stamp = stderr_stamp(STAMP_NONE)};
    struct line line;

    line_event(&line, &form, priority, message);
    line.text[line.length++] = '\n';
    if (write(STDERR_FILENO, line.text, line.length) < 0)
        return;
}

void log_event(struct log *log, enum log_priority priority, const char *format, ...)
{
    char message[LINE_SIZE];
    struct line line;
    va_list arguments;

    va_start(arguments, format);
    if (vsnprintf(message, sizeof(message), format, arguments) < 0)
        snprintf(message, sizeof(message), "%s", format);
    va_end(arguments);
    if (!log) {
        event_to_stderr(priority, message);
        return;
    }
    line_event(&line, &log->form, priority, message);
    put_line(log, &line);
}
