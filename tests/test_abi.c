/* test_abi.c: what programs compiled against the headers rely on: sizes, numbers, refusals. */
/* engine-independent */
#include "support.h"
#include <poll.h>
#include <signal.h>

START_TEST(structs_have_the_sizes_of_this_soname)
{
    ck_assert_uint_eq(sizeof(struct asyncore_dispatcher), 128);
    ck_assert_uint_eq(sizeof(struct asyncore_dispatcher_with_send), 160);
    ck_assert_uint_eq(sizeof(struct asynchat), 256);
    ck_assert_uint_eq(sizeof(struct asyncore_class), 256);
    ck_assert_uint_eq(sizeof(struct asynchat_class), 320);
    ck_assert_uint_eq(sizeof(struct asyncore_file_dispatcher), 144);
    ck_assert_uint_eq(sizeof(struct asyncore_timer), 80);
    ck_assert_uint_eq(sizeof(struct asyncore_signal), 160);
    ck_assert_uint_eq(sizeof(struct asyncore_lookup), 96);
    ck_assert_uint_eq(sizeof(struct asyncore_event), 24);
    ck_assert_uint_eq(sizeof(struct asyncore_pipe), 32);
}
END_TEST

START_TEST(masks_are_the_kernels_poll_bits)
{
    ck_assert_int_eq(ASYNCORE_READ, POLLIN);
    ck_assert_int_eq(ASYNCORE_EXPT, POLLPRI);
    ck_assert_int_eq(ASYNCORE_WRITE, POLLOUT);
    ck_assert_int_eq(ASYNCORE_ERROR, POLLERR);
    ck_assert_int_eq(ASYNCORE_HANGUP, POLLHUP);
}
END_TEST

static const struct asyncore_class plain_class = {.name = "plain"};
static const struct asynchat_class chat_class = {.base = {.name = "chat"}};

static void on_signal(struct asyncore_signal *signal, int number, void *arg)
{
    (void)signal;
    (void)number;
    (void)arg;
}

START_TEST(init_refuses_a_program_of_another_version)
{
    struct asyncore_dispatcher d;
    struct asyncore_dispatcher_with_send s;
    struct asyncore_file_dispatcher f;
    struct asyncore_signal g;
    struct asynchat c;
    struct asyncore_map *m = NULL;
    int wrong = _i % 3; /* the struct's size, the class's size, the ABI */
    size_t size = wrong == 0 ? 8 : 0, class_size = wrong == 1 ? 8 : 0;
    unsigned abi = wrong == 2 ? ASYNCORE_ABI + 1 : ASYNCORE_ABI;
    ck_assert_int_eq(
        asyncore_dispatcher_init_(&d, &plain_class, map, sizeof d + size, sizeof plain_class + class_size, abi),
        -EINVAL);
    ck_assert_int_eq(asyncore_dispatcher_with_send_init_(&s, &plain_class, map, sizeof s + size,
                                                         sizeof plain_class + class_size, abi),
                     -EINVAL);
    ck_assert_int_eq(
        asyncore_file_dispatcher_init_(&f, &plain_class, map, sizeof f + size, sizeof plain_class + class_size, abi),
        -EINVAL);
    ck_assert_int_eq(asynchat_init_(&c, &chat_class, map, sizeof c + size, sizeof chat_class + class_size, abi),
                     -EINVAL);
    if (wrong != 1) {
        ck_assert_int_eq(asyncore_signal_init_(&g, map, SIGUSR1, on_signal, NULL, sizeof g + size, abi), -EINVAL);
        ck_assert_int_eq(asyncore_map_new_(&m, NULL, sizeof(struct asyncore_map_options) + size, abi), -EINVAL);
    }
    ck_assert_ptr_null(m);
}
END_TEST

START_TEST(strerror_knows_every_error)
{
    static const int own[] = {ASYNCORE_ENONAME, ASYNCORE_ENAMESERVER, ASYNCORE_EHOST, ASYNCORE_EPORT, ASYNCHAT_ELIMIT};
    for (size_t i = 0; i < COUNT(own); i++) {
        ck_assert_int_lt(own[i], -4095);
        ck_assert_ptr_null(strstr(asyncore_strerror(own[i]), "nknown"));
        for (size_t j = 0; j < i; j++)
            ck_assert_str_ne(asyncore_strerror(own[i]), asyncore_strerror(own[j]));
    }
    for (int error = 1; error < 134; error++) {
        char text[128];
        snprintf(text, sizeof text, "%s", asyncore_strerror(-error));
        if (strstr(strerror(error), "nknown error") == NULL)
            ck_assert_str_eq(text, strerror(error));
    }
    ck_assert_ptr_nonnull(asyncore_strerror(INT32_MIN));
}
END_TEST

START_TEST(strerrors_text_stays)
{
    char before[128];
    const char *text = asyncore_strerror(-4999);
    snprintf(before, sizeof before, "%s", text);
    asyncore_strerror(-4998);
    strerror(4997);
    ck_assert_str_eq(text, before);
}
END_TEST

START_TEST(the_library_is_the_one_of_the_headers)
{
    ck_assert_str_eq(asyncore_version(), ASYNCORE_VERSION);
    ck_assert_ptr_nonnull(strstr(asyncore_features(), "epoll"));
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_test(tests, structs_have_the_sizes_of_this_soname);
    tcase_add_test(tests, masks_are_the_kernels_poll_bits);
    tcase_add_loop_test(tests, init_refuses_a_program_of_another_version, 0, 3);
    tcase_add_test(tests, strerror_knows_every_error);
    tcase_add_test(tests, strerrors_text_stays);
    tcase_add_test(tests, the_library_is_the_one_of_the_headers);
}

int main(void)
{
    return run_suite("abi", add_tests, NULL);
}
