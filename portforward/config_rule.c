/* config_rule.c: BIND PORT REMOTE{,REMOTE} PORT, taken apart and looked at. Each word is looked at even if one before
 * it was wrong, so that a line's faults are all told.
 *
 * What is kept is written in one way: addresses as inet_ntop(3) writes them and without brackets, names in small
 * letters, ports without leading zeros. So two rules listen at one place if and only if the texts are the same, but for
 * "*", which is both 0.0.0.0 and ::. */
#include "config_parts.h"

#include <arpa/inet.h>
#include <asyncore.h>
#include <ctype.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

enum { HOST_MAX = 253, LABEL_MAX = 63 };

static bool is_unix(const char *host)
{
    return strncmp(host, "unix:", 5) == 0;
}

/* -- Hosts -- */

/* What is between the brackets of "[...]", which only IPv6 addresses have; other text as it is. */
static bool without_brackets(const char *host, char *text)
{
    size_t length = strlen(host);
    bool brackets = length > 2 && *host == '[' && host[length - 1] == ']';

    if (brackets) {
        host++;
        length -= 2;
    }
    if (length >= ADDRESS_TEXT)
        return false;
    memcpy(text, host, length);
    text[length] = '\0';
    return !brackets || strchr(text, ':');
}

bool numeric_host(const char *host, char text[ADDRESS_TEXT])
{
    struct sockaddr_storage address;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
    char plain[ADDRESS_TEXT], zone[IF_NAMESIZE + 1] = "";
    const char *percent;
    socklen_t length;

    if (!without_brackets(host, plain) || !*plain || strcmp(plain, "*") == 0 || is_unix(plain) ||
        asyncore_parse_address(plain, "0", &address, &length) < 0)
        return false;
    if (address.ss_family == AF_INET)
        return inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, text, ADDRESS_TEXT);
    percent = strchr(plain, '%');
    if (percent)
        snprintf(zone, sizeof(zone), "%s", percent);
    return inet_ntop(AF_INET6, &in6->sin6_addr, text, ADDRESS_TEXT - sizeof(zone)) && strcat(text, zone);
}

/* Letters, digits, - and _ between dots; one whose last label is a number would be an address. */
static const char *name_fault(const char *host)
{
    static const char not_one[] = "not an address or a name";
    const char *label = host, *last = host;

    if (strlen(host) > HOST_MAX)
        return "a name has 253 characters at most";
    for (; *label; label += *label == '.') {
        size_t length = strcspn(label, ".");

        if (length == 0 || length > LABEL_MAX || *label == '-')
            return not_one;
        last = label;
        for (; *label && *label != '.'; label++)
            if (!isalnum((unsigned char)*label) && *label != '-' && *label != '_')
                return not_one;
    }
    last += strspn(last, "0123456789");
    return *last == '\0' || *last == '.' ? not_one : NULL;
}

static const char *unix_fault(const char *host)
{
    const char *path = host + 5;
    size_t size = sizeof(((struct sockaddr_un *)NULL)->sun_path);

    if ((*path != '/' && *path != '@') || !path[1])
        return "a Unix socket is unix:/path or unix:@name";
    for (const char *p = path; *p; p++)
        if (iscntrl((unsigned char)*p))
            return "a control character in the path";
    if (strlen(path) > (*path == '@' ? size : size - 1))
        return "the name of the socket is too long (107 bytes at most)";
    return NULL;
}

/* The host as it is kept, or NULL and why. */
static char *host_kept(const char *host, bool binds, const char **reason)
{
    char text[ADDRESS_TEXT], *copy;

    *reason = NULL;
    if (!*host)
        *reason = "an address is empty";
    else if (is_unix(host))
        *reason = unix_fault(host);
    else if (numeric_host(host, text))
        host = text;
    else if (!binds || strcmp(host, "*") != 0)
        *reason = name_fault(host);
    if (*reason)
        return NULL;
    copy = strdup(host);
    if (!copy)
        *reason = no_memory;
    else if (!is_unix(copy))
        for (char *p = copy; *p && *p != '%'; p++)
            *p = (char)tolower((unsigned char)*p);
    return copy;
}

/* -- Ports -- */

static const char *number_fault(const char *port, unsigned lowest)
{
    const char *protocol = strchr(port, '/');
    size_t digits = strspn(port, "0123456789");
    unsigned long number = strtoul(port, NULL, 10);

    if (protocol && strcasecmp(protocol, "/udp") == 0)
        return "udp is not supported";
    if (protocol && strcasecmp(protocol, "/tcp") != 0)
        return "no such protocol: tcp is all there is";
    if (digits == 0 || (port[digits] && port + digits != protocol) || number < lowest || number > 65535)
        return lowest ? "not a port from 1 to 65535" : "not a port from 0 to 65535";
    return NULL;
}

static bool check_port(struct config *config, const char *where, const char *port, bool unix_socket, unsigned lowest)
{
    const char *reason = NULL;

    if (!unix_socket)
        reason = number_fault(port, lowest);
    else if (strcmp(port, "-") != 0)
        reason = "a Unix socket has no port but -";
    return !reason || config_fault(config, where, reason, port);
}

/* -- Rules -- */

