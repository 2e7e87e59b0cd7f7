/* config_files.c: files of rules and what they include. A part of test_config.c. The tests run in a folder of their
 * own, which is removed with all that is in it. */
#include "../portforward/config_parts.h"
#include "config_test.h"
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[32];

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status, (void)type, (void)at;
    return remove(path);
}

static void leave_folder(void)
{
    if (chdir("/") == 0)
        nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void enter_folder(void)
{
    strcpy(folder, "/tmp/asyncore-config-XXXXXX");
    must(mkdtemp(folder) != NULL && chdir(folder) == 0);
    must(atexit(leave_folder) == 0); /* a test that fails ends its process there and then */
}

static void write_bytes(const char *path, const void *text, size_t size)
{
    FILE *file = fopen(path, "w");
    must(file != NULL && fwrite(text, 1, size, file) == size && fclose(file) == 0);
}

static void write_file(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

/* Reads main.conf. */
static int read_main(const char *text)
{
    write_file("main.conf", text);
    start();
    return config_read(&config, "main.conf");
}

/* -- Files -- */

START_TEST(a_file_is_read_whatever_ends_its_lines)
{
    static const char *const texts[] = {"a 1 b 2\nc 3 d 4\n", "a 1 b 2\nc 3 d 4", "a 1 b 2\r\nc 3 d 4\r\n",
                                        "a 1 b 2\r\n\r\n\n# x\r\nc 3 d 4\r", "\n\n\na 1 b 2\n \t\nc 3 d 4 \n\n"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        ck_assert_int_eq(read_main(texts[i]), 0);
        ck_assert_str_eq(rules(), "a 1 > b 2\nc 3 > d 4");
        finish("");
    }
    ck_assert_int_eq(read_main(""), 0);
    ck_assert_uint_eq(config.rule_count, 0);
    finish("");
}
END_TEST

START_TEST(rules_know_their_lines)
{
    ck_assert_int_eq(read_main("# x\n\na 1 b 2\nallow *\r\nc 3 d 4"), 0);
    ck_assert_str_eq(config.rules[0].where, "main.conf:3");
    ck_assert_str_eq(config.rules[1].where, "main.conf:5");
    finish("");
}
END_TEST

START_TEST(a_file_of_rinetd_is_read)
{
    ck_assert_int_eq(read_main("#\n"
                               "# allow 192.168.2.*\n"
                               "allow 192.168.2.*\n"
                               "deny 192.168.2.1?\n"
                               "\n"
                               "# bindadress  bindport  connectaddress  connectport  options...\n"
                               "0.0.0.0 80 10.0.0.5 80\n"
                               "::1     80        192.168.1.2     80\n"
                               "0.0.0.0     8000/tcp        fe80::1         80/tcp\n"
                               "127.0.0.1   4000      host.lan       3000   [timeout=72,src=192.168.1.2]\n"
                               "deny 192.168.3.*\n"
                               "127.0.0.1   4001      127.0.0.1       22           [src=192.168.1.2, timeout=1200]\n"
                               "\n"
                               "logfile /var/log/rinetd.log\n"
                               "pidlogfile /run/rinetd.pid\n"), 0);
    ck_assert_str_eq(rules(), "0.0.0.0 80 > 10.0.0.5 80\n"
                              "::1 80 > 192.168.1.2 80\n"
                              "0.0.0.0 8000 > fe80::1 80\n"
                              "127.0.0.1 4000 > host.lan 3000 idle=72000 src=192.168.1.2\n"
                              "127.0.0.1 4001 > 127.0.0.1 22 idle=1200000 src=192.168.1.2");
    ck_assert_uint_eq(config.access.count, 2);
    ck_assert_uint_eq(config.rules[3].access.count, 1);
    ck_assert_str_eq(config.log_file, "/var/log/rinetd.log");
    ck_assert_str_eq(config.pid_file, "/run/rinetd.pid");
    finish("");
}
END_TEST

START_TEST(what_of_rinetd_there_is_not_is_told)
{
    ck_assert_int_eq(read_main("logcommon\n"
                               "127.0.0.1 8000/udp 192.168.1.2 8000/udp [timeout=1200]\n"
                               "127.0.0.1 http 192.168.1.2 80\n"
                               "allow fe80:*\n"
                               "logfile a\nlogfile b\n"), -1);
    ck_assert_str_eq(config.log_file, "a");
    finish("main.conf:1: there is no common log format: logcommon\n"
           "main.conf:2: udp is not supported: 8000/udp\n"
           "main.conf:2: udp is not supported: 8000/udp\n"
           "main.conf:3: not a port from 0 to 65535: http\n"
           "main.conf:4: not an address, block (192.0.2.0/24) or pattern of IPv4 (192.0.2.*): fe80:*\n"
           "main.conf:6: said before: logfile\n");
}
END_TEST

START_TEST(all_faults_are_told_and_the_rest_is_read)
{
    ck_assert_int_eq(read_main("x\na 1 b 2\na 1 b 3\r\nallow y\nlogfile\na 2 b 0"), -1);
    ck_assert_str_eq(rules(), "a 1 > b 2");
    finish("main.conf:1: neither a directive nor a rule, BIND PORT REMOTE PORT [OPTIONS]: x\n"
           "main.conf:3: listened on already by main.conf:2: a 1\n"
           "main.conf:4: not an address, block (192.0.2.0/24) or pattern of IPv4 (192.0.2.*): y\n"
           "main.conf:5: a word is missing after: logfile\n"
           "main.conf:6: not a port from 1 to 65535: 0\n");
}
END_TEST

START_TEST(a_nul_byte_is_told)
{
    static const char text[] = "a 1 b 2\0 [idle=1]\n\0\nc 3 d 4\n\0";
    write_bytes("main.conf", text, sizeof text - 1);
    start();
    ck_assert_int_eq(config_read(&config, "main.conf"), -1);
    ck_assert_str_eq(rules(), "c 3 > d 4");
    finish("main.conf:1: a NUL byte in the line\n"
           "main.conf:2: a NUL byte in the line\n"
           "main.conf:4: a NUL byte in the line\n");
}
END_TEST

/* `length` bytes, a comment but for the rule at its beginning, and what follows. */
static int read_long(size_t length, const char *end)
{
    static char text[3 * LINE_MAX_BYTES];
    memset(text, '#', length);
    memcpy(text, "a 1 b 2 ", 8);
    strcpy(text + length, end);
    return read_main(text);
}

START_TEST(a_line_has_the_length_that_it_may_have)
{
    static const char *const ends[] = {"\n", "\r\n", "", "\r"};
    for (size_t i = 0; i < COUNT(ends); i++) {
        ck_assert_int_eq(read_long(LINE_MAX_BYTES, ends[i]), 0);
        ck_assert_str_eq(rules(), "a 1 > b 2");
        finish("");
        ck_assert_int_eq(read_long(LINE_MAX_BYTES + 1, ends[i]), -1);
        ck_assert_uint_eq(config.rule_count, 0);
        finish("main.conf:1: longer than 4096 bytes\n");
    }
    ck_assert_int_eq(read_long(LINE_MAX_BYTES, "\rx\nc 3 d 4\n"), -1); /* it is the line's end only at its end */
    ck_assert_str_eq(rules(), "c 3 > d 4");
    finish("main.conf:1: longer than 4096 bytes\n");
    ck_assert_int_eq(read_long(2 * LINE_MAX_BYTES + 7, "\nc 3 d 4\n"), -1);
    ck_assert_str_eq(rules(), "c 3 > d 4");
    finish("main.conf:1: longer than 4096 bytes\n");
}
END_TEST

START_TEST(what_cannot_be_read_is_told)
{
    static const char *const table[][2] = {
        {"nothing", "nothing: No such file or directory\n"},
        {"", ": No such file or directory\n"},
        {"folder", "folder: Is a directory\n"},
        {"fifo", "fifo: not a regular file\n"},
        {"/dev/null", "/dev/null: not a regular file\n"},
        {"loop", "loop: Too many levels of symbolic links\n"},
        {"file/x", "file/x: Not a directory\n"},
        {"a\nb", "a\\x0ab: No such file or directory\n"},
    };
    must(mkdir("folder", 0700) == 0 && mkfifo("fifo", 0600) == 0 && symlink("loop", "loop") == 0);
    write_file("file", "");
    for (size_t i = 0; i < COUNT(table); i++) {
        start();
        ck_assert_int_eq(config_read(&config, table[i][0]), -1);
        finish(table[i][1]);
    }
}
END_TEST

START_TEST(reading_ends_after_a_thousand_faults)
{
    char text[3 * 1200 + 1] = "", expected[256];
    for (int i = 0; i < 1200; i++)
        strcat(text, "x\r\n");
    ck_assert_int_eq(read_main(text), -1);
    ck_assert_uint_eq(config.faults, FAULTS_MAX + 1);
    snprintf(expected, sizeof expected, "main.conf:1000: neither a directive nor a rule, BIND PORT REMOTE PORT "
             "[OPTIONS]: x\nmain.conf:1001: too many faults: the rest is not read\n");
    ck_assert_str_eq(said + strlen(said) - strlen(expected), expected);
    config_free(&config);
}
END_TEST

START_TEST(reading_ends_after_16_mib)
{
    write_file("main.conf", "a 1 b 2\n");
    ck_assert_int_eq(truncate("main.conf", BYTES_MAX - 1), 0);
    start();
    ck_assert_int_eq(config_read(&config, "main.conf"), -1);
    finish("main.conf:2: longer than 4096 bytes\n");
    ck_assert_int_eq(truncate("main.conf", BYTES_MAX + 1), 0);
    write_file("more.conf", "include main.conf\nc 3 d 4\n");
    start();
    ck_assert_int_eq(config_read(&config, "more.conf"), -1);
    ck_assert_str_eq(rules(), "a 1 > b 2");
    finish("main.conf:2: more than 16 MiB in all: the rest is not read\n");
}
END_TEST

/* -- Include -- */

START_TEST(included_files_are_read_where_they_are_included)
{
    must(mkdir("d", 0700) == 0);
    write_file("d/z.conf", "deny 1.1.1.1\nz 1 h 1\n");
    write_file("d/b.conf", "deny 2.2.2.2\nb 1 h 1\nlogfile log");
    write_file("d/B.conf", "B 2 h 1\ndeny 3.3.3.3");
    write_file("d/10.conf", "include ../e.conf\ndeny 4.4.4.4\n");
    write_file("d/9.txt", "wrong\n");
    write_file("d/.hidden.conf", "wrong\n");
    write_file("e.conf", "e 1 h 1\n");
    ck_assert_int_eq(read_main("first 1 h 1\ninclude d/*.conf # all\nlast 1 h 1\n"), 0);
    ck_assert_str_eq(rules(), "first 1 > h 1\ne 1 > h 1\nb 2 > h 1\nb 1 > h 1\nz 1 > h 1\nlast 1 > h 1");
    ck_assert_str_eq(config.rules[1].where, "d/../e.conf:1");
    ck_assert_str_eq(config.rules[4].where, "d/z.conf:2");
    ck_assert_str_eq(config.rules[5].where, "main.conf:3");
    static const unsigned denied[] = {0, 1, 2, 1, 0, 0};
    for (unsigned i = 0; i < config.rule_count; i++)
        ck_assert_uint_eq(config.rules[i].access.count, denied[i]);
    ck_assert_str_eq(config.log_file, "log");
    finish("");
}
END_TEST

/* From another folder, by an absolute name, from the command line. */
START_TEST(relative_names_are_of_the_including_files_folder)
{
    char line[128];
    must(mkdir("d", 0700) == 0 && mkdir("d/d", 0700) == 0 && mkdir("other", 0700) == 0);
    write_file("d/main.conf", "include a.conf\ninclude d/?.conf\n");
    write_file("d/a.conf", "a 1 h 1\n");
    write_file("d/d/b.conf", "b 1 h 1\n");
    must(chdir("other") == 0);
    start();
    ck_assert_int_eq(config_line(&config, "x", "include ../d/main.conf"), 0);
    ck_assert_str_eq(rules(), "a 1 > h 1\nb 1 > h 1");
    finish("");
    start();
    snprintf(line, sizeof line, "include %s/[cd]/d/*", folder);
    ck_assert_int_eq(config_line(&config, "x", line), 0);
    ck_assert_str_eq(rules(), "b 1 > h 1");
    finish("");
}
END_TEST

/* What is special in a pattern is not in the name of the folder that the including file is in. */
START_TEST(a_folders_name_is_no_pattern)
{
    must(mkdir("[x]*\\", 0700) == 0 && mkdir("x", 0700) == 0 && mkdir("xx", 0700) == 0);
    write_file("[x]*\\/main.conf", "include a.conf\ninclude b*\n");
    write_file("[x]*\\/a.conf", "a 1 h 1\n");
    write_file("[x]*\\/b.conf", "b 1 h 1\n");
    write_file("x/a.conf", "wrong\n");
    write_file("x/b.conf", "wrong\n");
    write_file("xx/b.conf", "wrong\n");
    start();
    ck_assert_int_eq(config_read(&config, "[x]*\\/main.conf"), 0);
    ck_assert_str_eq(rules(), "a 1 > h 1\nb 1 > h 1");
    finish("");
}
END_TEST

START_TEST(a_pattern_may_match_nothing_a_name_may_not)
{
    write_file("file", "");
    ck_assert_int_eq(read_main("include nothing/*.conf\ninclude *.none\ninclude file/*\ninclude [x]\n"), 0);
    finish("");
    ck_assert_int_eq(read_main("include nothing.conf\ninclude file/x\na 1 b 2"), -1);
    ck_assert_str_eq(rules(), "a 1 > b 2");
    finish("main.conf:1: No such file or directory: nothing.conf\n"
           "main.conf:2: Not a directory: file/x\n");
}
END_TEST

START_TEST(a_pattern_that_meets_a_folder_is_told)
{
    must(mkdir("d", 0700) == 0 && mkdir("d/a", 0700) == 0 && mkfifo("d/b", 0600) == 0);
    write_file("d/c", "a 1 b 2\n");
    ck_assert_int_eq(read_main("include d/*\n"), -1);
    ck_assert_str_eq(rules(), "a 1 > b 2");
    finish("main.conf:1: Is a directory: d/a\n"
           "main.conf:1: not a regular file: d/b\n");
}
END_TEST

START_TEST(a_loop_is_told)
{
    write_file("a.conf", "a 1 h 1\ninclude b.conf\na 2 h 1\n");
    write_file("b.conf", "b 1 h 1\ninclude same.conf\nb 2 h 1\n");
    must(link("a.conf", "same.conf") == 0); /* the same file by another name */
    start();
    ck_assert_int_eq(config_read(&config, "a.conf"), -1);
    ck_assert_str_eq(rules(), "a 1 > h 1\nb 1 > h 1\nb 2 > h 1\na 2 > h 1");
    finish("b.conf:2: includes itself: same.conf\n");
    ck_assert_int_eq(read_main("include ./m*.conf\n"), -1);
    finish("main.conf:1: includes itself: ./main.conf\n");
}
END_TEST

/* No loop, so nothing is wrong but what the lines themselves say. */
START_TEST(a_file_may_be_included_twice)
{
    write_file("a.conf", "deny 192.0.2.1\n");
    ck_assert_int_eq(read_main("include a.conf\nx 1 h 1\ninclude a.conf\n"), 0);
    ck_assert_uint_eq(config.access.count, 1);
    ck_assert_uint_eq(config.rules[0].access.count, 1);
    finish("");
}
END_TEST

START_TEST(files_are_included_eight_deep)
{
    char name[32], text[64];
    for (int i = 1; i <= 9; i++) {
        snprintf(name, sizeof name, "%d.conf", i);
        snprintf(text, sizeof text, i < 9 ? "include %d.conf\nh %d r 1\n" : "h 1%d r 1\n", i + 1, i);
        write_file(name, text);
    }
    start();
    ck_assert_int_eq(config_read(&config, "2.conf"), 0);
    finish("");
    ck_assert_int_eq(read_main("include 2.conf\n"), 0);
    ck_assert_uint_eq(config.rule_count, 8);
    finish("");
    ck_assert_int_eq(read_main("include 1.conf\n"), -1);
    ck_assert_uint_eq(config.rule_count, 8);
    finish("8.conf:1: included more than 8 files deep: 9.conf\n");
}
END_TEST

START_TEST(no_more_files_are_read_than_may_be)
{
    enum { FAN = 70 };
    char text[FAN * 20] = "";
    for (int i = 0; i < FAN; i++)
        strcat(text, "include c.conf\n");
    write_file("b.conf", text);
    write_file("c.conf", "");
    text[0] = '\0';
    for (int i = 0; i < FAN; i++)
        strcat(text, "include b.conf\n");
    ck_assert_int_eq(read_main(text), -1); /* 1 + 70 + 4,900 */
    finish("b.conf:48: more than 4096 files: the rest is not read\n");
}
END_TEST

START_TEST(an_included_files_defaults_end_with_it)
{
    write_file("a.conf", "a 1 h 1\ndefault [idle=2,half=3]\na 2 h 1\n");
    ck_assert_int_eq(read_main("default [idle=1]\ninclude a.conf\nb 1 h 1\n"), 0);
    ck_assert_str_eq(rules(), "a 1 > h 1 idle=1000\n"
                              "a 2 > h 1 idle=2000 half=3000\n"
                              "b 1 > h 1 idle=1000");
    ck_assert_uint_eq(config.defaults.idle, rule_defaults.idle);
    finish("");
}
END_TEST

/* -- The man page -- */

/* The literal displays of its EXAMPLES, one after the other. */
static void extract_examples(FILE *page, FILE *examples)
{
    char line[512];
    bool section = false, literal = false;
    while (fgets(line, sizeof line, page) != NULL) {
        if (strncmp(line, ".Sh ", 4) == 0)
            section = strcmp(line, ".Sh EXAMPLES\n") == 0;
        if (strncmp(line, ".Ed", 3) == 0)
            literal = false;
        if (section && literal)
            fputs(line, examples);
        if (strncmp(line, ".Bd -literal", 12) == 0)
            literal = true;
    }
}

START_TEST(the_examples_of_the_man_page_are_right)
{
    FILE *page = fopen(MAN_PAGE, "r"), *examples = fopen("main.conf", "w");
    ck_assert_ptr_nonnull(page);
    ck_assert_ptr_nonnull(examples);
    extract_examples(page, examples);
    fclose(page);
    fclose(examples);
    start();
    ck_assert_int_eq(config_read(&config, "main.conf"), 0);
    ck_assert_uint_ge(config.rule_count, 8);
    ck_assert_uint_ge(config.access.count, 2);
    ck_assert_str_eq(config.log_file, "/var/log/portforward.log");
    finish("");
}
END_TEST

void add_files(TCase *tests)
{
    tcase_add_checked_fixture(tests, enter_folder, leave_folder);
    tcase_add_test(tests, a_file_is_read_whatever_ends_its_lines);
    tcase_add_test(tests, rules_know_their_lines);
    tcase_add_test(tests, a_file_of_rinetd_is_read);
    tcase_add_test(tests, what_of_rinetd_there_is_not_is_told);
    tcase_add_test(tests, all_faults_are_told_and_the_rest_is_read);
    tcase_add_test(tests, a_nul_byte_is_told);
    tcase_add_test(tests, a_line_has_the_length_that_it_may_have);
    tcase_add_test(tests, what_cannot_be_read_is_told);
    tcase_add_test(tests, reading_ends_after_a_thousand_faults);
    tcase_add_test(tests, reading_ends_after_16_mib);
    tcase_add_test(tests, included_files_are_read_where_they_are_included);
    tcase_add_test(tests, relative_names_are_of_the_including_files_folder);
    tcase_add_test(tests, a_folders_name_is_no_pattern);
    tcase_add_test(tests, a_pattern_may_match_nothing_a_name_may_not);
    tcase_add_test(tests, a_pattern_that_meets_a_folder_is_told);
    tcase_add_test(tests, a_loop_is_told);
    tcase_add_test(tests, a_file_may_be_included_twice);
    tcase_add_test(tests, files_are_included_eight_deep);
    tcase_add_test(tests, no_more_files_are_read_than_may_be);
    tcase_add_test(tests, an_included_files_defaults_end_with_it);
    tcase_add_test(tests, the_examples_of_the_man_page_are_right);
}
