/* test_config.c: lines and files of rules: what good ones give, what is said of bad ones, to the letter. */
/* engine-independent */
#include "config.h"
#include "support.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

static struct config config;
static char said[1 << 20]; /* the faults, a line each */

static void hear(void *arg, const char *message)
{
    (void)arg;
    must(strpbrk(message, "\n\r") == NULL);
    size_t used = strlen(said);
    must(used + strlen(message) + 2 < sizeof said);
    sprintf(said + used, "%s\n", message);
}

static void start(void)
{
    said[0] = '\0';
    config_init(&config, NULL, hear, NULL);
}

/* Compares what was said, and counted, and forgets it. */
static void finish(const char *faults)
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
    must(vsnprintf(description + used, sizeof description - used, format, arguments) < (int)(sizeof description - used));
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

/* "bind port > host port, host port option=value", a line each. */
static const char *rules(void)
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

static void add_lines(TCase *tests)
{
    tcase_add_test(tests, good_rules_give_what_they_say);
    tcase_add_test(tests, rules_are_named_by_where_they_listen);
    tcase_add_test(tests, each_bad_line_is_told_why);
}

int main(void)
{
    return run_suite("config", add_lines, NULL);
}
