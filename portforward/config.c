/* config.c: lines. The first word of a line says what it is; anything else than a directive is a rule. A line is copied
 * and taken apart in place: a word ends at a blank, a comment begins where a word could and goes to the end.
 *
 * A fault is told and counted, and the line that has it changes nothing. */
#include "config_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char no_memory[] = "no memory";

/* -- Text -- */

char *printable(char *text, size_t size, const char *from)
{
    static const char dots[] = "...";
    size_t used = 0;

    for (; *from; from++) {
        bool plain = *from >= ' ' && *from <= '~';

        if (used + (plain ? 1 : 4) + sizeof(dots) > size) { /* there is always room for the dots */
            memcpy(text + used, dots, sizeof(dots));
            return text;
        }
        if (plain)
            text[used++] = *from;
        else
            used += (size_t)snprintf(text + used, size - used, "\\x%02x", (unsigned char)*from);
    }
    text[used] = '\0';
    return text;
}

bool config_fault(struct config *config, const char *where, const char *reason, const char *word)
{
    char at[LINE_MAX_BYTES], shown[PRINTABLE_WORD] = "", message[3 * LINE_MAX_BYTES];

    config->faults++;
    if (!config->fault)
        return false;
    printable(at, sizeof(at), where);
    if (word)
        printable(shown, sizeof(shown), word);
    snprintf(message, sizeof(message), "%s: %s%s%s", at, reason, *shown ? ": " : "", shown);
    config->fault(config->arg, message);
    return false;
}

char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \t"), *end = word + strcspn(word, " \t");

    if (!*word || *word == '#') {
        *line = word;
        return NULL;
    }
    *line = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

/* -- Directives: each is given the rest of its line -- */

/* The one word that there must be; NULL: told. */
static char *only_word(struct config *config, const char *where, const char *directive, char *rest)
{
    char *word = next_word(&rest), *more = word ? next_word(&rest) : NULL;

    if (!word)
        config_fault(config, where, "a word is missing after", directive);
    if (more)
        config_fault(config, where, "unexpected", more);
    return more ? NULL : word;
}

static bool read_access(struct config *config, const char *where, const char *directive, char *rest)
{
    struct access_list *list = config->rule_count ? &config->rules[config->rule_count - 1].access : &config->access;
    char *pattern = only_word(config, where, directive, rest);
    int r = pattern ? access_add(list, *directive == 'a', pattern) : 0;

    if (r == -EINVAL)
        return config_fault(config, where, "not an address, block (192.0.2.0/24) or pattern of IPv4 (192.0.2.*)",
                            pattern);
    if (r == -E2BIG)
        return config_fault(config, where, "more than 65536 addresses in one list", pattern);
    return (pattern && r == 0) || (r < 0 && config_fault(config, where, no_memory, NULL));
}

static bool read_default(struct config *config, const char *where, char *rest)
{
    struct rule_options options = config->defaults;
    char *list = rest + strspn(rest, " \t");

    if (*list != '[')
        return config_fault(config, where, "options in brackets are missing after", "default");
    if (!config_options(config, where, &options, list))
        return false;
    if (strcmp(options.name, config->defaults.name) != 0)
        return config_fault(config, where, "a name is of one rule only", options.name);
    config->defaults = options;
    return true;
}

static bool read_file_name(struct config *config, const char *where, const char *directive, char *rest, char **name)
{
    char *word = only_word(config, where, directive, rest);

    if (!word)
        return false;
    if (*word == '"')
        return config_fault(config, where, "names of files are not quoted", word);
    if (*name)
        return config_fault(config, where, "said before", directive);
    *name = strdup(word);
    return *name || config_fault(config, where, no_memory, NULL);
}

static bool read_include(struct config *config, const struct source *source, const char *where, char *rest)
{
    char *pattern = only_word(config, where, "include", rest);

    return pattern && config_include(config, source, where, pattern);
}

/* -- Rules -- */

static bool read_rule(struct config *config, const char *where, char *first, char *rest)
{
    char *words[4] = {first}, *list, *word;

    for (int i = 1; i < 4; i++) {
        words[i] = next_word(&rest);
        if (!words[i])
            return config_fault(config, where, "neither a directive nor a rule, BIND PORT REMOTE PORT [OPTIONS]",
                                first);
    }
    list = rest + strspn(rest, " \t");
    if (*list == '[')
        return config_add_rule(config, where, words, list);
    word = next_word(&rest);
    return word ? config_fault(config, where, "unexpected", word) : config_add_rule(config, where, words, NULL);
}

bool config_read_line(struct config *config, const struct source *source, const char *where, char *line)
{
    char *word = next_word(&line);

    if (!word)
        return true;
    if (strcmp(word, "allow") == 0 || strcmp(word, "deny") == 0)
        return read_access(config, where, word, line);
    if (strcmp(word, "default") == 0)
        return read_default(config, where, line);
    if (strcmp(word, "include") == 0)
        return read_include(config, source, where, line);
    if (strcmp(word, "logfile") == 0)
        return read_file_name(config, where, word, line, &config->log_file);
    if (strcmp(word, "pidlogfile") == 0)
        return read_file_name(config, where, word, line, &config->pid_file);
    if (strcmp(word, "logcommon") == 0)
        return config_fault(config, where, "there is no common log format", word);
    return read_rule(config, where, word, line);
}

/* -- What others call -- */

void config_init(struct config *config, const struct rule_options *defaults, void (*fault)(void *, const char *),
                 void *arg)
{
    *config = (struct config){.defaults = defaults ? *defaults : rule_defaults, .fault = fault, .arg = arg};
}

void config_free(struct config *config)
{
    for (unsigned i = 0; i < config->rule_count; i++)
        rule_config_free(&config->rules[i]);
    free(config->rules);
    access_free(&config->access);
    free(config->log_file);
    free(config->pid_file);
    *config = (struct config){0};
}

int config_line(struct config *config, const char *where, const char *line)
{
    char copy[LINE_MAX_BYTES + 1];
    size_t length = strnlen(line, sizeof(copy));

    if (length >= sizeof(copy)) {
        config_fault(config, where, "longer than 4096 bytes", NULL);
        return -1;
    }
    memcpy(copy, line, length + 1);
    return config_read_line(config, NULL, where, copy) ? 0 : -1;
}

int config_rule(struct config *config, const char *where, const char *bind_host, const char *bind_port,
                const char *remote_host, const char *remote_port)
{
    const char *parts[4] = {bind_host, bind_port, remote_host, remote_port};
    char *words[4] = {NULL};
    bool good = true;

    for (int i = 0; i < 4; i++) {
        words[i] = strdup(parts[i]);
        good = good && words[i];
    }
    good = good ? config_add_rule(config, where, words, NULL) : config_fault(config, where, no_memory, NULL);
    for (int i = 0; i < 4; i++)
        free(words[i]);
    return good ? 0 : -1;
}
