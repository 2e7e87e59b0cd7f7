/* The log of portforward: what its lines look like, that each of them is one whole line whatever the names in it hold
 * and whoever reads it, and that nobody who does not read it holds the program up. */
/* engine-independent */
/* portforward: log.c */
#include "../portforward/log.h"
#include "support.h"
#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

static struct log *log_;
static char directory[64], path[96], moved[96]; /* path: the log file */
static int saved_stderr = -1;

/* -- Around a test -- */

static void in_directory(void)
{
    snprintf(directory, sizeof directory, "%s/forward_log.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/log", directory);
    snprintf(moved, sizeof moved, "%s/log.1", directory);
    signal(SIGPIPE, SIG_IGN);
    unsetenv("JOURNAL_STREAM");
    umask(022);
}

static void leave_directory(void)
{
    ck_assert_int_eq(seteuid(getuid()), 0);
    log_close(log_);
    if (saved_stderr >= 0) {
        dup2(saved_stderr, STDERR_FILENO);
        close(saved_stderr);
    }
    unlink(path);
    unlink(moved);
    ck_assert_int_eq(rmdir(directory), 0);
}

static void open_log(const char *file, bool json, bool starts)
{
    ck_assert_int_eq(log_open(&log_, map, &(struct log_options){.file = file, .json = json, .starts = starts}), 0);
}

static void close_log(void)
{
    log_close(log_);
    log_ = NULL;
}

static void stderr_to(int fd) /* fd is closed */
{
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    ck_assert_int_ge(saved_stderr, 0);
    ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
}

/* Each write to it is one message. */
static int stderr_to_messages(void)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    stderr_to(fds[1]);
    return fds[0];
}

