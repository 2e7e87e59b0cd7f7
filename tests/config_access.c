/* config_access.c: who may connect. A part of test_config.c. */
#include "config_test.h"
#include <arpa/inet.h>
#include <sys/un.h>

/* Entries as words: "+PATTERN" allows, "-PATTERN" denies. */
static void fill(struct access_list *list, const char *entries)
{
    char text[256], *rest = text;
    *list = (struct access_list){0};
    snprintf(text, sizeof text, "%s", entries);
    for (char *word; (word = strsep(&rest, " ")) != NULL;)
        if (*word != '\0')
            ck_assert_int_eq(access_add(list, *word == '+', word + 1), 0);
}

static bool permits(const char *all, const char *rule, const char *client)
{
    struct sockaddr_storage address;
    struct access_list lists[2];
    socklen_t length;
    fill(&lists[0], all);
    fill(&lists[1], rule);
    ck_assert_int_eq(asyncore_parse_address(client, "1234", &address, &length), 0);
    bool permitted = access_permits(&lists[0], &lists[1], (struct sockaddr *)&address);
    access_free(&lists[0]);
    access_free(&lists[1]);
    return permitted;
}

/* That the pattern, alone, matches the client: whether allowed or denied. */
static bool pattern_matches(const char *pattern, const char *client)
{
    char allow[128], deny[128];
    snprintf(allow, sizeof allow, "+%s", pattern);
    snprintf(deny, sizeof deny, "-%s", pattern);
    bool matches = permits(allow, "", client);
    ck_assert_int_eq(permits("", allow, client), matches);
    ck_assert_int_eq(permits(deny, "", client), !matches);
    ck_assert_int_eq(permits("", deny, client), !matches);
    return matches;
}

static const struct {
    const char *pattern, *clients, *others; /* those that it matches, those that it does not */
} patterns[] = {
    {"192.0.2.7", "192.0.2.7 ::ffff:192.0.2.7", "192.0.2.6 192.0.2.70 ::192.0.2.7 ::1"},
    {"192.0.2.0/24", "192.0.2.0 192.0.2.255 ::ffff:192.0.2.9", "192.0.3.0 192.0.1.255 ::ffff:192.0.3.0"},
    {"192.0.2.77/24", "192.0.2.0 192.0.2.255", "192.0.3.0"}, /* what is behind the block's bits does not count */
    {"192.0.2.8/29", "192.0.2.8 192.0.2.15", "192.0.2.7 192.0.2.16"},
    {"192.0.2.9/31", "192.0.2.8 192.0.2.9", "192.0.2.7 192.0.2.10"},
    {"192.0.2.9/32", "192.0.2.9", "192.0.2.8"},
    {"128.0.0.0/1", "128.0.0.0 255.255.255.255 ::ffff:200.0.0.1", "127.255.255.255 8000::1"},
    {"0.0.0.0/0", "0.0.0.0 1.2.3.4 ::ffff:1.2.3.4", ":: ::1 2001:db8::1"},
    {"1.2.3.4/0", "0.0.0.0 255.255.255.255", "::1"},
    {"2001:db8::/32", "2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9:: 2001:db7:ffff:: 1.2.3.4"},
    {"2001:db8::8/125", "2001:db8::8 2001:db8::f", "2001:db8::7 2001:db8::10"},
    {"2001:db8:8000::/33", "2001:db8:8000:: 2001:db8:ffff::", "2001:db8:7fff:: 2001:db9:8000::"},
    {"2001:DB8::1", "2001:db8::1", "2001:db8::2"},
    {"::/0", ":: 2001:db8::1", "1.2.3.4 ::ffff:1.2.3.4"},
    {"::ffff:192.0.2.0/120", "192.0.2.9 ::ffff:192.0.2.9", "192.0.3.9 ::ffff:192.0.3.9"},
    {"::ffff:192.0.2.9", "192.0.2.9 ::ffff:192.0.2.9", "192.0.2.8"},
    {"::ffff:0:0/96", "1.2.3.4 ::ffff:1.2.3.4", "::1"},
    {"::ffff:0:0/95", "::fffe:1.2.3.4", "1.2.3.4 ::ffff:1.2.3.4"}, /* of IPv6, whose mapped part IPv4 clients left */
    {"192.0.2.*", "192.0.2.1 192.0.2.255 ::ffff:192.0.2.1", "192.0.3.1 ::1"},
    {"192.168.*", "192.168.1.1", "192.16.8.1"},
    {"192.0.2.1?", "192.0.2.10 192.0.2.19", "192.0.2.1 192.0.2.100 192.0.2.20"},
    {"10.?.0.1", "10.5.0.1", "10.55.0.1"},
    {"*.1", "10.0.0.1 1.1.1.1", "10.0.0.11 10.0.0.12"},
    {"*1*2*3", "1.2.0.3 21.12.0.33", "1.2.3.4 3.2.1.0"},
    {"1*1*1", "1.0.1.1 11.0.0.1 1.1.1.1", "11.0.0.12"}, /* the star takes back what it gave */
    {"*", "1.2.3.4 ::ffff:1.2.3.4 ::1 2001:db8::1", ""},
    {"***", "1.2.3.4 ::1", ""},
    {"*.*", "1.2.3.4", "::1"},
    {"?*", "1.2.3.4", "::1"},
    {"???????", "1.2.3.4", "1.2.3.44 ::1"},
    {"255.255.255.25?", "255.255.255.255", "255.255.255.25"},
    {"*255.*255.*255.*255*", "255.255.255.255", "255.255.255.254"},
};

