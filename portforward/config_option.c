/* config_option.c: the options of rules: NAME=VALUE by a table of names, each with its place in struct rule_options
 * and a function that reads its value. Such a function changes nothing unless the value is right. */
#include "config_parts.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
    COUNT_MAX = 10000000,
    BACKLOG_MAX = 65535,
    KEEPALIVE_MAX = 32767, /* s; tcp(7) */
    PROBES_MAX = 127,
};

const struct rule_options rule_defaults = {
    .connect = 10 * 1000,
    .idle = 3600 * 1000,
    .half = 60 * 1000,
    .keepalive = {.idle = 60, .interval = 10, .probes = 5},
    .data_path = DATA_PATH_AUTO,
    .backlog = SOMAXCONN,
    .mode = -1,
};

/* -- Values -- */

/* The number that the text begins with; NULL if it begins with none, or with one past `most`. */
static const char *read_number(const char *text, uint64_t most, uint64_t *number)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t value = 0;

    for (size_t i = 0; i < digits; i++) {
        value = value * 10 + (uint64_t)(text[i] - '0');
        if (value > most)
            return NULL;
    }
    *number = value;
    return digits ? text + digits : NULL;
}

static bool is_none(const char *value)
{
    return strcmp(value, "off") == 0 || strcmp(value, "none") == 0;
}

static bool read_duration(const char *text, uint64_t *ms)
{
    static const struct {
        const char *name;
        unsigned ms;
    } units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 86400 * 1000}};
    const uint64_t most = (uint64_t)DURATION_MAX * 1000;
    uint64_t number;
    const char *unit = read_number(text, most, &number);

    for (size_t i = 0; unit && i < sizeof(units) / sizeof(*units); i++)
        if (strcmp(unit, units[i].name) == 0 && number * units[i].ms <= most) {
            *ms = number * units[i].ms;
            return true;
        }
    return false;
}

static const char *set_duration(void *field, const char *value)
{
    uint64_t ms = 0;

    if (!is_none(value) && !read_duration(value, &ms))
        return "not a duration (500ms, 10s, 5m, 1h, 1d or none; 30d at most)";
    *(unsigned *)field = (unsigned)ms;
    return NULL;
}

static const char *set_count(void *field, const char *value)
{
    uint64_t count = 0;
    const char *end = is_none(value) ? "" : read_number(value, COUNT_MAX, &count);

    if (!end || *end)
        return "not a count (10000000 at most, or none)";
    *(unsigned *)field = (unsigned)count;
    return NULL;
}

static const char *set_backlog(void *field, const char *value)
{
    uint64_t backlog = 0;
    const char *end = read_number(value, BACKLOG_MAX, &backlog);

    if (!end || *end || backlog == 0)
        return "not a number from 1 to 65535";
    *(unsigned *)field = (unsigned)backlog;
    return NULL;
}

/* Seconds, as the kernel wants them. */
static bool read_seconds(const char *text, unsigned *seconds)
{
    uint64_t ms;

    if (!read_duration(text, &ms) || ms == 0 || ms % 1000 || ms / 1000 > KEEPALIVE_MAX)
        return false;
    *seconds = (unsigned)(ms / 1000);
    return true;
}

static bool read_keepalive(struct keepalive *keepalive, char *value)
{
    char *interval = strchr(value, '/'), *probes = interval ? strchr(interval + 1, '/') : NULL;
    uint64_t count;
    const char *end;

    if (interval)
        *interval++ = '\0';
    if (probes) {
        *probes++ = '\0';
        end = read_number(probes, PROBES_MAX, &count);
        if (!end || *end || count == 0)
            return false;
        keepalive->probes = (unsigned)count;
    }
    return read_seconds(value, &keepalive->idle) && (!interval || read_seconds(interval, &keepalive->interval));
}

static const char *set_keepalive(void *field, const char *value)
{
    struct keepalive keepalive = *(struct keepalive *)field;
    char copy[64];

    if (is_none(value) || strcmp(value, "0") == 0)
        keepalive.idle = 0;
    else if (strcmp(value, "on") == 0)
        keepalive = rule_defaults.keepalive;
    else if ((size_t)snprintf(copy, sizeof(copy), "%s", value) >= sizeof(copy) || !read_keepalive(&keepalive, copy))
        return "not IDLE[/INTERVAL[/PROBES]] (whole seconds to 32767, 1 to 127 probes) or off";
    *(struct keepalive *)field = keepalive;
    return NULL;
}

static const char *set_name(void *field, const char *value)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(value);

    if (strspn(value, good) != length)
        return "a name is letters, digits, dots, _ and -";
    if (length >= RULE_NAME_SIZE)
        return "a name has 63 characters at most";
    memcpy(field, value, length + 1);
    return NULL;
}

