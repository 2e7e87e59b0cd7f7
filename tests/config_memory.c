/* config_memory.c: each allocation of a configuration made to fail, once and from then on. A part of test_config.c,
 * which is linked so that what takes memory comes here first (--wrap of ld(1)). */
#include "config_test.h"
#include <glob.h>
#include <unistd.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *memory);
FILE *__real_fdopen(int fd, const char *mode);
int __real_glob(const char *pattern, int flags, int (*failed)(const char *, int), glob_t *found);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *memory);
FILE *__wrap_fdopen(int fd, const char *mode);
int __wrap_glob(const char *pattern, int flags, int (*failed)(const char *, int), glob_t *found);

static bool watched, forever;
static long until_failure, failures, held;

static bool fails(void)
{
    if (!watched || (until_failure > 0 && until_failure-- > 0) || (failures > 0 && !forever))
        return false;
    failures++;
    errno = ENOMEM;
    return true;
}

static void *taken(void *memory)
{
    held += watched && memory != NULL;
    return memory;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : taken(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : taken(__real_calloc(count, size));
}

void *__wrap_realloc(void *memory, size_t size)
{
    if (fails())
        return NULL;
    return memory == NULL ? taken(__real_realloc(memory, size)) : __real_realloc(memory, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : taken(__real_strdup(text));
}

void __wrap_free(void *memory)
{
    held -= watched && memory != NULL;
    __real_free(memory);
}

FILE *__wrap_fdopen(int fd, const char *mode)
{
    return fails() ? NULL : __real_fdopen(fd, mode);
}

int __wrap_glob(const char *pattern, int flags, int (*failed)(const char *, int), glob_t *found)
{
    return fails() ? GLOB_NOSPACE : __real_glob(pattern, flags, failed, found);
}

/* All that a configuration can hold. */
static void read_all(const char *file)
{
    static const char *const lines[] = {
        "allow 10.0.0.0/8", "deny 10.1.*", "logfile a", "pidlogfile b", "default [idle=1]",
        "* 80 web1,web2,unix:/a 80 [name=web]", "allow 192.0.2.1", "unix:/a - unix:@b -", "[::1] 81 h 81",
        "127.0.0.1 1 h 1", "127.0.0.1 2 h 1",
    };
    char include[128];
    for (size_t i = 0; i < COUNT(lines); i++)
        config_line(&config, "x", lines[i]);
    config_rule(&config, "y", "127.0.0.1", "3", "h", "1");
    snprintf(include, sizeof include, "include %s*", file);
    config_line(&config, "x", include);
    config_read(&config, file);
}

/* Returns whether the n-th allocation was reached. */
static bool read_failing(const char *file, long n, bool ever_after)
{
    start();
    until_failure = n;
    failures = held = 0;
    forever = ever_after;
    watched = true;
    read_all(file);
    unsigned told = config.faults;
    config_free(&config);
    watched = false;
    ck_assert_msg(held == 0, "allocation %ld failed: %ld more are lost", n, held);
    if (failures == 0)
        return false;
    ck_assert_uint_gt(told, 0);
    for (char *rest = said, *line; (line = strsep(&rest, "\n")) != NULL;)
        ck_assert_msg(*line == '\0' || strstr(line, ": no memory") != NULL, "%ld: %s", n, line);
    return true;
}

START_TEST(each_allocation_may_fail)
{
    char file[] = "/tmp/asyncore-config-XXXXXX";
    static const char text[] = "deny 10.2.*\n127.0.0.1 0 h 1\n";
    int fd = mkstemp(file);
    must(fd >= 0 && write(fd, text, sizeof text - 1) == sizeof text - 1 && close(fd) == 0);
    long n = 0;
    while (read_failing(file, n, true) && read_failing(file, n, false))
        n++;
    ck_assert_str_eq(said, "");
    ck_assert_int_gt((int)n, 50); /* all were reached: without a failure there is no fault */
    unlink(file);
}
END_TEST

START_TEST(a_list_without_memory_stays_as_it_was)
{
    struct access_list list = {0}, copy = {0};
    ck_assert_int_eq(access_add(&list, true, "192.0.2.1"), 0);
    until_failure = failures = held = 0;
    forever = watched = true;
    int added = access_add(&list, true, "192.0.2.2"), copied = access_copy(&copy, &list);
    watched = false;
    ck_assert_int_eq(added, -ENOMEM);
    ck_assert_int_eq(copied, -ENOMEM);
    ck_assert_uint_eq(list.count, 1);
    ck_assert_ptr_null(copy.entries);
    ck_assert_uint_eq(copy.count, 0);
    access_free(&list);
}
END_TEST

void add_memory(TCase *tests)
{
    tcase_add_test(tests, each_allocation_may_fail);
    tcase_add_test(tests, a_list_without_memory_stays_as_it_was);
}