/* The port was looked at before. */
static bool read_endpoint(struct config *config, const char *where, struct endpoint *endpoint, const char *host,
                          const char *port, bool binds)
{
    char text[8] = "-";
    const char *reason;

    endpoint->host = host_kept(host, binds, &reason);
    if (!endpoint->host)
        return config_fault(config, where, reason, reason == no_memory ? NULL : host);
    if (!is_unix(host))
        snprintf(text, sizeof(text), "%lu", strtoul(port, NULL, 10) & 0xffff);
    endpoint->port = strdup(text);
    return endpoint->port || config_fault(config, where, no_memory, NULL);
}

static unsigned count_hosts(const char *hosts, bool *all_unix)
{
    unsigned count = 1;

    *all_unix = is_unix(hosts);
    for (; (hosts = strchr(hosts, ',')) != NULL; count++)
        *all_unix &= is_unix(++hosts);
    return count;
}

/* A Unix socket among hosts has no use for their port. */
static bool read_remotes(struct config *config, const char *where, struct rule_config *rule, char *hosts,
                         const char *port)
{
    bool all_unix, good;
    unsigned count = count_hosts(hosts, &all_unix);

    good = check_port(config, where, port, all_unix, 1);
    if (count > REMOTES_MAX)
        return config_fault(config, where, "more than 32 remotes", hosts);
    rule->remotes = calloc(count, sizeof(*rule->remotes));
    if (!rule->remotes)
        return config_fault(config, where, no_memory, NULL);
    for (rule->remote_count = 0; rule->remote_count < count; rule->remote_count++)
        good &= read_endpoint(config, where, &rule->remotes[rule->remote_count], strsep(&hosts, ","), port, false);
    return good;
}

static bool same_place(const struct endpoint *a, const struct endpoint *b)
{
    const char *other;

    if (strcmp(a->port, b->port) != 0 || strcmp(a->port, "0") == 0)
        return false;
    other = strcmp(a->host, "*") == 0 ? b->host : strcmp(b->host, "*") == 0 ? a->host : "";
    return strcmp(a->host, b->host) == 0 || strcmp(other, "0.0.0.0") == 0 || strcmp(other, "::") == 0;
}

static bool is_free(struct config *config, const struct rule_config *rule)
{
    char reason[LINE_MAX_BYTES + 64], name[PRINTABLE_WORD];

    for (unsigned i = 0; i < config->rule_count; i++)
        if (same_place(&config->rules[i].bind, &rule->bind)) {
            snprintf(reason, sizeof(reason), "listened on already by %s", config->rules[i].where);
            snprintf(name, sizeof(name), "%s %s", rule->bind.host, rule->bind.port);
            return config_fault(config, rule->where, reason, name);
        }
    return true;
}

/* The array is full whenever the count is a power of two. */
static bool keep(struct config *config, const struct rule_config *rule)
{
    unsigned count = config->rule_count;
    struct rule_config *rules = config->rules;

    if (count >= RULES_MAX)
        return config_fault(config, rule->where, "more than 4096 rules", NULL);
    if ((count & (count - 1)) == 0) {
        rules = realloc(rules, (count ? count * 2 : 1) * sizeof(*rules));
        if (!rules)
            return config_fault(config, rule->where, no_memory, NULL);
        config->rules = rules;
    }
    rules[config->rule_count++] = *rule;
    return true;
}

/* Options that cannot mean anything here; as a default they wait for a rule where they do. */
static bool fits(struct config *config, const struct rule_config *rule)
{
    if (rule->options.mode != config->defaults.mode && strncmp(rule->bind.host, "unix:/", 6) != 0)
        return config_fault(config, rule->where, "mode is of a Unix socket's file", rule->bind.host);
    return true;
}

bool config_add_rule(struct config *config, const char *where, char *words[4], char *list)
{
    char text[LINE_MAX_BYTES];
    struct rule_config rule = {.options = config->defaults};
    bool good;

    rule.where = strdup(printable(text, sizeof(text), where));
    if (!rule.where)
        return config_fault(config, where, no_memory, NULL);
    good = check_port(config, where, words[1], is_unix(words[0]), 0);
    good &= read_endpoint(config, where, &rule.bind, words[0], words[1], true);
    good &= read_remotes(config, where, &rule, words[2], words[3]);
    if (list)
        good &= config_options(config, where, &rule.options, list);
    good = good && fits(config, &rule) && is_free(config, &rule) && keep(config, &rule);
    if (!good)
        rule_config_free(&rule);
    return good;
}

void rule_config_free(struct rule_config *rule)
{
    free(rule->where);
    free(rule->bind.host);
    free(rule->bind.port);
    for (unsigned i = 0; i < rule->remote_count; i++) {
        free(rule->remotes[i].host);
        free(rule->remotes[i].port);
    }
    free(rule->remotes);
    access_free(&rule->access);
}

const char *rule_config_name(const struct rule_config *rule, char *text, unsigned size)
{
    const char *host = rule->bind.host;

    if (*rule->options.name)
        snprintf(text, size, "%s", rule->options.name);
    else if (is_unix(host))
        snprintf(text, size, "%s", host);
    else
        snprintf(text, size, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, rule->bind.port);
    return text;
}
