/* test_file.c: file_dispatcher: pipes, FIFOs, terminals, regular files. */
#include "support.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

/* A probe's notes on a file_dispatcher: the base comes first in both. */
struct file {
    struct asyncore_file_dispatcher base;
    unsigned char *input;
    size_t bytes, piece;
    int reads, writes, closes, errors, destroys;
};

static const struct asyncore_class reader_class;

static int file_read(struct asyncore_dispatcher *d)
{
    struct file *f = (struct file *)d;
    size_t size = f->piece != 0 ? f->piece : 65536;
    f->reads++;
    f->input = realloc(f->input, f->bytes + size);
    ck_assert_ptr_nonnull(f->input);
    ssize_t n = asyncore_recv(d, f->input + f->bytes, size);
    if (n > 0)
        f->bytes += (size_t)n;
    return (int)n;
}

static int file_write(struct asyncore_dispatcher *d)
{
    ((struct file *)d)->writes++;
    asyncore_want(d, 0);
    return 0;
}

static int file_close(struct asyncore_dispatcher *d)
{
    ((struct file *)d)->closes++;
    note("close");
    return asyncore_super(d, &reader_class)->handle_close(d);
}

static int file_error(struct asyncore_dispatcher *d, int error)
{
    ((struct file *)d)->errors++;
    note("error%d", error);
    return asyncore_super(d, &reader_class)->handle_error(d, error);
}

static void file_destroy(struct asyncore_dispatcher *d)
{
    ((struct file *)d)->destroys++;
    note("destroy");
}

static const struct asyncore_class reader_class = {
    .name = "file",
    .handle_read = file_read,
    .handle_write = file_write,
    .handle_close = file_close,
    .handle_error = file_error,
    .destroy = file_destroy,
};

static struct file files[2]; /* outlive the map */

static void free_input(void)
{
    for (size_t i = 0; i < COUNT(files); i++)
        free(files[i].input);
}

static struct file *file_on(int which, int fd)
{
    struct file *f = &files[which];
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f->base, &reader_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f->base, fd), 0);
    ck_assert_int_eq(f->base.base.fd, fd);
    return f;
}

static void fill(int fd, size_t size)
{
    unsigned char *data = malloc(size);
    pattern_fill(data, 0, size);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        ck_assert_int_gt((int)n, 0);
        done += (size_t)n;
    }
    free(data);
}

/* -- Pipes -- */

START_TEST(a_pipe_is_read_to_its_end)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    fill(ends[1], 40000);
    close(ends[1]);
    struct file *f = file_on(0, ends[0]);
    f->piece = 1000;
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_uint_eq(f->bytes, 40000);
    pattern_check(f->input, 0, 40000);
    assert_notes("close destroy");
    ck_assert_int_eq(asyncore_error(&f->base.base), 0);
    free_input();
}
END_TEST

START_TEST(an_idle_pipe_makes_no_turns)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    struct file *f = file_on(0, ends[0]);
    assert_idle_for(50);
    fill(ends[1], 3);
    run_until(f->bytes == 3);
    assert_idle_for(50);
    close(ends[1]);
    run_until(f->destroys == 1);
    free_input();
}
END_TEST

START_TEST(a_pipe_takes_what_it_has_room_for)
{
    static unsigned char data[1 << 20];
    unsigned char *got = malloc(sizeof data);
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    struct file *f = file_on(0, ends[1]);
    asyncore_want(&f->base.base, 0);
    pattern_fill(data, 0, sizeof data);
    ssize_t sent = asyncore_send(&f->base.base, data, sizeof data);
    ck_assert_int_gt((int)sent, 0);
    ck_assert_int_lt((int)sent, (int)sizeof data);
    ck_assert_int_eq((int)asyncore_send(&f->base.base, data, sizeof data), -EAGAIN);
    asyncore_want(&f->base.base, ASYNCORE_WRITE);
    assert_idle_for(20);
    for (ssize_t n, at = 0; at < sent; at += n) {
        n = read(ends[0], got, (size_t)(sent - at));
        ck_assert_int_gt((int)n, 0);
        pattern_check(got, (size_t)at, (size_t)n);
    }
    run_until(f->writes == 1);
    ck_assert_int_eq(asyncore_fini(&f->base.base), 0);
    close(ends[0]);
    free(got);
}
END_TEST

START_TEST(a_pipe_without_a_reader_goes_to_handle_close)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    struct file *f = file_on(0, ends[1]);
    asyncore_want(&f->base.base, ASYNCORE_ERROR);
    assert_idle_for(20);
    close(ends[0]);
    run_until(f->destroys == 1);
    assert_notes("close destroy");
    ck_assert_int_eq(asyncore_error(&f->base.base), -EPIPE);
}
END_TEST

START_TEST(a_fifo_is_read_to_its_end)
{
    char directory[] = "/tmp/asyncore-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/fifo", directory);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), writer = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert(reader >= 0 && writer >= 0);
    struct file *f = file_on(0, reader);
    fill(writer, 5000);
    run_until(f->bytes == 5000);
    close(writer);
    run_until(f->destroys == 1);
    pattern_check(f->input, 0, 5000);
    unlink(path);
    rmdir(directory);
    free_input();
}
END_TEST

static void add_pipes(TCase *tests)
{
    tcase_add_test(tests, a_pipe_is_read_to_its_end);
    tcase_add_test(tests, an_idle_pipe_makes_no_turns);
    tcase_add_test(tests, a_pipe_takes_what_it_has_room_for);
    tcase_add_test(tests, a_pipe_without_a_reader_goes_to_handle_close);
    tcase_add_test(tests, a_fifo_is_read_to_its_end);
}

/* -- Terminals and files -- */

