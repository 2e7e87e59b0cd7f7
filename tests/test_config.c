/* test_config.c: lines and files of rules: what good ones give, what is said of bad ones, to the letter. */
/* engine-independent */
/* portforward: config.c config_file.c config_option.c config_rule.c access.c */
#include "config_test.h"
#include <stdarg.h>
#include <sys/socket.h>

struct config config;
char said[1 << 20];

static void hear(void *arg, const char *message)
{
    (void)arg;
    must(strpbrk(message, "\n\r") == NULL);
    size_t used = strlen(said);
    must(used + strlen(message) + 2 < sizeof said);
    sprintf(said + used, "%s\n", message);
}

void start(void)
{
    said[0] = '\0';
    config_init(&config, NULL, hear, NULL);
}

void finish(const char *faults)
{
    unsigned lines = 0;
    for (const char *p = said; *p != '\0'; p++)
        lines += *p == '\n';
    ck_assert_str_eq(said, faults);
    ck_assert_uint_eq(config.faults, lines);
    config_free(&config);
}

/* -- What a configuration holds, as text -- */

static char description[1 << 16];

static void describe(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void describe(const char *format, ...)
{
    size_t used = strlen(description);
    va_list arguments;
    va_start(arguments, format);
    size_t n = (size_t)vsnprintf(description + used, sizeof description - used, format, arguments);
    must(n < sizeof description - used);
    va_end(arguments);
}

#define describe_changed(o, field, format) \
    do { \
        if ((o)->field != rule_defaults.field) \
            describe(" " #field "=" format, (o)->field); \
    } while (0)

static void describe_options(const struct rule_options *o)
{
    if (o->name[0] != '\0')
        describe(" name=%s", o->name);
    describe_changed(o, connect, "%u");
    describe_changed(o, idle, "%u");
    describe_changed(o, half, "%u");
    describe_changed(o, life, "%u");
    describe_changed(o, keepalive.idle, "%u");
    describe_changed(o, keepalive.interval, "%u");
    describe_changed(o, keepalive.probes, "%u");
    describe_changed(o, max, "%u");
    describe_changed(o, max_per_source, "%u");
    describe_changed(o, rate, "%u");
    describe_changed(o, refuse, "%d");
    describe_changed(o, data_path, "%d");
    describe_changed(o, backlog, "%u");
    describe_changed(o, mode, "%o");
    if (o->src[0] != '\0')
        describe(" src=%s", o->src);
}

const char *rules(void)
{
    description[0] = '\0';
    for (unsigned i = 0; i < config.rule_count; i++) {
        const struct rule_config *rule = &config.rules[i];
        describe("%s%s %s >", i > 0 ? "\n" : "", rule->bind.host, rule->bind.port);
        for (unsigned j = 0; j < rule->remote_count; j++)
            describe("%s %s %s", j > 0 ? "," : "", rule->remotes[j].host, rule->remotes[j].port);
        describe_options(&rule->options);
    }
    return description;
}

/* -- Lines -- */

START_TEST(good_rules_give_what_they_say)
{
    static const char *const table[][2] = {
        {"0.0.0.0 8080 10.0.0.5 80", "0.0.0.0 8080 > 10.0.0.5 80"},
        {"\t 127.0.0.1\t1  h  65535 \t", "127.0.0.1 1 > h 65535"},
        {"127.0.0.1 0 h 1", "127.0.0.1 0 > h 1"},
        {"127.0.0.1 80/tcp h 80/TCP", "127.0.0.1 80 > h 80"},
        {"127.0.0.1 0080 h 000000000000000443", "127.0.0.1 80 > h 443"},
        {"* 443 web1.example,web2.example 8443 [connect=3s,idle=10m]",
         "* 443 > web1.example 8443, web2.example 8443 connect=3000 idle=600000"},
        {"127.0.0.1 5432 unix:/run/postgresql/.s.PGSQL.5432 -",
         "127.0.0.1 5432 > unix:/run/postgresql/.s.PGSQL.5432 -"},
        {"unix:/run/app.sock -  10.0.0.9 7000             [mode=0660,data-path=copy]",
         "unix:/run/app.sock - > 10.0.0.9 7000 data_path=1 mode=660"},
        {"unix:@Name - unix:@other -", "unix:@Name - > unix:@other -"},
        {":: 2222 host.lan 22 [max=200,max-per-source=4,rate=50,full=refuse]",
         ":: 2222 > host.lan 22 max=200 max_per_source=4 rate=50 refuse=1"},
        {"[::1] 80 [2001:DB8:0:0::0:1],[::] 81", "::1 80 > 2001:db8::1 81, :: 81"},
        {"0:0::1 80 ::ffff:192.0.2.1 81", "::1 80 > ::ffff:192.0.2.1 81"},
        {"::1%lo 80 fe80::1%lo 81", "::1%lo 80 > fe80::1%lo 81"},
        {"LocalHost 80 WWW.Example. 80", "localhost 80 > www.example. 80"},
        {"localhost 80 a-b_c.1x.x1 80", "localhost 80 > a-b_c.1x.x1 80"},
        {"localhost 80 unix:/a,h,unix:@b 80", "localhost 80 > unix:/a -, h 80, unix:@b -"},
        {"localhost 80 unix:/a,unix:@b -", "localhost 80 > unix:/a -, unix:@b -"},
        {"localhost 80 h 80 # said", "localhost 80 > h 80"},
        {"localhost 80 h 80 #[idle=1]", "localhost 80 > h 80"},
        {"localhost 80 h 80 [idle=1]# said", "localhost 80 > h 80 idle=1000"},
        {"localhost 80 h 80 [idle=1] # [idle=2]", "localhost 80 > h 80 idle=1000"},
        {"localhost 80 h 80 [ idle = 1\t,\thalf= 2 ]", "localhost 80 > h 80 idle=1000 half=2000"},
        {"localhost 80 h#x 80", NULL}, /* no comment begins within a word */
        {"# only said", ""},
        {"", ""},
        {" \t ", ""},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        start();
        int r = config_line(&config, "line", table[i][0]);
        if (table[i][1] != NULL) {
            ck_assert_str_eq(said, "");
            ck_assert_int_eq(r, 0);
            ck_assert_str_eq(rules(), table[i][1]);
            finish("");
        } else {
            finish("line: not an address or a name: h#x\n");
        }
    }
}
END_TEST

START_TEST(rules_are_named_by_where_they_listen)
{
    static const char *const table[][2] = {
        {"127.0.0.1 080 h 80", "127.0.0.1:80"}, {"[::1] 80 h 80", "[::1]:80"},
        {"* 80 h 80", "*:80"},                  {"unix:/run/x - h 80", "unix:/run/x"},
        {"* 80 h 80 [name=web]", "web"},
    };
    char name[RULE_NAME_SIZE + 128];
    for (size_t i = 0; i < COUNT(table); i++) {
        start();
        ck_assert_int_eq(config_line(&config, "line", table[i][0]), 0);
        ck_assert_str_eq(rule_config_name(&config.rules[0], name, sizeof name), table[i][1]);
        ck_assert_str_eq(config.rules[0].where, "line");
        ck_assert_ptr_eq(rule_config_name(&config.rules[0], name, 4), name);
        ck_assert_uint_eq(strlen(name), 3);
        finish("");
    }
}
END_TEST

static const char *const bad_lines[][2] = {
    /* words */
    {"udp", "neither a directive nor a rule, BIND PORT REMOTE PORT [OPTIONS]: udp"},
    {"a 1 b", "neither a directive nor a rule, BIND PORT REMOTE PORT [OPTIONS]: a"},
    {"a 1 b # 2", "neither a directive nor a rule, BIND PORT REMOTE PORT [OPTIONS]: a"},
    {"a 1 b 2 c", "unexpected: c"},
    {"a 1 b 2 c [idle=1]", "unexpected: c"},
    {"logcommon", "there is no common log format: logcommon"},
    /* ports */
    {"a 65536 b 2", "not a port from 0 to 65535: 65536"},
    {"a 99999999999999999999999 b 2", "not a port from 0 to 65535: 99999999999999999999999"},
    {"a -1 b 2", "not a port from 0 to 65535: -1"},
    {"a +1 b 2", "not a port from 0 to 65535: +1"},
    {"a - b 2", "not a port from 0 to 65535: -"},
    {"a http b 2", "not a port from 0 to 65535: http"},
    {"a 1x b 2", "not a port from 0 to 65535: 1x"},
    {"a /tcp b 2", "not a port from 0 to 65535: /tcp"},
    {"a 1 b 0", "not a port from 1 to 65535: 0"},
    {"a 1 b 65536", "not a port from 1 to 65535: 65536"},
    {"a 1 b 18446744073709551617", "not a port from 1 to 65535: 18446744073709551617"},
    {"a 1/udp b 2", "udp is not supported: 1/udp"},
    {"a 1 b 2/UDP", "udp is not supported: 2/UDP"},
    {"a 1/sctp b 2", "no such protocol: tcp is all there is: 1/sctp"},
    {"a 1/ b 2", "no such protocol: tcp is all there is: 1/"},
    {"a 1/tcp/tcp b 2", "no such protocol: tcp is all there is: 1/tcp/tcp"},
    {"unix:/a 1 b 2", "a Unix socket has no port but -: 1"},
    {"a 1 unix:/a,unix:/b 2", "a Unix socket has no port but -: 2"},
    {"a 1 unix:/a,b -", "not a port from 1 to 65535: -"},
    /* hosts */
    {"a 1 * 2", "not an address or a name: *"},
    {"a 1 1.2.3 2", "not an address or a name: 1.2.3"},
    {"a 1 1.2.3.256 2", "not an address or a name: 1.2.3.256"},
    {"a 1 1.2.3.4. 2", "not an address or a name: 1.2.3.4."},
    {"0 1 b 2", "not an address or a name: 0"},
    {"a 1 1::2::3 2", "not an address or a name: 1::2::3"},
    {"a 1 fe80::1%nothing 2", "not an address or a name: fe80::1%nothing"},
    {"a 1 [b] 2", "not an address or a name: [b]"},
    {"a 1 [1.2.3.4] 2", "not an address or a name: [1.2.3.4]"},
    {"a 1 [::1 2", "not an address or a name: [::1"},
    {"a 1 [] 2", "not an address or a name: []"},
    {"a 1 [[::1]] 2", "not an address or a name: [[::1]]"},
    {"a 1 b..c 2", "not an address or a name: b..c"},
    {"a 1 .b 2", "not an address or a name: .b"},
    {"a 1 . 2", "not an address or a name: ."},
    {"- 1 b 2", "not an address or a name: -"},
    {"a 1 b:c 2", "not an address or a name: b:c"},
    {"a 1 b\x01\x7f\xc3 2", "not an address or a name: b\\x01\\x7f\\xc3"},
    {"a 1 b\nc 2", "not an address or a name: b\\x0ac"},
    {"a 1 b, 2", "an address is empty"},
    {"a 1 ,b 2", "an address is empty"},
    {"unix: - b 2", "a Unix socket is unix:/path or unix:@name: unix:"},
    {"unix:/ - b 2", "a Unix socket is unix:/path or unix:@name: unix:/"},
    {"unix:@ - b 2", "a Unix socket is unix:/path or unix:@name: unix:@"},
    {"unix:a - b 2", "a Unix socket is unix:/path or unix:@name: unix:a"},
    {"unix:/a\x01 - b 2", "a control character in the path: unix:/a\\x01"},
    /* lists */
    {"a 1 b 2 [", "] is missing: ["},
    {"a 1 b 2 [idle=1", "] is missing: [idle=1"},
    {"a 1 b 2 []", "not NAME=VALUE"},
    {"a 1 b 2 [idle=1,]", "not NAME=VALUE"},
    {"a 1 b 2 [idle]", "not NAME=VALUE: idle"},
    {"a 1 b 2 [idle=]", "a value is missing: idle="},
    {"a 1 b 2 [=1]", "no such option: =1"},
    {"a 1 b 2 [colour=red]", "no such option: colour=red"},
    {"a 1 b 2 [Idle=1]", "no such option: Idle=1"},
    {"a 1 b 2 [idle=1,idle=2]", "given twice in one list: idle=2"},
    {"a 1 b 2 [idle=1,timeout=2]", "given twice in one list: timeout=2"},
    {"a 1 b 2 [idle=1][half=1]", "unexpected after the options: [half=1]"},
    {"a 1 b 2 [idle=1] half", "unexpected after the options: half"},
    {"a 1 b 2 [mode=600]", "mode is of a Unix socket's file: a"},
    {"unix:@a - b 2 [mode=600]", "mode is of a Unix socket's file: unix:@a"},
    {"default", "options in brackets are missing after: default"},
    {"default idle=1", "options in brackets are missing after: default"},
    {"default [idle=x]", "not a duration (500ms, 10s, 5m, 1h, 1d or none; 30d at most): idle=x"},
    {"default [name=x]", "a name is of one rule only: x"},
    /* access */
    {"allow", "a word is missing after: allow"},
    {"deny # all", "a word is missing after: deny"},
    {"allow 1.2.3.4 5.6.7.8", "unexpected: 5.6.7.8"},
    {"allow host", "not an address, block (192.0.2.0/24) or pattern of IPv4 (192.0.2.*): host"},
    /* files */
    {"logfile", "a word is missing after: logfile"},
    {"logfile a b", "unexpected: b"},
    {"logfile \"a\"", "names of files are not quoted: \"a\""},
    {"pidlogfile", "a word is missing after: pidlogfile"},
    {"include", "a word is missing after: include"},
    {"include a b", "unexpected: b"},
    {"include /nonexistent/a", "No such file or directory: /nonexistent/a"},
};

START_TEST(each_bad_line_is_told_why)
{
    char expected[1024];
    for (size_t i = 0; i < COUNT(bad_lines); i++) {
        start();
        ck_assert_int_eq(config_line(&config, "some.conf:7", bad_lines[i][0]), -1);
        ck_assert_uint_eq(config.rule_count, 0);
        snprintf(expected, sizeof expected, "some.conf:7: %s\n", bad_lines[i][1]);
        finish(expected);
    }
}
END_TEST

START_TEST(all_faults_of_a_line_are_told)
{
    start();
    ck_assert_int_eq(config_line(&config, "x", ".a 0/udp .b,c,.d 0 [idle=x,half=1,nothing=2] e"), -1);
    finish("x: udp is not supported: 0/udp\n"
           "x: not an address or a name: .a\n"
           "x: not a port from 1 to 65535: 0\n"
           "x: not an address or a name: .b\n"
           "x: not an address or a name: .d\n"
           "x: not a duration (500ms, 10s, 5m, 1h, 1d or none; 30d at most): idle=x\n"
           "x: no such option: nothing=2\n"
           "x: unexpected after the options: e\n");
}
END_TEST

START_TEST(a_fault_is_one_printable_line_of_bounded_length)
{
    static char line[LINE_MAX_BYTES + 2], expected[LINE_MAX_BYTES];
    char cut[77];
    memset(line, 'x', LINE_MAX_BYTES + 1);
    start();
    ck_assert_int_eq(config_line(&config, "a\tb\n\x1b[0m\xff\\x", line), -1); /* too long by one */
    line[LINE_MAX_BYTES] = '\0';
    ck_assert_int_eq(config_line(&config, "x", line), -1);
    memset(cut, 'x', 76);
    cut[76] = '\0';
    snprintf(expected, sizeof expected,
             "a\\x09b\\x0a\\x1b[0m\\xff\\x: longer than 4096 bytes\n"
             "x: neither a directive nor a rule, BIND PORT REMOTE PORT [OPTIONS]: %s...\n", cut);
    finish(expected);

    memset(line, '\x01', LINE_MAX_BYTES); /* as long as it gets, four characters each */
    start();
    ck_assert_int_eq(config_line(&config, line, line), -1);
    ck_assert_uint_lt(strlen(said), LINE_MAX_BYTES + 200);
    config_free(&config);
}
END_TEST

START_TEST(nobody_has_to_listen_to_faults)
{
    config_init(&config, NULL, NULL, NULL);
    ck_assert_int_eq(config_line(&config, "x", "a"), -1);
    ck_assert_int_eq(config_line(&config, "x", "a 1 b 2"), 0);
    ck_assert_uint_eq(config.faults, 1);
    ck_assert_str_eq(rules(), "a 1 > b 2");
    config_free(&config);
    config_free(&config);
}
END_TEST

/* A line with this word in it. */
static int line_with(const char *format, const char *word)
{
    char line[LINE_MAX_BYTES];
    snprintf(line, sizeof line, format, word);
    return config_line(&config, "x", line);
}

/* `count` times the text, in static memory. */
static const char *times(unsigned count, const char *text)
{
    static char buffer[LINE_MAX_BYTES];
    buffer[0] = '\0';
    while (count-- > 0)
        strcat(buffer, text);
    return buffer;
}

START_TEST(names_have_the_length_that_they_may_have)
{
    start();
    ck_assert_int_eq(line_with("a 1 b 2 [name=%s]", times(63, "x")), 0);
    ck_assert_uint_eq(strlen(config.rules[0].options.name), 63);
    ck_assert_int_eq(line_with("a 2 b 2 [name=%s]", times(64, "x")), -1);
    ck_assert_int_eq(line_with("a 3 %s 2", times(63, "x")), 0);
    ck_assert_int_eq(line_with("a 4 %s 2", times(64, "x")), -1);
    ck_assert_int_eq(line_with("a 5 %sabc 2", times(25, "123456789.")), 0);
    ck_assert_int_eq(line_with("a 6 %sabcd 2", times(25, "123456789.")), -1);
    ck_assert_int_eq(line_with("unix:/%s - b 2", times(106, "x")), 0);
    ck_assert_int_eq(line_with("unix:/%s - b 2", times(107, "x")), -1);
    ck_assert_int_eq(line_with("unix:@%s - b 2", times(107, "x")), 0);
    ck_assert_int_eq(line_with("unix:@%s - b 2", times(108, "x")), -1);
    ck_assert_int_eq(line_with("a 7 b%s 2", times(31, ",b")), 0);
    ck_assert_uint_eq(config.rules[config.rule_count - 1].remote_count, REMOTES_MAX);
    ck_assert_int_eq(line_with("a 8 b%s 2", times(32, ",b")), -1);
    ck_assert_uint_eq(config.rule_count, 6);
    ck_assert_ptr_nonnull(strstr(said, "x: a name has 63 characters at most: name=xxxx"));
    ck_assert_ptr_nonnull(strstr(said, "x: not an address or a name: xxxx"));
    ck_assert_ptr_nonnull(strstr(said, "x: a name has 253 characters at most: 123456789."));
    ck_assert_ptr_nonnull(strstr(said, "x: the name of the socket is too long (107 bytes at most): unix:/xxx"));
    ck_assert_ptr_nonnull(strstr(said, "x: the name of the socket is too long (107 bytes at most): unix:@xxx"));
    ck_assert_ptr_nonnull(strstr(said, "x: more than 32 remotes: b,b,"));
    ck_assert_uint_eq(config.faults, 6);
    config_free(&config);
}
END_TEST

START_TEST(two_rules_do_not_listen_at_one_place)
{
    static const char *const table[][3] = {
        {"127.0.0.1 80 h 1", "127.0.0.1 080/tcp h 2", "127.0.0.1 80"},
        {"::1 80 h 1", "[0:0::1] 80 h 2", "::1 80"},
        {"localhost 80 h 1", "LOCALHOST 80 h 2", "localhost 80"},
        {"* 80 h 1", "* 80 h 2", "* 80"},
        {"* 80 h 1", "0.0.0.0 80 h 2", "0.0.0.0 80"},
        {"* 80 h 1", ":: 80 h 2", ":: 80"},
        {"0.0.0.0 80 h 1", "* 80 h 2", "* 80"},
        {"[::] 80 h 1", "* 80 h 2", "* 80"},
        {"unix:/a - h 1", "unix:/a - h 2", "unix:/a -"},
        {"unix:@a - h 1", "unix:@a - h 2", "unix:@a -"},
        /* these do */
        {"127.0.0.1 80 h 1", "127.0.0.1 81 h 1", NULL},
        {"127.0.0.1 80 h 1", "127.0.0.2 80 h 1", NULL},
        {"127.0.0.1 0 h 1", "127.0.0.1 0 h 1", NULL},
        {"* 0 h 1", "0.0.0.0 0 h 1", NULL},
        {"0.0.0.0 80 h 1", ":: 80 h 1", NULL},
        {"unix:/a - h 1", "unix:/A - h 1", NULL},
        {"unix:/a - h 1", "unix:@a - h 1", NULL},
    };
    char expected[256];
    for (size_t i = 0; i < COUNT(table); i++) {
        const char *place = table[i][2];
        start();
        ck_assert_int_eq(config_line(&config, "a.conf:1", table[i][0]), 0);
        ck_assert_int_eq(config_line(&config, "b.conf:2", table[i][1]), place != NULL ? -1 : 0);
        ck_assert_uint_eq(config.rule_count, place != NULL ? 1 : 2);
        snprintf(expected, sizeof expected, "b.conf:2: listened on already by a.conf:1: %s\n",
                 place != NULL ? place : "");
        finish(place != NULL ? expected : "");
    }
}
END_TEST

START_TEST(there_are_no_more_rules_than_may_be)
{
    char line[64];
    start();
    for (unsigned i = 0; i <= RULES_MAX; i++) {
        snprintf(line, sizeof line, "127.0.0.1 %u h 1", i + 1);
        must(config_line(&config, "x", line) == (i < RULES_MAX ? 0 : -1));
    }
    ck_assert_uint_eq(config.rule_count, RULES_MAX);
    ck_assert_str_eq(config.rules[RULES_MAX - 1].bind.port, "4096");
    finish("x: more than 4096 rules\n");
}
END_TEST

START_TEST(a_rule_can_be_made_of_its_parts)
{
    static const char *const bad[][5] = {
        {"", "1", "h", "2", "x: an address is empty\n"},
        {"a", "", "h", "2", "x: not a port from 0 to 65535\n"},
        {"a", "1", "", "2", "x: an address is empty\n"},
        {"a", "1", "h", "", "x: not a port from 1 to 65535\n"},
        {"a", "1", "h i", "2", "x: not an address or a name: h i\n"},
        {"a", "1", "h", "2 [idle=1]", "x: not a port from 1 to 65535: 2 [idle=1]\n"},
    };
    start();
    ck_assert_int_eq(config_rule(&config, "x", "127.0.0.1", "0", "h,[::1]", "22"), 0);
    ck_assert_str_eq(rules(), "127.0.0.1 0 > h 22, ::1 22");
    finish("");
    for (size_t i = 0; i < COUNT(bad); i++) {
        start();
        ck_assert_int_eq(config_rule(&config, "x", bad[i][0], bad[i][1], bad[i][2], bad[i][3]), -1);
        ck_assert_uint_eq(config.rule_count, 0);
        finish(bad[i][4]);
    }
}
END_TEST

static void add_lines(TCase *tests)
{
    tcase_add_test(tests, good_rules_give_what_they_say);
    tcase_add_test(tests, rules_are_named_by_where_they_listen);
    tcase_add_test(tests, each_bad_line_is_told_why);
    tcase_add_test(tests, all_faults_of_a_line_are_told);
    tcase_add_test(tests, a_fault_is_one_printable_line_of_bounded_length);
    tcase_add_test(tests, nobody_has_to_listen_to_faults);
    tcase_add_test(tests, names_have_the_length_that_they_may_have);
    tcase_add_test(tests, two_rules_do_not_listen_at_one_place);
    tcase_add_test(tests, there_are_no_more_rules_than_may_be);
    tcase_add_test(tests, a_rule_can_be_made_of_its_parts);
}

/* -- Options -- */

START_TEST(options_are_what_the_header_says_unless_set)
{
    const struct rule_options *o = &rule_defaults;
    ck_assert_str_eq(o->name, "");
    ck_assert_uint_eq(o->connect, 10000);
    ck_assert_uint_eq(o->idle, 3600000);
    ck_assert_uint_eq(o->half, 60000);
    ck_assert_uint_eq(o->life, 0);
    ck_assert_uint_eq(o->keepalive.idle, 60);
    ck_assert_uint_eq(o->keepalive.interval, 10);
    ck_assert_uint_eq(o->keepalive.probes, 5);
    ck_assert_uint_eq(o->max + o->max_per_source + o->rate, 0);
    ck_assert(!o->refuse);
    ck_assert_int_eq(o->data_path, DATA_PATH_AUTO);
    ck_assert_str_eq(o->src, "");
    ck_assert_uint_eq(o->backlog, SOMAXCONN);
    ck_assert_int_eq(o->mode, -1);
}
END_TEST

START_TEST(good_values_are_set)
{
    static const char *const table[][3] = {
        {"name", "web", " name=web"},
        {"name", "A.b_c-9", " name=A.b_c-9"},
        {"connect", "500ms", " connect=500"},
        {"connect", "0500ms", " connect=500"},
        {"idle", "10s", " idle=10000"},
        {"idle", "72", " idle=72000"},
        {"timeout", "72", " idle=72000"},
        {"idle", "5m", " idle=300000"},
        {"idle", "1h", ""},
        {"idle", "1d", " idle=86400000"},
        {"idle", "30d", " idle=2592000000"},
        {"idle", "2592000000ms", " idle=2592000000"},
        {"half", "off", " half=0"},
        {"half", "none", " half=0"},
        {"half", "0", " half=0"},
        {"half", "0ms", " half=0"},
        {"life", "2h", " life=7200000"},
        {"keepalive", "off", " keepalive.idle=0"},
        {"keepalive", "0", " keepalive.idle=0"},
        {"keepalive", "none", " keepalive.idle=0"},
        {"keepalive", "on", ""},
        {"keepalive", "5m", " keepalive.idle=300"},
        {"keepalive", "30/3", " keepalive.idle=30 keepalive.interval=3"},
        {"keepalive", "1s/1000ms/1", " keepalive.idle=1 keepalive.interval=1 keepalive.probes=1"},
        {"keepalive", "32767/32767/127", " keepalive.idle=32767 keepalive.interval=32767 keepalive.probes=127"},
        {"max", "200", " max=200"},
        {"max", "10000000", " max=10000000"},
        {"max", "0", ""},
        {"max", "none", ""},
        {"max-per-source", "4", " max_per_source=4"},
        {"rate", "50", " rate=50"},
        {"full", "refuse", " refuse=1"},
        {"full", "pause", ""},
        {"data-path", "auto", ""},
        {"data-path", "copy", " data_path=1"},
        {"data-path", "splice", " data_path=2"},
        {"src", "10.1.1.2", " src=10.1.1.2"},
        {"src", "2001:DB8::0:1", " src=2001:db8::1"},
        {"src", "[::1]", " src=::1"},
        {"src", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", " src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"backlog", "1", " backlog=1"},
        {"backlog", "65535", " backlog=65535"},
        {"mode", "0660", " mode=660"},
        {"mode", "0", " mode=0"},
        {"mode", "00777", " mode=777"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        struct rule_options options = rule_defaults;
        const char *reason = rule_option_set(&options, table[i][0], table[i][1]);
        ck_assert_msg(reason == NULL, "%s=%s: %s", table[i][0], table[i][1], reason);
        description[0] = '\0';
        describe_options(&options);
        ck_assert_str_eq(description, table[i][2]);
    }
}
END_TEST

#define DURATION  "not a duration (500ms, 10s, 5m, 1h, 1d or none; 30d at most)"
#define KEEPALIVE "not IDLE[/INTERVAL[/PROBES]] (whole seconds to 32767, 1 to 127 probes) or off"
#define AMOUNT    "not a count (10000000 at most, or none)"
#define MODE      "not an octal mode from 0 to 0777"
#define BACKLOG   "not a number from 1 to 65535"

/* Option, value, what is said of it. */
static const char *const bad_values[][3] = {
    {"", "1", "no such option"},
    {"idl", "1", "no such option"},
    {"idle ", "1", "no such option"},
    {"idle", "", "a value is missing"},
    {"name", "", "a value is missing"},
    {"name", "a b", "a name is letters, digits, dots, _ and -"},
    {"name", "a\n", "a name is letters, digits, dots, _ and -"},
    {"idle", "-1", DURATION},
    {"idle", "+1", DURATION},
    {"idle", " 1", DURATION},
    {"idle", "1 s", DURATION},
    {"idle", "1.5s", DURATION},
    {"idle", "s", DURATION},
    {"idle", "1S", DURATION},
    {"idle", "1min", DURATION},
    {"idle", "0x10", DURATION},
    {"idle", "31d", DURATION},
    {"idle", "2592001", DURATION},
    {"idle", "2592000001ms", DURATION},
    {"idle", "4294967296ms", DURATION},
    {"idle", "18446744073709551616", DURATION},
    {"idle", "18446744073709551617ms", DURATION},
    {"idle", "213503982334602d", DURATION}, /* 2^64 ms and a little */
    {"keepalive", "500ms", KEEPALIVE},
    {"keepalive", "1500ms", KEEPALIVE},
    {"keepalive", "0s", KEEPALIVE},
    {"keepalive", "32768", KEEPALIVE},
    {"keepalive", "1d", KEEPALIVE},
    {"keepalive", "1/0", KEEPALIVE},
    {"keepalive", "1/", KEEPALIVE},
    {"keepalive", "/1", KEEPALIVE},
    {"keepalive", "1//1", KEEPALIVE},
    {"keepalive", "1/1/0", KEEPALIVE},
    {"keepalive", "1/1/128", KEEPALIVE},
    {"keepalive", "1/1/1s", KEEPALIVE},
    {"keepalive", "1/1/", KEEPALIVE},
    {"keepalive", "1/1/1/1", KEEPALIVE},
    {"keepalive", "off/1", KEEPALIVE},
    {"keepalive", "00000000000000000000000000000000000000000000000000000000000000001", KEEPALIVE},
    {"max", "x", AMOUNT},
    {"max", "-1", AMOUNT},
    {"max", "10000001", AMOUNT},
    {"max-per-source", "1k", AMOUNT},
    {"rate", "50/s", AMOUNT},
    {"rate", "4294967297", AMOUNT},
    {"full", "no", "not pause or refuse"},
    {"full", "r", "not pause or refuse"},
    {"data-path", "zero", "not auto, copy or splice"},
    {"src", "host", "not a numeric address"},
    {"src", "*", "not a numeric address"},
    {"src", "unix:/a", "not a numeric address"},
    {"src", "1.2.3", "not a numeric address"},
    {"src", "[]", "not a numeric address"},
    {"src", "fe80::1%nothing", "not a numeric address"},
    {"backlog", "0", BACKLOG},
    {"backlog", "65536", BACKLOG},
    {"backlog", "none", BACKLOG},
    {"mode", "8", MODE},
    {"mode", "1000", MODE},
    {"mode", "0o17", MODE},
    {"mode", "-1", MODE},
    {"mode", "000000", MODE},
    {"mode", "rw", MODE},
};

START_TEST(bad_values_change_nothing)
{
    for (size_t i = 0; i < COUNT(bad_values); i++) {
        struct rule_options options = rule_defaults;
        const char *reason = rule_option_set(&options, bad_values[i][0], bad_values[i][1]);
        ck_assert_msg(reason != NULL, "%s=%s was taken", bad_values[i][0], bad_values[i][1]);
        ck_assert_str_eq(reason, bad_values[i][2]);
        ck_assert(memcmp(&options, &rule_defaults, sizeof options) == 0);
    }
}
END_TEST

START_TEST(keepalive_keeps_what_it_does_not_name)
{
    struct rule_options options = rule_defaults;
    ck_assert_ptr_null(rule_option_set(&options, "keepalive", "30/3/2"));
    ck_assert_ptr_null(rule_option_set(&options, "keepalive", "off"));
    ck_assert_ptr_null(rule_option_set(&options, "keepalive", "20"));
    ck_assert_uint_eq(options.keepalive.idle, 20);
    ck_assert_uint_eq(options.keepalive.interval, 3);
    ck_assert_uint_eq(options.keepalive.probes, 2);
    ck_assert_ptr_null(rule_option_set(&options, "keepalive", "on"));
    ck_assert_uint_eq(options.keepalive.idle, 60);
    ck_assert_uint_eq(options.keepalive.probes, 5);
}
END_TEST

START_TEST(the_names_of_options_are_those_that_can_be_set)
{
    static const char all[] = "name connect idle half life keepalive max max-per-source rate full data-path src "
                              "backlog mode timeout ";
    char names[256] = "";
    unsigned count = 0;
    for (const char *name; (name = rule_option_name(count)) != NULL; count++) {
        struct rule_options options;
        strcat(strcat(names, name), " ");
        ck_assert_str_ne(rule_option_set(&options, name, ""), "no such option");
    }
    ck_assert_str_eq(names, all);
    ck_assert_ptr_null(rule_option_name(count + 1));
    ck_assert_ptr_null(rule_option_name(UINT32_MAX));
}
END_TEST

START_TEST(defaults_are_of_the_rules_below)
{
    struct rule_options given = rule_defaults;
    given.life = 5000;
    said[0] = '\0';
    config_init(&config, &given, hear, NULL);
    ck_assert_int_eq(config_line(&config, "x", "a 1 b 2"), 0);
    ck_assert_int_eq(config_line(&config, "x", "default [idle=1,mode=600]"), 0);
    ck_assert_int_eq(config_line(&config, "x", "default [half=3] # more"), 0);
    ck_assert_int_eq(config_line(&config, "x", "a 2 b 2"), 0);
    ck_assert_int_eq(config_line(&config, "x", "a 3 b 2 [idle=2,life=none]"), 0);
    ck_assert_int_eq(config_line(&config, "x", "unix:/a - b 2"), 0);
    ck_assert_int_eq(config_line(&config, "x", "default [idle=7,half=x]"), -1); /* all or nothing */
    ck_assert_int_eq(config_line(&config, "x", "a 4 b 2"), 0);
    ck_assert_str_eq(rules(), "a 1 > b 2 life=5000\n"
                              "a 2 > b 2 idle=1000 half=3000 life=5000 mode=600\n"
                              "a 3 > b 2 idle=2000 half=3000 mode=600\n"
                              "unix:/a - > b 2 idle=1000 half=3000 life=5000 mode=600\n"
                              "a 4 > b 2 idle=1000 half=3000 life=5000 mode=600");
    finish("x: not a duration (500ms, 10s, 5m, 1h, 1d or none; 30d at most): half=x\n");
}
END_TEST

static void add_options(TCase *tests)
{
    tcase_add_test(tests, options_are_what_the_header_says_unless_set);
    tcase_add_test(tests, good_values_are_set);
    tcase_add_test(tests, bad_values_change_nothing);
    tcase_add_test(tests, keepalive_keeps_what_it_does_not_name);
    tcase_add_test(tests, the_names_of_options_are_those_that_can_be_set);
    tcase_add_test(tests, defaults_are_of_the_rules_below);
}

int main(void)
{
    return run_suite("config", add_lines, add_options, add_access, add_files, add_memory, NULL);
}