static const char *set_src(void *field, const char *value)
{
    char text[ADDRESS_TEXT];

    if (!numeric_host(value, text) || strlen(text) >= sizeof(((struct rule_options *)NULL)->src))
        return "not a numeric address";
    memcpy(field, text, strlen(text) + 1);
    return NULL;
}

static const char *set_full(void *field, const char *value)
{
    if (strcmp(value, "pause") != 0 && strcmp(value, "refuse") != 0)
        return "not pause or refuse";
    *(bool *)field = *value == 'r';
    return NULL;
}

static const char *set_data_path(void *field, const char *value)
{
    static const char *const names[] = {
        [DATA_PATH_AUTO] = "auto", [DATA_PATH_COPY] = "copy", [DATA_PATH_SPLICE] = "splice"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(value, names[i]) == 0) {
            *(enum data_path *)field = (enum data_path)i;
            return NULL;
        }
    return "not auto, copy or splice";
}

static const char *set_mode(void *field, const char *value)
{
    size_t digits = strspn(value, "01234567");
    unsigned long mode = strtoul(value, NULL, 8);

    if (digits < 1 || digits > 5 || value[digits] || mode > 0777)
        return "not an octal mode from 0 to 0777";
    *(int *)field = (int)mode;
    return NULL;
}

/* -- Names -- */

#define FIELD(field) offsetof(struct rule_options, field)

static const struct known_option {
    const char *name;
    size_t offset;
    const char *(*set)(void *field, const char *value); /* NULL, or why not */
} table[] = {
    {"name", FIELD(name), set_name},
    {"connect", FIELD(connect), set_duration},
    {"idle", FIELD(idle), set_duration},
    {"half", FIELD(half), set_duration},
    {"life", FIELD(life), set_duration},
    {"keepalive", FIELD(keepalive), set_keepalive},
    {"max", FIELD(max), set_count},
    {"max-per-source", FIELD(max_per_source), set_count},
    {"rate", FIELD(rate), set_count},
    {"full", FIELD(refuse), set_full},
    {"data-path", FIELD(data_path), set_data_path},
    {"src", FIELD(src), set_src},
    {"backlog", FIELD(backlog), set_backlog},
    {"mode", FIELD(mode), set_mode},
    {"timeout", FIELD(idle), set_duration}, /* rinetd's name */
};

enum { OPTIONS = sizeof(table) / sizeof(*table) };

static const struct known_option *option_named(const char *name)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

const char *rule_option_name(unsigned index)
{
    return index < OPTIONS ? table[index].name : NULL;
}

const char *rule_option_set(struct rule_options *options, const char *name, const char *value)
{
    const struct known_option *option = option_named(name);

    if (!option)
        return "no such option";
    if (!*value)
        return "a value is missing";
    return option->set((char *)options + option->offset, value);
}

/* -- Lists -- */

static char *trim(char *text)
{
    size_t length;

    text += strspn(text, " \t");
    for (length = strlen(text); length > 0 && strchr(" \t", text[length - 1]); length--)
        text[length - 1] = '\0';
    return text;
}

/* Two names of one field are one option: `set` has a bit for each that the list had. */
static const char *set_once(struct rule_options *options, uint64_t *set, const char *name, const char *value)
{
    const char *reason = rule_option_set(options, name, value);
    size_t first = 0;

    if (reason)
        return reason;
    while (table[first].offset != option_named(name)->offset)
        first++;
    if (*set & UINT64_C(1) << first)
        return "given twice in one list";
    *set |= UINT64_C(1) << first;
    return NULL;
}

static bool read_option(struct config *config, const char *where, struct rule_options *options, uint64_t *set,
                        char *text)
{
    char word[PRINTABLE_WORD];
    char *equals, *name = trim(text);
    const char *value, *reason;

    printable(word, sizeof(word), name);
    equals = strchr(name, '=');
    if (!equals)
        return config_fault(config, where, "not NAME=VALUE", word);
    *equals = '\0';
    name = trim(name);
    value = trim(equals + 1);
    reason = set_once(options, set, name, value);
    return !reason || config_fault(config, where, reason, word);
}

bool config_options(struct config *config, const char *where, struct rule_options *options, char *list)
{
    char *end = strchr(list, ']'), *rest = end ? end + 1 : NULL, *word;
    uint64_t set = 0;
    bool good = true;

    if (!end)
        return config_fault(config, where, "] is missing", list);
    *end = '\0';
    for (char *option = list + 1, *next; option; option = next) {
        next = strchr(option, ',');
        if (next)
            *next++ = '\0';
        good &= read_option(config, where, options, &set, option);
    }
    word = next_word(&rest);
    return word ? config_fault(config, where, "unexpected after the options", word) : good;
}