static bool open_terminal(int *host, int *terminal)
{
    struct termios raw;
    *host = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*host < 0 || grantpt(*host) < 0 || unlockpt(*host) < 0 || ptsname(*host) == NULL)
        return false;
    *terminal = open(ptsname(*host), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*terminal < 0)
        return false;
    tcgetattr(*terminal, &raw);
    cfmakeraw(&raw);
    tcsetattr(*terminal, TCSANOW, &raw);
    return true;
}

START_TEST(a_terminal_is_read_and_written)
{
    char data[8];
    int host, terminal;
    skip_unless(open_terminal(&host, &terminal), "no pseudo terminals here");
    struct file *f = file_on(0, terminal);
    ck_assert_int_eq((int)write(host, "typed", 5), 5);
    run_until(f->bytes == 5);
    ck_assert_int_eq(memcmp(f->input, "typed", 5), 0);
    ck_assert_int_eq((int)asyncore_send(&f->base.base, "shown", 5), 5);
    ck_assert(readable_now(host, 2000));
    ck_assert_int_eq((int)read(host, data, sizeof data), 5);
    ck_assert_int_eq(asyncore_fini(&f->base.base), 0);
    close(host);
    free_input();
}
END_TEST

START_TEST(a_regular_file_is_read_to_its_end)
{
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    int fd = dup(fileno(file));
    fill(fd, 100000);
    lseek(fd, 0, SEEK_SET);
    fclose(file);
    struct file *f = file_on(0, fd);
    f->piece = 4096;
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    ck_assert_uint_eq(f->bytes, 100000);
    pattern_check(f->input, 0, 100000);
    ck_assert_int_eq(f->closes, 1);
    ck_assert_int_eq(f->errors, 0);
    free_input();
}
END_TEST

START_TEST(a_regular_file_waits_for_nothing_and_others_are_served_beside_it)
{
    int fds[2];
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    struct file *f = file_on(0, dup(fileno(file)));
    asyncore_want(&f->base.base, ASYNCORE_WRITE);
    unix_pair(fds);
    struct probe *p = probe_on(&probe_class, "", fds[0]);
    peer_send(fds[1], "x", 1);
    ck_assert_int_ge(asyncore_poll(map, -1), 2);
    ck_assert_int_eq(f->writes, 1);
    ck_assert_uint_eq(p->bytes, 1);
    forget_notes();
    assert_idle_for(50); /* it no longer wants anything */
    ck_assert_int_eq((int)asyncore_send(&f->base.base, "data", 4), 4);
    asyncore_close(&f->base.base);
    assert_idle_for(20);
    assert_notes("destroy");
    fclose(file);
    close(fds[1]);
}
END_TEST

static void add_files(TCase *tests)
{
    tcase_add_test(tests, a_terminal_is_read_and_written);
    tcase_add_test(tests, a_regular_file_is_read_to_its_end);
    tcase_add_test(tests, a_regular_file_waits_for_nothing_and_others_are_served_beside_it);
}

/* -- Flags -- */

/* O_NONBLOCK belongs to the open file, which a duplicate shares: so it is seen after the close. */
START_TEST(the_flags_of_a_descriptor_come_back_at_close)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC | (_i >= 3 ? O_NONBLOCK : 0)), 0);
    int copy = dup(ends[0]), before = fcntl(copy, F_GETFL);
    struct file *f = file_on(0, ends[0]);
    ck_assert_int_ne(fcntl(copy, F_GETFL) & O_NONBLOCK, 0);
    if (_i % 3 == 0)
        asyncore_close(&f->base.base);
    else if (_i % 3 == 1)
        ck_assert_int_eq(asyncore_fini(&f->base.base), 0);
    else
        use_map(NULL);
    ck_assert_int_eq(fcntl(copy, F_GETFL), before);
    ck_assert(!is_open(ends[0]));
    close(copy);
    close(ends[1]);
}
END_TEST

START_TEST(a_borrowed_file_gets_its_flags_back_and_stays_open)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    int before = fcntl(ends[0], F_GETFL);
    struct file *f = file_on(0, ends[0]);
    asyncore_set_borrowed(&f->base.base);
    asyncore_close(&f->base.base);
    ck_assert(is_open(ends[0]));
    ck_assert_int_eq(fcntl(ends[0], F_GETFL), before);
    turn();
    ck_assert(is_open(ends[0]));
    close(ends[0]);
    close(ends[1]);
}
END_TEST

START_TEST(a_bad_descriptor_closes_the_channel)
{
    struct file *f = &files[0];
    ck_assert_int_eq(asyncore_file_dispatcher_init(&f->base, &reader_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&f->base, -1), -EBADF);
    turn();
    assert_notes("destroy");
}
END_TEST

START_TEST(one_descriptor_is_not_taken_twice)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    struct file *f = file_on(0, ends[0]), *g = &files[1];
    ck_assert_int_eq(asyncore_file_dispatcher_init(&g->base, &reader_class, map), 0);
    ck_assert_int_eq(asyncore_set_file(&g->base, ends[0]), -EEXIST);
    fill(ends[1], 3);
    run_until(f->bytes == 3);
    ck_assert_int_ne(fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0);
    close(ends[1]);
    run_until(f->destroys == 1);
    free_input();
}
END_TEST

static void add_flags(TCase *tests)
{
    tcase_add_loop_test(tests, the_flags_of_a_descriptor_come_back_at_close, 0, 6);
    tcase_add_test(tests, a_borrowed_file_gets_its_flags_back_and_stays_open);
    tcase_add_test(tests, a_bad_descriptor_closes_the_channel);
    tcase_add_test(tests, one_descriptor_is_not_taken_twice);
}

int main(void)
{
    return run_suite("file", add_pipes, add_files, add_flags, NULL);
}