static const char *message(int fd)
{
    static char text[1 << 17];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static const char *content(const char *file)
{
    static char text[4 << 20];
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ck_assert_msg(fd >= 0, "%s: %s", file, strerror(errno));
    ssize_t n = read(fd, text, sizeof text - 1);
    ck_assert_int_ge(n, 0);
    text[n] = 0;
    close(fd);
    return text;
}

/* -- Times -- */

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* "2020-01-01T09:55:00.123Z" of this moment, give or take a minute. */
static void assert_time(const char *text)
{
    struct tm parts = {.tm_mday = 1};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    ck_assert_msg(rest && rest - text == 19, "no time: %.40s", text);
    ck_assert_msg(rest[0] == '.' && isdigit(rest[1]) && isdigit(rest[2]) && isdigit(rest[3]) && rest[4] == 'Z',
                  "no time: %.40s", text);
    int64_t ms = (int64_t)timegm(&parts) * 1000 + atoi(rest + 1);
    ck_assert_msg(llabs((long long)(ms - wall_ms())) < 60000, "not now: %.40s", text);
}

enum { TIME_LENGTH = 24 };

/* The text with its times, which must be right, replaced by TIME. */
static const char *timeless(const char *text)
{
    static char result[1 << 17];
    size_t n = 0;
    while (*text) {
        if (isdigit(text[0]) && isdigit(text[1]) && isdigit(text[2]) && isdigit(text[3]) && text[4] == '-') {
            assert_time(text);
            n += (size_t)sprintf(result + n, "TIME");
            text += TIME_LENGTH;
        } else {
            result[n++] = *text++;
        }
    }
    result[n] = 0;
    return result;
}

static const struct log_connection web = {
    .rule = "web",
    .client = "192.0.2.7:51234",
    .remote = "10.0.0.5:80",
    .up = 1234,
    .down = 56789,
    .ms = 812,
    .end = "client-reset",
};

static void log_rule(const char *rule)
{
    struct log_connection connection = web;
    connection.rule = rule;
    log_connection(log_, &connection);
}

/* -- What lines look like -- */

static void log_some(void)
{
    struct log_connection begin = {.rule = "web", .client = "192.0.2.7:51234", .remote = "-"};
    log_connection(log_, &begin);
    log_connection(log_, &web);
    log_event(log_, LOG_PRIORITY_NOTICE, "listening on %s", "[::]:80");
    log_event(log_, LOG_PRIORITY_ERROR, "broken");
    close_log();
}

START_TEST(a_connection_and_an_event_are_a_line_each)
{
    open_log(path, false, false);
    ck_assert(!log_starts(log_));
    log_some();
    ck_assert_str_eq(timeless(content(path)),
                     "TIME rule=web client=192.0.2.7:51234 remote=10.0.0.5:80 up=1234 down=56789 ms=812 "
                     "end=client-reset\n"
                     "TIME portforward: listening on [::]:80\n"
                     "TIME portforward: broken\n");
}
END_TEST

START_TEST(json_lines_have_the_same_members)
{
    open_log(path, true, true);
    ck_assert(log_starts(log_));
    log_some();
    ck_assert_str_eq(timeless(content(path)),
                     "{\"time\":\"TIME\",\"rule\":\"web\",\"client\":\"192.0.2.7:51234\",\"remote\":\"-\","
                     "\"start\":true}\n"
                     "{\"time\":\"TIME\",\"rule\":\"web\",\"client\":\"192.0.2.7:51234\",\"remote\":\"10.0.0.5:80\","
                     "\"up\":1234,\"down\":56789,\"ms\":812,\"end\":\"client-reset\"}\n"
                     "{\"time\":\"TIME\",\"level\":\"notice\",\"message\":\"listening on [::]:80\"}\n"
                     "{\"time\":\"TIME\",\"level\":\"error\",\"message\":\"broken\"}\n");
}
END_TEST

START_TEST(a_start_is_a_line_on_request)
{
    open_log(path, false, true);
    log_some();
    ck_assert_str_eq(strtok((char *)timeless(content(path)), "\n"),
                     "TIME rule=web client=192.0.2.7:51234 remote=- start");
}
END_TEST

START_TEST(counts_of_64_bits_are_whole)
{
    struct log_connection large = web;
    large.up = UINT64_MAX, large.down = 0, large.ms = 10000000000;
    open_log(path, false, false);
    log_connection(log_, &large);
    ck_assert_ptr_nonnull(strstr(content(path), " up=18446744073709551615 down=0 ms=10000000000 end="));
}
END_TEST

/* The date is made once a second. */
START_TEST(the_second_that_passes_is_seen)
{
    open_log(path, false, false);
    log_rule("first");
    int64_t first = wall_ms();
    wait_until(wall_ms() / 1000 > first / 1000 + 1);
    log_rule("second");
    close_log();
    char text[1000];
    snprintf(text, sizeof text, "%s", content(path));
    ck_assert_int_ne(strncmp(text, strchr(text, '\n') + 1, 19), 0);
    struct tm parts = {.tm_mday = 1};
    strptime(strchr(text, '\n') + 1, "%Y-%m-%dT%H:%M:%S", &parts);
    ck_assert_int_gt((int64_t)timegm(&parts), first / 1000);
}
END_TEST

START_TEST(values_that_could_be_taken_apart_are_quoted)
{
    static const struct {
        const char *rule, *text;
    } cases[] = {
        {"a b", "\"a b\""},
        {"", "\"\""},
        {"a=b", "\"a=b\""},
        {"say \"so\"", "\"say \\\"so\\\"\""},
        {"back\\slash", "\"back\\\\slash\""},
        {"two\nlines\r", "\"two\\u000alines\\u000d\""},
        {"\033[2J\177", "\"\\u001b[2J\\u007f\""},
        {"na\xc3\xafve", "\"na\xc3\xafve\""},
        {"\xff\xc3", "\"\\ufffd\\ufffd\""},
        {"\xc2\x85\xe2\x80\xa8\xe2\x80\xae", "\"\\u0085\\u2028\\u202e\""}, /* next line, line separator, override */
        {"*:443", "*:443"},
        {"unix:/run/app.sock", "unix:/run/app.sock"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char expected[200];
        open_log(path, false, false);
        log_rule(cases[i].rule);
        close_log();
        snprintf(expected, sizeof expected, "TIME rule=%s client=192.0.2.7:51234 ", cases[i].text);
        const char *text = timeless(content(path));
        ck_assert_msg(strncmp(text, expected, strlen(expected)) == 0, "expected %s, got %s", expected, text);
        unlink(path);
    }
}
END_TEST

/* Python's json and its UTF-8, every bad byte a character, are the judges: the value of `rule` in each line, and the
 * message of the event after it, are those of the file `moved`, in hex. */
static const char judge[] =
    "import codecs, json, re, sys\n"
    "codecs.register_error('each', lambda e: ('\\ufffd' * (e.end - e.start), e.end))\n"
    "want = [bytes.fromhex(h).decode('utf-8', 'each') for h in open(sys.argv[2])]\n"
    "lines = open(sys.argv[1], 'rb').read().decode('utf-8').split('\\n')\n"
    "assert lines.pop() == '' and len(lines) == 2 * len(want), (len(lines), len(want))\n"
    "def fields(line):\n"
    "    if line[0] == '{':\n"
    "        return json.loads(line)\n"
    "    pairs = re.findall(r' (\\w+)=(\"(?:[^\"\\\\]|\\\\.)*\"|[^ \"=]+)(?= |$)', line)\n"
    "    assert line[24:] == ''.join(' %s=%s' % pair for pair in pairs), line\n"
    "    return {k: json.loads(v) if v[0] == '\"' else v for k, v in pairs}\n"
    "for i, value in enumerate(want):\n"
    "    got = fields(lines[2 * i])\n"
    "    assert got['rule'] == value and got['end'] == 'client-reset', (got, value)\n"
    "    event = lines[2 * i + 1]\n"
    "    assert len(event.splitlines()) == 1 and event.isprintable() or not value.isprintable(), event\n"
    "    if event[0] == '{':\n"
    "        assert json.loads(event)['message'] == 'name ' + value, event\n";

static void write_random_names(void)
{
    FILE *wanted = fopen(moved, "we");
    uint32_t state = 7;
    ck_assert_ptr_nonnull(wanted);
    for (int i = 0; i < 3000; i++) {
        char name[9] = "";
        for (int j = 0; j < 1 + i % 8; j++) {
            static const unsigned char edges[] = {0xe0, 0xed, 0xf0, 0xf4, 0xc1, 0x80,
                                                  0x8f, 0x90, 0x9f, 0xa0, 0xbf, '"'};
            uint32_t r = random_next(&state) >> 8;
            name[j] = i < 256 ? (char)(i ? i : 1) : r % 3 ? (char)edges[r / 3 % sizeof edges] : (char)(1 + r / 3 % 255);
        }
        for (int j = 0; name[j]; j++)
            fprintf(wanted, "%02x", (unsigned char)name[j]);
        fprintf(wanted, "\n");
        log_rule(name);
        log_event(log_, LOG_PRIORITY_INFO, "name %s", name);
    }
    fclose(wanted);
}

START_TEST(any_bytes_come_back_from_the_line)
{
    open_log(path, _i == 1, false);
    write_random_names();
    close_log();
    pid_t child = fork();
    if (child == 0) {
        execlp("python3", "python3", "-c", judge, path, moved, (char *)NULL);
        _exit(127);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

static int nesting(const char *line)
{
    bool quoted = false;
    int depth = 0;
    for (; *line; line++) {
        if (quoted && *line == '\\')
            line++;
        else if (*line == '"')
            quoted = !quoted;
        else if (!quoted)
            depth += (*line == '{') - (*line == '}');
    }
    return quoted ? -1 : depth;
}

START_TEST(a_line_is_never_longer_than_a_pipe_takes_at_once)
{
    static char longest[20000];
    static const char *const fills[] = {"x", "\x01", "\xff", "\"", "\xf0\x9f\x98\x80"};
    for (size_t fill = 0; fill < COUNT(fills); fill++) {
        for (size_t n = 0; n + 8 < sizeof longest; n += strlen(fills[fill]))
            strcpy(longest + n, fills[fill]);
        struct log_connection connection = {.rule = longest, .client = longest, .remote = longest, .end = "closed",
                                            .up = UINT64_MAX, .down = UINT64_MAX, .ms = UINT64_MAX};
        open_log(path, _i == 1, false);
        log_connection(log_, &connection);
        log_event(log_, LOG_PRIORITY_WARNING, "%s", longest);
        close_log();
        char *text = (char *)content(path);
        int lines = 0;
        for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
            ck_assert_uint_lt(strlen(line), PIPE_BUF);
            ck_assert_uint_gt(strlen(line), 3000); /* what there is room for is there */
            if (_i == 1 || lines == 0)
                ck_assert_int_eq(nesting(line), 0);
        }
        ck_assert_int_eq(lines, 2);
        unlink(path);
    }
}
END_TEST

START_TEST(an_event_before_the_log_goes_to_stderr)
{
    int reader = stderr_to_messages();
    log_event(NULL, LOG_PRIORITY_ERROR, "no such file: %s", "a\nb");
    ck_assert_str_eq(message(reader), "portforward: no such file: a\\u000ab\n");
    close(reader);
}
END_TEST

/* -- The journal -- */

static void journal_is_stderr(void)
{
    struct stat s;
    char stream[64];
    ck_assert_int_eq(fstat(STDERR_FILENO, &s), 0);
    snprintf(stream, sizeof stream, "%lu:%lu", (unsigned long)s.st_dev, (unsigned long)s.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
}

START_TEST(lines_of_the_journal_have_a_priority_and_no_time)
{
    int reader = stderr_to_messages();
    journal_is_stderr();
    log_event(NULL, LOG_PRIORITY_ERROR, "early");
    ck_assert_str_eq(message(reader), "<3>early\n");
    open_log(NULL, false, true);
    log_some();
    ck_assert_str_eq(message(reader), "<6>rule=web client=192.0.2.7:51234 remote=- start\n");
    ck_assert_str_eq(message(reader), "<6>rule=web client=192.0.2.7:51234 remote=10.0.0.5:80 up=1234 down=56789 ms=812 "
                                      "end=client-reset\n<5>listening on [::]:80\n<3>broken\n");
    open_log(NULL, true, false);
    log_event(log_, LOG_PRIORITY_WARNING, "json");
    ck_assert_str_eq(message(reader), "<4>{\"level\":\"warning\",\"message\":\"json\"}\n");
    close(reader);
}
END_TEST

START_TEST(a_journal_that_is_not_stderr_any_more_is_none)
{
    static const char *const streams[] = {"", "1:2", "x", "1:"};
    int reader = stderr_to_messages();
    for (size_t i = 0; i < COUNT(streams); i++) {
        setenv("JOURNAL_STREAM", streams[i], 1);
        open_log(NULL, false, false);
        log_event(log_, LOG_PRIORITY_ERROR, "here");
        close_log();
        ck_assert_str_eq(timeless(message(reader)), "TIME portforward: here\n");
    }
    close(reader);
}
END_TEST

START_TEST(a_file_has_times_though_stderr_is_the_journal)
{
    int reader = stderr_to_messages();
    journal_is_stderr();
    open_log(path, false, false);
    log_event(log_, LOG_PRIORITY_ERROR, "here");
    ck_assert_str_eq(timeless(content(path)), "TIME portforward: here\n");
    ck_assert_int_eq(log_reopen(log_, "stderr"), 0);
    log_event(log_, LOG_PRIORITY_ERROR, "there");
    ck_assert_str_eq(message(reader), "<3>there\n");
    close(reader);
}
END_TEST

static void take_line(void *arg, const char *text)
{
    (void)arg;
    note("[%s]", text);
}

START_TEST(a_callback_gets_lines_without_time_or_newline)
{
    setenv("JOURNAL_STREAM", "1:2", 1);
    ck_assert_int_eq(log_open(&log_, NULL, &(struct log_options){.line = take_line, .starts = true}), 0);
    ck_assert_int_eq(log_reopen(log_, "elsewhere"), 0);
    log_some();
    assert_notes("[rule=web client=192.0.2.7:51234 remote=- start] "
                 "[rule=web client=192.0.2.7:51234 remote=10.0.0.5:80 up=1234 down=56789 ms=812 end=client-reset] "
                 "[portforward: listening on [::]:80] [portforward: broken]");
}
END_TEST

/* -- Gathering -- */

static int lines_in(const char *text)
{
    int lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

START_TEST(the_first_line_is_out_at_once_and_those_after_it_together)
{
    int reader = stderr_to_messages();
    open_log(NULL, false, false);
    uint64_t begin = clock_ns();
    log_rule("first");
    ck_assert_int_eq(lines_in(message(reader)), 1);
    for (int i = 0; i < 20; i++)
        log_rule("more");
    if (clock_ns() - begin < 100 * MS) {
        turn();
        skip_unless(clock_ns() - begin < 100 * MS, "a stop of a tenth of a second");
        ck_assert(!readable_now(reader, 0));
    }
    run_until(readable_now(reader, 0));
    ck_assert_uint_ge(clock_ns() - begin, 100 * MS);
    ck_assert_int_eq(lines_in(message(reader)), 20);
    ck_assert(!readable_now(reader, 0));
    run_for(250);
    log_rule("later");
    ck_assert_int_eq(lines_in(message(reader)), 1);
    close(reader);
}
END_TEST

START_TEST(a_log_that_has_nothing_to_write_lets_the_loop_sleep_and_end)
{
    int reader = stderr_to_messages();
    open_log(NULL, false, false);
    log_rule("first");
    log_rule("second");
    run_for(250);
    ck_assert_int_eq(lines_in(message(reader)), 1);
    ck_assert_int_eq(lines_in(message(reader)), 1);
    assert_idle_for(300);
    close(reader);
}
END_TEST

START_TEST(a_file_loses_no_line_of_a_burst)
{
    open_log(path, false, false);
    for (int i = 0; i < 20000; i++)
        log_rule("burst");
    close_log();
    ck_assert_int_eq(lines_in(content(path)), 20000);
    ck_assert_ptr_null(strstr(content(path), "dropped"));
}
END_TEST

START_TEST(closing_writes_what_was_gathered)
{
    int reader = stderr_to_messages();
    open_log(NULL, false, false);
    log_rule("first");
    log_rule("second");
    log_rule("third");
    close_log();
    ck_assert_int_eq(lines_in(message(reader)), 1);
    ck_assert_int_eq(lines_in(message(reader)), 2);
    close(reader);
}
END_TEST

/* -- Readers that do not read -- */

static int open_pipe(void)
{
    int fds[2];
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    stderr_to(fds[1]);
    return fds[0];
}

static int open_stream(void)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    stderr_to(fds[1]);
    return fds[0];
}

/* -1: there are no pseudo terminals here. */
static int open_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
    struct termios raw;
    if (master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0)
        slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) {
        close(master);
        return -1;
    }
    ck_assert_int_eq(tcgetattr(slave, &raw), 0);
    cfmakeraw(&raw);
    ck_assert_int_eq(tcsetattr(slave, TCSANOW, &raw), 0);
    stderr_to(slave);
    return master;
}

/* The pipe of somebody else, who may not be asked for another descriptor of it. */
static int open_foreign_pipe(void)
{
    if (geteuid() != 0)
        return -1;
    int reader = open_pipe();
    ck_assert_int_eq(seteuid(65534), 0);
    ck_assert_int_lt(open("/proc/self/fd/2", O_WRONLY | O_CLOEXEC), 0);
    return reader;
}

static int (*const stuck[])(void) = {open_pipe, open_stream, open_terminal, open_foreign_pipe};

/* What came: line after line, numbered, and how many are said to be missing. */
struct received {
    char tail[PIPE_BUF + 1];
    size_t tail_length;
    long next, dropped, lines;
};

static void receive_line(struct received *r, const char *line)
{
    long number, dropped;
    if (sscanf(line, "%*s portforward: number %ld of many", &number) == 1) {
        ck_assert_msg(number == r->next, "%ld expected: %s", r->next, line);
        r->next++;
        r->lines++;
    } else if (sscanf(line, "%*s portforward: %ld line", &dropped) == 1 && strstr(line, " dropped")) {
        r->dropped += dropped;
        r->next += dropped;
    } else {
        ck_abort_msg("torn: %s", line);
    }
    assert_time(line);
}

static void receive(struct received *r, int fd)
{
    while (readable_now(fd, 0)) {
        ssize_t n = read(fd, r->tail + r->tail_length, sizeof r->tail - 1 - r->tail_length);
        char *line = r->tail, *newline;
        if (n <= 0)
            break;
        r->tail[r->tail_length + (size_t)n] = 0;
        for (; (newline = strchr(line, '\n')) != NULL; line = newline + 1) {
            *newline = 0;
            receive_line(r, line);
        }
        r->tail_length = strlen(line);
        memmove(r->tail, line, r->tail_length + 1);
    }
}

enum { MANY = 20000 };

static void log_many(long from, long to)
{
    uint32_t state = (uint32_t)from;
    for (long i = from; i < to; i++)
        log_event(log_, LOG_PRIORITY_INFO, "number %ld of many%*s", i, (int)(random_next(&state) >> 8) % 200, "");
}

START_TEST(a_log_that_waits_for_its_reader_does_not_keep_the_loop)
{
    int reader = open_pipe();
    open_log(NULL, false, false);
    log_many(0, MANY);
    ck_assert_int_ge(asyncore_next_timer(map), 0);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    close(reader);
}
END_TEST

START_TEST(a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed)
{
    struct received r = {.next = 0};
    int reader = stuck[_i]();
    skip_unless(reader >= 0, "no pseudo terminals, or not root");
    open_log(NULL, false, false);
    log_many(0, MANY);
    ck_assert(!(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK));
    assert_idle_for(500);
    log_many(MANY, MANY + 5);
    run_until((receive(&r, reader), r.next == MANY + 5)); /* nothing more is logged, and yet it is told */
    ck_assert_int_gt(r.dropped, MANY / 2);
    ck_assert_int_eq(r.lines + r.dropped, MANY + 5);
    long before = r.dropped;
    log_many(MANY + 5, MANY + 10);
    run_until((receive(&r, reader), r.next == MANY + 10));
    ck_assert_int_eq(r.dropped, before);
    close_log();
    close(reader);
}
END_TEST

START_TEST(a_reader_that_is_slow_misses_only_what_it_is_told)
{
    struct received r = {.next = 0};
    int reader = stuck[_i]();
    skip_unless(reader >= 0, "no pseudo terminals, or not root");
    open_log(NULL, false, false);
    for (long i = 0; i < MANY; i += 500) {
        char little[700];
        log_many(i, i + 500);
        turn();
        if (!readable_now(reader, 0))
            continue;
        /* a bit at a time, cut anywhere */
        size_t room = sizeof r.tail - 1 - r.tail_length;
        ssize_t n = read(reader, little, sizeof little < room ? sizeof little : room);
        ck_assert_int_gt(n, 0);
        for (ssize_t j = 0; j < n; j++) {
            r.tail[r.tail_length++] = little[j];
            if (little[j] != '\n')
                continue;
            r.tail[r.tail_length - 1] = 0;
            receive_line(&r, r.tail);
            r.tail_length = 0;
        }
        r.tail[r.tail_length] = 0;
    }
    run_until((receive(&r, reader), r.next == MANY));
    close_log();
    close(reader);
}
END_TEST

START_TEST(closing_waits_for_a_slow_reader)
{
    struct received r = {.next = 0};
    int reader = open_pipe(), ready[2];
    ck_assert_int_eq(fcntl(reader, F_SETPIPE_SZ, 4096), 4096);
    ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
    open_log(NULL, false, false);
    log_many(0, 400);
    pid_t child = fork();
    if (child == 0) { /* closes the log while the parent reads */
        ck_assert_int_eq((int)read(ready[0], &(char){0}, 1), 1);
        asyncore_after_fork(map);
        log_close(log_);
        leave_child(0);
    }
    ck_assert_int_eq((int)write(ready[1], "", 1), 1);
    wait_until((receive(&r, reader), r.next == 400));
    ck_assert_int_eq(r.dropped, 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    close(reader);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

START_TEST(closing_gives_a_reader_up_that_does_not_read)
{
    int reader = open_pipe();
    open_log(NULL, false, false);
    log_many(0, MANY);
    uint64_t begin = clock_ns();
    close_log();
    ck_assert_uint_lt(clock_ns() - begin, patience() * MS);
    close(reader);
}
END_TEST

START_TEST(a_reader_that_is_gone_costs_nothing)
{
    close(open_pipe());
    open_log(NULL, false, false);
    log_many(0, MANY);
    ck_assert_int_gt(asyncore_next_timer(map), 200); /* not with every line */
    run_until(asyncore_next_timer(map) < 0);         /* nor for ever */
    log_many(0, 5);
    ck_assert_int_gt(asyncore_next_timer(map), 200);
}
END_TEST

START_TEST(a_closed_stderr_is_a_log_of_nothing)
{
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    close(STDERR_FILENO);
    open_log(NULL, false, false);
    log_many(0, MANY);
    assert_idle_for(200);
}
END_TEST

/* -- Files -- */

START_TEST(a_log_file_is_made_for_its_owner_and_group)
{
    struct stat s;
    open_log(path, false, false);
    ck_assert_int_eq(stat(path, &s), 0);
    ck_assert_int_eq(s.st_mode & 07777, 0640);
    log_rule("one");
    close_log();
    open_log(path, false, false); /* what is there stays */
    log_rule("two");
    ck_assert_int_eq(lines_in(content(path)), 2);
}
END_TEST

START_TEST(a_log_that_cannot_be_opened_is_an_error)
{
    char nowhere[128];
    struct log *none = NULL;
    snprintf(nowhere, sizeof nowhere, "%s/none/log", directory);
    ck_assert_int_eq(log_open(&none, map, &(struct log_options){.file = nowhere}), -ENOENT);
    ck_assert_int_eq(log_open(&none, map, &(struct log_options){.file = directory}), -EISDIR);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(log_open(&none, map, &(struct log_options){.file = path}), -ENXIO);
    ck_assert_ptr_null(none);
}
END_TEST

START_TEST(a_fifo_that_is_read_is_a_log)
{
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct received r = {.next = 0};
    open_log(path, false, false);
    log_many(0, MANY);
    run_until((receive(&r, reader), r.next == MANY));
    close(reader);
}
END_TEST

START_TEST(a_log_that_was_moved_is_begun_anew)
{
    open_log(path, false, false);
    log_rule("before");
    log_rule("gathered");
    ck_assert_int_eq(rename(path, moved), 0);
    log_rule("moved");
    ck_assert_int_eq(log_reopen(log_, NULL), 0);
    log_rule("after");
    ck_assert_int_eq(lines_in(content(moved)), 3);
    ck_assert_ptr_nonnull(strstr(content(path), "rule=after"));
    ck_assert_int_eq(lines_in(content(path)), 1);
}
END_TEST

START_TEST(the_old_log_goes_on_when_the_new_one_cannot_be_opened)
{
    open_log(path, false, false);
    log_rule("before");
    ck_assert_int_eq(log_reopen(log_, directory), -EISDIR);
    log_rule("after");
    ck_assert_int_eq(log_reopen(log_, NULL), 0); /* it still knows its name */
    log_rule("anew");
    close_log();
    char *text = (char *)timeless(content(path)), expected[200];
    snprintf(expected, sizeof expected, "TIME portforward: cannot open the log %s, so the old one goes on: %s",
             directory, asyncore_strerror(-EISDIR));
    ck_assert_ptr_nonnull(strstr(strtok(text, "\n"), "rule=before"));
    ck_assert_str_eq(strtok(NULL, "\n"), expected);
    ck_assert_ptr_nonnull(strstr(strtok(NULL, "\n"), "rule=after"));
    ck_assert_ptr_nonnull(strstr(strtok(NULL, "\n"), "rule=anew"));
}
END_TEST

START_TEST(a_reload_may_name_another_log)
{
    int reader = stderr_to_messages();
    open_log(NULL, false, false);
    log_rule("first");
    ck_assert_int_eq(log_reopen(log_, NULL), 0); /* stderr is what it is */
    log_rule("second");
    ck_assert_int_eq(log_reopen(log_, path), 0);
    log_rule("third");
    ck_assert_int_eq(log_reopen(log_, moved), 0);
    log_rule("fourth");
    ck_assert_int_eq(log_reopen(log_, "stderr"), 0);
    log_rule("fifth");
    close_log();
    static const char *const words[] = {"rule=first", "rule=second", "rule=fifth"};
    for (size_t i = 0; i < COUNT(words); i++)
        ck_assert_ptr_nonnull(strstr(message(reader), words[i]));
    ck_assert_ptr_nonnull(strstr(content(path), "rule=third"));
    ck_assert_ptr_nonnull(strstr(content(moved), "rule=fourth"));
    ck_assert_int_eq(lines_in(content(path)), 1);
    close(reader);
}
END_TEST

START_TEST(a_child_does_not_inherit_the_log)
{
    int before = count_descriptors(), reader = open_pipe();
    struct stat s, ours;
    for (int file = 0; file < 2; file++) {
        open_log(file ? path : NULL, false, false);
        ck_assert_int_eq(file ? stat(path, &s) : fstat(STDERR_FILENO, &s), 0);
        int found = 0;
        for (int fd = 3; fd < 100; fd++) {
            if (fstat(fd, &ours) < 0 || ours.st_ino != s.st_ino || ours.st_dev != s.st_dev)
                continue;
            found++;
            ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        }
        ck_assert_int_ge(found, 1);
        close_log();
    }
    close(reader);
    ck_assert_int_eq(count_descriptors(), before + 1); /* the saved stderr */
}
END_TEST

/* -- Full disks -- */

START_TEST(a_full_disk_is_waited_for_without_work)
{
    struct received r = {.next = 0};
    open_log("/dev/full", false, false);
    log_many(0, MANY);
    run_until(asyncore_next_timer(map) < 0);
    ck_assert_int_eq(log_reopen(log_, path), 0);
    run_for(150);
    close_log();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (r.next < MANY && readable_now(fd, 0)) {
        long before = r.next;
        receive(&r, fd);
        ck_assert_int_gt(r.next, before);
    }
    ck_assert_int_eq(r.next, MANY);
    ck_assert_int_eq(r.tail_length, 0);
    close(fd);
}
END_TEST

static void limit_files(rlim_t size)
{
    struct rlimit limit = {.rlim_cur = size, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = size;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A write that only a part of a line had room for, as on a disk that fills up. */
static void fill_with_part_of_a_line(void)
{
    signal(SIGXFSZ, SIG_IGN);
    open_log(path, false, false);
    log_rule("whole");
    size_t line = strlen(content(path));
    limit_files(line * 2 + 10);
    log_rule("second");
    log_rule("third");
    log_rule("fourth");
    run_until(strlen(content(path)) == line * 2 + 10);
    limit_files(RLIM_INFINITY);
}

START_TEST(a_line_that_was_written_in_part_is_finished_in_its_place)
{
    static const char *const rules[] = {"rule=whole ", "rule=second ", "rule=third ", "rule=fourth ", "rule=fifth "};
    fill_with_part_of_a_line();
    run_for(1100);
    log_rule("fifth");
    close_log();
    char *line = strtok((char *)content(path), "\n");
    for (size_t i = 0; i < COUNT(rules); i++, line = strtok(NULL, "\n")) {
        ck_assert_ptr_nonnull(line);
        assert_time(line);
        const char *end = line + strlen(line) - strlen("end=client-reset");
        ck_assert_msg(strncmp(line + TIME_LENGTH + 1, rules[i], strlen(rules[i])) == 0, "torn: %s", line);
        ck_assert_msg(strcmp(end, "end=client-reset") == 0, "torn: %s", line);
    }
    ck_assert_ptr_null(line);
}
END_TEST

START_TEST(a_line_that_was_written_in_part_is_whole_in_the_new_log)
{
    fill_with_part_of_a_line();
    limit_files(strlen(content(path)));
    ck_assert_int_eq(rename(path, moved), 0);
    ck_assert_int_eq(log_reopen(log_, NULL), 0);
    limit_files(RLIM_INFINITY);
    run_for(1100);
    log_rule("fifth");
    close_log();
    const char *text = timeless(content(path));
    ck_assert_msg(strncmp(text, "TIME rule=third ", 16) == 0, "%s", text);
    ck_assert_int_eq(lines_in(text), 3);
}
END_TEST

static void tests(TCase *t)
{
    tcase_add_checked_fixture(t, in_directory, leave_directory);
    tcase_add_test(t, a_connection_and_an_event_are_a_line_each);
    tcase_add_test(t, json_lines_have_the_same_members);
    tcase_add_test(t, a_start_is_a_line_on_request);
    tcase_add_test(t, counts_of_64_bits_are_whole);
    tcase_add_test(t, the_second_that_passes_is_seen);
    tcase_add_test(t, values_that_could_be_taken_apart_are_quoted);
    tcase_add_loop_test(t, any_bytes_come_back_from_the_line, 0, 2);
    tcase_add_loop_test(t, a_line_is_never_longer_than_a_pipe_takes_at_once, 0, 2);
    tcase_add_test(t, an_event_before_the_log_goes_to_stderr);
    tcase_add_test(t, lines_of_the_journal_have_a_priority_and_no_time);
    tcase_add_test(t, a_journal_that_is_not_stderr_any_more_is_none);
    tcase_add_test(t, a_file_has_times_though_stderr_is_the_journal);
    tcase_add_test(t, a_callback_gets_lines_without_time_or_newline);
    tcase_add_test(t, the_first_line_is_out_at_once_and_those_after_it_together);
    tcase_add_test(t, a_log_that_has_nothing_to_write_lets_the_loop_sleep_and_end);
    tcase_add_test(t, a_file_loses_no_line_of_a_burst);
    tcase_add_test(t, closing_writes_what_was_gathered);
    tcase_add_test(t, a_log_that_waits_for_its_reader_does_not_keep_the_loop);
    tcase_add_loop_test(t, a_reader_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed, 0, COUNT(stuck));
    tcase_add_loop_test(t, a_reader_that_is_slow_misses_only_what_it_is_told, 0, COUNT(stuck));
    tcase_add_test(t, closing_waits_for_a_slow_reader);
    tcase_add_test(t, closing_gives_a_reader_up_that_does_not_read);
    tcase_add_test(t, a_reader_that_is_gone_costs_nothing);
    tcase_add_test(t, a_closed_stderr_is_a_log_of_nothing);
    tcase_add_test(t, a_log_file_is_made_for_its_owner_and_group);
    tcase_add_test(t, a_log_that_cannot_be_opened_is_an_error);
    tcase_add_test(t, a_fifo_that_is_read_is_a_log);
    tcase_add_test(t, a_log_that_was_moved_is_begun_anew);
    tcase_add_test(t, the_old_log_goes_on_when_the_new_one_cannot_be_opened);
    tcase_add_test(t, a_reload_may_name_another_log);
    tcase_add_test(t, a_child_does_not_inherit_the_log);
    tcase_add_test(t, a_full_disk_is_waited_for_without_work);
    tcase_add_test(t, a_line_that_was_written_in_part_is_finished_in_its_place);
    tcase_add_test(t, a_line_that_was_written_in_part_is_whole_in_the_new_log);
}

int main(void)
{
    return run_suite("forward_log", tests, NULL);
}