static void each(const char *pattern, const char *clients, bool expected)
{
    char text[256], *rest = text;
    snprintf(text, sizeof text, "%s", clients);
    for (char *client; (client = strsep(&rest, " ")) != NULL;)
        if (*client != '\0')
            ck_assert_msg(pattern_matches(pattern, client) == expected, "%s: %s", pattern, client);
}

START_TEST(patterns_match_whom_they_should)
{
    for (size_t i = 0; i < COUNT(patterns); i++) {
        each(patterns[i].pattern, patterns[i].clients, true);
        each(patterns[i].pattern, patterns[i].others, false);
    }
}
END_TEST

START_TEST(what_is_no_pattern_is_refused)
{
    static const char *const bad[] = {
        "", "/", "/24", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1",
        "1.2.3.4/+1", "1.2.3.4/ 8", "1.2.3.4/8x", "1.2.3.4/8/8", "1.2.3.4/0008", "1.2.3.4/4294967304", "::1/129",
        "1.2.3.*/24", "fe80:*", "[::1]", "::1%lo", "fe80::1%1/64", "host", "host*", "unix:/a", "1.2.3.4 ", "*x",
        "************************", "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000/1", "all",
    };
    struct access_list list = {0};
    for (size_t i = 0; i < COUNT(bad); i++)
        ck_assert_msg(access_add(&list, true, bad[i]) == -EINVAL, "%s was taken", bad[i]);
    ck_assert_uint_eq(list.count, 0);
    ck_assert_ptr_null(list.entries);
}
END_TEST

START_TEST(deny_wins_and_an_allow_is_required_if_there_is_any)
{
    static const struct {
        const char *all, *rule, *client;
        bool permitted;
    } table[] = {
        {"", "", "1.2.3.4", true},
        {"+1.2.3.4", "", "1.2.3.5", false},
        {"-1.2.3.4", "", "1.2.3.5", true},
        {"+1.2.3.* -1.2.3.4", "", "1.2.3.4", false},
        {"-1.2.3.4 +1.2.3.*", "", "1.2.3.4", false},
        {"+1.2.3.* -1.2.3.4", "", "1.2.3.5", true},
        {"+1.2.3.*", "-1.2.3.4", "1.2.3.4", false},
        {"-1.2.3.4", "+1.2.3.*", "1.2.3.4", false},
        {"-1.2.3.4", "+1.2.3.*", "1.2.4.4", false},
        {"+1.2.3.4", "+1.2.3.5", "1.2.3.4", true}, /* both lists count as one */
        {"+1.2.3.4", "+1.2.3.5", "1.2.3.5", true},
        {"+1.2.3.4", "+1.2.3.5", "1.2.3.6", false},
        {"+1.2.3.4 +1.2.3.4 -*", "", "1.2.3.4", false},
        {"+0.0.0.0/0", "", "::1", false},
        {"-0.0.0.0/0", "", "::1", true},
        {"-0.0.0.0/0", "", "::ffff:1.2.3.4", false},
        {"+::/0", "", "::ffff:1.2.3.4", false},
        {"-*", "", "::1", false},
        {"-*", "+*", "unix:/a", true},
        {"+1.2.3.4", "", "unix:@a", true},
    };
    for (size_t i = 0; i < COUNT(table); i++)
        ck_assert_msg(permits(table[i].all, table[i].rule, table[i].client) == table[i].permitted,
                      "all \"%s\", rule \"%s\", client %s", table[i].all, table[i].rule, table[i].client);
}
END_TEST

