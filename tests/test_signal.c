/* test_signal.c: signals as channels. */
#include "support.h"
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static struct asyncore_signal signals[2]; /* outlive the map */

static void note_signal(struct asyncore_signal *signal, int number, void *arg)
{
    ck_assert_ptr_ne(signal, NULL);
    note("%s%d", (const char *)arg, number == SIGUSR1 ? 1 : number == SIGUSR2 ? 2 : number);
}

static struct asyncore_signal *signal_on(int which, int number, const char *word)
{
    ck_assert_int_eq(asyncore_signal_init(&signals[which], map, number, note_signal, (void *)(uintptr_t)word), 0);
    return &signals[which];
}

static bool is_blocked(int number)
{
    sigset_t blocked;
    ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, NULL, &blocked), 0);
    return sigismember(&blocked, number) == 1;
}

START_TEST(a_signal_is_told_by_the_loop)
{
    signal_on(0, SIGUSR1, "usr");
    ck_assert(is_blocked(SIGUSR1));
    kill(getpid(), SIGUSR1);
    assert_notes("");
    run_until(notes()[0] != '\0');
    assert_notes("usr1");
    assert_idle_for(30);
    kill(getpid(), SIGUSR1);
    run_until(notes()[0] != '\0');
    assert_notes("usr1");
}
END_TEST

START_TEST(two_signals_are_told_apart)
{
    signal_on(0, SIGUSR1, "a");
    signal_on(1, SIGUSR2, "b");
    kill(getpid(), SIGUSR2);
    run_until(notes()[0] != '\0');
    assert_notes("b2");
    kill(getpid(), SIGUSR1);
    run_until(notes()[0] != '\0');
    assert_notes("a1");
}
END_TEST

START_TEST(a_closed_signal_is_unblocked)
{
    struct asyncore_signal *s = signal_on(0, SIGUSR1, "");
    if (_i == 0)
        asyncore_close(&s->base);
    else if (_i == 1)
        ck_assert_int_eq(asyncore_fini(&s->base), 0);
    else
        use_map(NULL);
    ck_assert(!is_blocked(SIGUSR1));
    turn();
    assert_notes("");
}
END_TEST

START_TEST(a_signal_that_was_blocked_before_stays_blocked)
{
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &one, NULL), 0);
    struct asyncore_signal *s = signal_on(0, SIGUSR1, "usr");
    kill(getpid(), SIGUSR1);
    run_until(notes()[0] != '\0');
    asyncore_close(&s->base);
    ck_assert(is_blocked(SIGUSR1));
    turn();
    assert_notes("usr1");
}
END_TEST

static void close_in_call(struct asyncore_signal *signal, int number, void *arg)
{
    (void)number;
    (void)arg;
    note("closing");
    asyncore_close(&signal->base);
}

START_TEST(a_signal_is_closed_in_its_own_call)
{
    ck_assert_int_eq(asyncore_signal_init(&signals[0], map, SIGUSR1, close_in_call, NULL), 0);
    kill(getpid(), SIGUSR1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
    assert_notes("closing");
    ck_assert(!is_blocked(SIGUSR1));
}
END_TEST

static void stop_in_call(struct asyncore_signal *signal, int number, void *arg)
{
    (void)signal;
    (void)number;
    (void)arg;
    ck_assert_int_eq(asyncore_stop(map), 0);
}

START_TEST(a_signal_of_another_process_stops_a_waiting_loop)
{
    ck_assert_int_eq(asyncore_signal_init(&signals[0], map, SIGTERM, stop_in_call, NULL), 0);
    pid_t pid = fork();
    if (pid == 0) {
        rest_ms(20);
        kill(getppid(), SIGTERM);
        leave_child(0);
    }
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 1);
}
END_TEST

START_TEST(a_signal_in_the_background_does_not_keep_the_loop)
{
    struct asyncore_signal *s = signal_on(0, SIGUSR1, "");
    ck_assert_int_eq(asyncore_loop(map, 1, 2), 1);
    asyncore_set_background(&s->base, 1);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
}
END_TEST

START_TEST(a_signal_that_cannot_be_received_is_refused)
{
    int before = count_descriptors();
    ck_assert_int_lt(asyncore_signal_init(&signals[0], map, 4711, note_signal, NULL), 0);
    ck_assert_int_eq(count_descriptors(), before);
    ck_assert_int_eq(asyncore_loop(map, -1, 0), 0);
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_test(tests, a_signal_is_told_by_the_loop);
    tcase_add_test(tests, two_signals_are_told_apart);
    tcase_add_loop_test(tests, a_closed_signal_is_unblocked, 0, 3);
    tcase_add_test(tests, a_signal_that_was_blocked_before_stays_blocked);
    tcase_add_test(tests, a_signal_is_closed_in_its_own_call);
    tcase_add_test(tests, a_signal_of_another_process_stops_a_waiting_loop);
    tcase_add_test(tests, a_signal_in_the_background_does_not_keep_the_loop);
    tcase_add_test(tests, a_signal_that_cannot_be_received_is_refused);
}

int main(void)
{
    return run_suite("signal", add_tests, NULL);
}