START_TEST(a_client_without_an_address_at_all_is_let_in)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct access_list deny, empty = {0};
    fill(&deny, "-*");
    ck_assert(access_permits(&deny, &empty, (struct sockaddr *)&un));
    ck_assert(access_permits(&deny, &empty, &none));
    access_free(&deny);
}
END_TEST

START_TEST(lists_hold_65536_and_no_more)
{
    struct sockaddr_in client = {.sin_family = AF_INET};
    struct access_list list = {0}, copy, empty = {0};
    char pattern[32];
    for (unsigned i = 0; i < ACCESS_MAX; i++) {
        snprintf(pattern, sizeof pattern, "10.0.%u.%u", i >> 8, i & 255);
        must(access_add(&list, false, pattern) == 0);
    }
    ck_assert_int_eq(access_add(&list, false, "10.1.0.0"), -E2BIG);
    ck_assert_int_eq(access_add(&list, false, "nonsense"), -EINVAL);
    ck_assert_uint_eq(list.count, ACCESS_MAX);
    ck_assert_int_eq(access_copy(&copy, &list), 0);
    access_free(&list);
    ck_assert_uint_eq(list.count, 0);
    inet_pton(AF_INET, "10.0.255.255", &client.sin_addr);
    ck_assert(!access_permits(&empty, &copy, (struct sockaddr *)&client));
    inet_pton(AF_INET, "10.1.0.0", &client.sin_addr);
    ck_assert(access_permits(&copy, &empty, (struct sockaddr *)&client));
    access_free(&copy);
}
END_TEST

/* A copy grows on its own: both lists have room as their counts say. */
START_TEST(a_copy_can_be_added_to)
{
    struct access_list list = {0}, copy;
    for (unsigned n = 0; n <= 17; n++) {
        ck_assert_int_eq(access_copy(&copy, &list), 0);
        ck_assert_uint_eq(copy.count, n);
        for (unsigned i = 0; i < 20; i++)
            ck_assert_int_eq(access_add(&copy, true, "192.0.2.*"), 0);
        ck_assert_uint_eq(list.count, n);
        access_free(&copy);
        ck_assert_int_eq(access_add(&list, false, "192.0.2.1"), 0);
    }
    access_free(&list);
}
END_TEST

START_TEST(access_lines_belong_to_the_rule_above)
{
    static const char *const lines[] = {"allow 10.0.0.0/8", "deny 10.0.0.1", "a 1 b 2", "deny 10.0.0.2",
                                        "a 3 b 4",          "a 5 b 6",       "allow *", "deny 10.0.0.3 # him"};
    start();
    for (size_t i = 0; i < COUNT(lines); i++)
        ck_assert_int_eq(config_line(&config, "x", lines[i]), 0);
    ck_assert_uint_eq(config.access.count, 2);
    ck_assert_uint_eq(config.rules[0].access.count, 1);
    ck_assert_uint_eq(config.rules[1].access.count, 0);
    ck_assert_uint_eq(config.rules[2].access.count, 2);
    finish("");
}
END_TEST

START_TEST(too_many_access_lines_are_told)
{
    start();
    for (unsigned i = 0; i < ACCESS_MAX; i++)
        must(config_line(&config, "x", "deny 192.0.2.1") == 0);
    ck_assert_int_eq(config_line(&config, "x", "deny 192.0.2.2"), -1);
    ck_assert_int_eq(config_line(&config, "x", "a 1 b 2"), 0);
    ck_assert_int_eq(config_line(&config, "x", "deny 192.0.2.2"), 0); /* another list */
    finish("x: more than 65536 addresses in one list: 192.0.2.2\n");
}
END_TEST

void add_access(TCase *tests)
{
    tcase_add_test(tests, patterns_match_whom_they_should);
    tcase_add_test(tests, what_is_no_pattern_is_refused);
    tcase_add_test(tests, deny_wins_and_an_allow_is_required_if_there_is_any);
    tcase_add_test(tests, a_client_without_an_address_at_all_is_let_in);
    tcase_add_test(tests, lists_hold_65536_and_no_more);
    tcase_add_test(tests, a_copy_can_be_added_to);
    tcase_add_test(tests, access_lines_belong_to_the_rule_above);
    tcase_add_test(tests, too_many_access_lines_are_told);
}
