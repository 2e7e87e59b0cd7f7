/* fuzz_config.c: files of rules for portforward. An even first byte: the rest is files, each up to a byte 0xff, called
 * "0" to "9", the first of which is read; "include" finds the others. An odd one: a pattern of an access line, a newline,
 * a client's address as text, beside a naive reader.
 *
 * What must hold of files: faults are counted, told in one printable line each, and make the reading fail; rules have
 * values within their bounds; and a rule written down again in its longest form is read as the same rule. */
#include "../portforward/config_parts.h"
#include "fuzz.h"
#include <arpa/inet.h>
#include <asyncore.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

/* -- Files that are parts of the input -- */

enum { FILES = 10 };

static struct input files[FILES];
static unsigned file_count;

static int file_open(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    unsigned number = (unsigned)(*name - '0');
    if (number < file_count && name[1] == '\0')
        return (int)number;
    errno = ENOENT;
    return -1;
}

static int file_stat(int number, struct stat *status)
{
    *status = (struct stat){.st_mode = S_IFREG, .st_dev = 1, .st_ino = (ino_t)number};
    return 0;
}

static FILE *file_fdopen(int number)
{
    static char none[] = "";
    struct input *file = &files[number];
    FILE *stream = file->left > 0 ? fmemopen((void *)(uintptr_t)file->at, file->left, "r") : fmemopen(none, 1, "r");
    claim(stream != NULL);
    if (file->left == 0)
        claim(getc(stream) == '\0'); /* it is at its end now */
    return stream;
}

static int file_glob(const char *pattern, glob_t *found)
{
    const char *slash = strrchr(pattern, '/');
    const char *name = slash != NULL ? slash + 1 : pattern;
    char number[2] = "0";
    found->gl_pathc = 0;
    found->gl_pathv = calloc(FILES, sizeof(char *));
    claim(found->gl_pathv != NULL);
    for (unsigned i = 0; i < file_count; i++) {
        number[0] = (char)('0' + i);
        if (fnmatch(name, number, 0) == 0)
            found->gl_pathv[found->gl_pathc++] = strdup(number);
    }
    return found->gl_pathc > 0 ? 0 : GLOB_NOMATCH;
}

static void file_globfree(glob_t *found)
{
    for (size_t i = 0; i < found->gl_pathc; i++)
        free(found->gl_pathv[i]);
    free(found->gl_pathv);
}

#define open(path, flags)                  file_open(path)
#define fstat(fd, status)                  file_stat(fd, status)
#define fdopen(fd, mode)                   file_fdopen(fd)
#define close(fd)                          ((void)(fd))
#define glob(pattern, flags, failed, found) ((void)(failed), file_glob(pattern, found))
#define globfree(found)                    file_globfree(found)
#include "../portforward/config_file.c"
#undef glob

/* -- What must hold -- */

static unsigned told;

static void fault(void *arg, const char *message)
{
    size_t length = strlen(message);
    claim(arg == &told);
    told++;
    claim(strstr(message, ": ") != NULL && length < 2 * LINE_MAX_BYTES + 256);
    for (size_t i = 0; i < length; i++)
        claim(message[i] >= ' ' && message[i] <= '~');
}

static bool is_unix(const char *host)
{
    return strncmp(host, "unix:", 5) == 0;
}

static void check_endpoint(const struct endpoint *endpoint, unsigned lowest)
{
    struct sockaddr_storage address;
    socklen_t length;
    char text[8];
    unsigned long port = strtoul(endpoint->port, NULL, 10);
    claim(*endpoint->host != '\0' && strlen(endpoint->host) <= 253);
    if (is_unix(endpoint->host)) {
        claim(strcmp(endpoint->port, "-") == 0);
        claim(asyncore_parse_address(endpoint->host, "0", &address, &length) == 0);
        return;
    }
    snprintf(text, sizeof text, "%lu", port);
    claim(strcmp(text, endpoint->port) == 0 && port >= lowest && port <= 65535);
    if (strcmp(endpoint->host, "*") == 0)
        claim(lowest == 0);
    else if (asyncore_parse_address(endpoint->host, endpoint->port, &address, &length) < 0)
        for (const char *p = endpoint->host; *p != '\0'; p++)
            claim(strchr("abcdefghijklmnopqrstuvwxyz0123456789.-_", *p) != NULL);
}

static void check_options(const struct rule_options *o)
{
    const unsigned longest = DURATION_MAX * 1000u;
    claim(memchr(o->name, '\0', sizeof o->name) != NULL && memchr(o->src, '\0', sizeof o->src) != NULL);
    claim(o->connect <= longest && o->idle <= longest && o->half <= longest && o->life <= longest);
    claim(o->keepalive.idle <= 32767 && o->keepalive.interval >= 1 && o->keepalive.interval <= 32767);
    claim(o->keepalive.probes >= 1 && o->keepalive.probes <= 127);
    claim(o->max <= 10000000 && o->max_per_source <= 10000000 && o->rate <= 10000000);
    claim(o->data_path <= DATA_PATH_SPLICE && o->backlog >= 1 && o->backlog <= 65535);
    claim(o->mode >= -1 && o->mode <= 0777);
}

/* -- A rule, written down again -- */

static bool has_mode(const struct rule_config *rule)
{
    return rule->options.mode >= 0 && strncmp(rule->bind.host, "unix:/", 6) == 0;
}

static void write_rule(FILE *to, const struct rule_config *rule)
{
    static const char *const paths[] = {"auto", "copy", "splice"};
    const struct rule_options *o = &rule->options;
    const char *port = "-";
    fprintf(to, "%s %s ", rule->bind.host, rule->bind.port);
    for (unsigned i = 0; i < rule->remote_count; i++) {
        fprintf(to, "%s%s", i > 0 ? "," : "", rule->remotes[i].host);
        if (!is_unix(rule->remotes[i].host))
            port = rule->remotes[i].port;
    }
    fprintf(to, " %s [connect=%ums,idle=%ums,half=%ums,life=%ums,", port, o->connect, o->idle, o->half, o->life);
    fprintf(to, "max=%u,max-per-source=%u,rate=%u,full=%s,", o->max, o->max_per_source, o->rate,
            o->refuse ? "refuse" : "pause");
    if (o->keepalive.idle > 0)
        fprintf(to, "keepalive=%u/%us/%u,", o->keepalive.idle, o->keepalive.interval, o->keepalive.probes);
    else
        fprintf(to, "keepalive=off,");
    if (o->name[0] != '\0')
        fprintf(to, "name=%s,", o->name);
    if (o->src[0] != '\0')
        fprintf(to, "src=%s,", o->src);
    if (has_mode(rule))
        fprintf(to, "mode=%04o,", (unsigned)o->mode);
    fprintf(to, "data-path=%s,backlog=%u]", paths[o->data_path], o->backlog);
}

static void check_same_options(const struct rule_options *a, const struct rule_options *b)
{
    claim(strcmp(a->name, b->name) == 0 && strcmp(a->src, b->src) == 0);
    claim(a->connect == b->connect && a->idle == b->idle && a->half == b->half && a->life == b->life);
    claim(a->keepalive.idle == b->keepalive.idle);
    if (a->keepalive.idle > 0)
        claim(memcmp(&a->keepalive, &b->keepalive, sizeof a->keepalive) == 0);
    claim(a->max == b->max && a->max_per_source == b->max_per_source && a->rate == b->rate);
    claim(a->refuse == b->refuse && a->data_path == b->data_path && a->backlog == b->backlog);
}

static void check_same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
    claim(strcmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0);
}

static void check_again(const struct rule_config *rule)
{
    char *line;
    size_t size;
    FILE *to = open_memstream(&line, &size);
    claim(to != NULL);
    write_rule(to, rule);
    fclose(to);
    struct config again;
    config_init(&again, NULL, fault, &told);
    if (size <= LINE_MAX_BYTES) {
        claim(config_line(&again, "again", line) == 0 && again.rule_count == 1);
        const struct rule_config *other = &again.rules[0];
        check_same_endpoint(&rule->bind, &other->bind);
        claim(rule->remote_count == other->remote_count);
        for (unsigned i = 0; i < rule->remote_count; i++)
            check_same_endpoint(&rule->remotes[i], &other->remotes[i]);
        check_same_options(&rule->options, &other->options);
        claim(!has_mode(rule) || rule->options.mode == other->options.mode);
    }
    config_free(&again);
    free(line);
}

static void check_rule(const struct rule_config *rule)
{
    char name[RULE_NAME_SIZE + 128];
    check_endpoint(&rule->bind, 0);
    claim(rule->remote_count >= 1 && rule->remote_count <= REMOTES_MAX);
    for (unsigned i = 0; i < rule->remote_count; i++)
        check_endpoint(&rule->remotes[i], 1);
    check_options(&rule->options);
    claim(strrchr(rule->where, ':') != NULL && atoi(strrchr(rule->where, ':') + 1) > 0);
    claim(*rule_config_name(rule, name, sizeof name) != '\0');
    check_again(rule);
}

static void check_files(struct input in)
{
    struct config config;
    for (file_count = 0; file_count < FILES && (in.left > 0 || file_count == 0); file_count++)
        files[file_count] = take_until(&in, 0xff);
    told = 0;
    config_init(&config, NULL, fault, &told);
    int result = config_read(&config, "0");
    claim(config.faults == told && result == (told > 0 ? -1 : 0));
    claim(config.rule_count <= RULES_MAX && config.access.count <= ACCESS_MAX);
    claim(memcmp(&config.defaults, &rule_defaults, sizeof rule_defaults) == 0);
    for (unsigned i = 0; i < config.rule_count; i++)
        check_rule(&config.rules[i]);
    config_free(&config);
}

/* -- Patterns -- */

static bool naive_glob(const char *glob, const char *text)
{
    if (*glob == '*' && glob[1] == '*') /* which would take for ever */
        return naive_glob(glob + 1, text);
    if (*glob == '*')
        return naive_glob(glob + 1, text) || (*text != '\0' && naive_glob(glob, text + 1));
    if (*glob == '\0' || *text == '\0')
        return *glob == *text;
    return (*glob == '?' || *glob == *text) && naive_glob(glob + 1, text + 1);
}

/* Addresses as 128 bits, those of IPv4 mapped. -1: it is none. */
static int bits_of(const char *text, unsigned char bits[16])
{
    static const unsigned char mapped[12] = {[10] = 0xff, 0xff};
    memcpy(bits, mapped, sizeof mapped);
    if (inet_pton(AF_INET, text, bits + 12) == 1)
        return 32;
    return inet_pton(AF_INET6, text, bits) == 1 ? 128 : -1;
}

static bool is_v4(const unsigned char bits[16])
{
    static const unsigned char mapped[12] = {[10] = 0xff, 0xff};
    return memcmp(bits, mapped, sizeof mapped) == 0;
}

/* 1: the pattern matches, 0: it does not, -1: it is none. */
static int naive_match(char *pattern, const char *client)
{
    unsigned char block[16], address[16];
    char text[INET_ADDRSTRLEN] = "";
    claim(bits_of(client, address) > 0);
    if (is_v4(address))
        inet_ntop(AF_INET, address + 12, text, sizeof text);
    if (strpbrk(pattern, "*?") != NULL)
        return strlen(pattern) > 23 || strspn(pattern, "0123456789.*?") != strlen(pattern) ? -1
                                                                                             : naive_glob(pattern, text);
    char *slash = strchr(pattern, '/');
    if (slash != NULL)
        *slash++ = '\0';
    int most = bits_of(pattern, block), bits = most;
    if (most < 0 || (slash != NULL && (strspn(slash, "0123456789") != strlen(slash) || strlen(slash) > 3 ||
                                       *slash == '\0' || (bits = atoi(slash)) > most)))
        return -1;
    bits += 128 - most;
    bool v4 = is_v4(block) && bits >= 96;
    for (int i = 0; i < bits; i++)
        if (((block[i / 8] ^ address[i / 8]) & 0x80 >> i % 8) != 0)
            return 0;
    return v4 == is_v4(address);
}

static void check_pattern(struct input in)
{
    char *pattern = text_of(take_until(&in, '\n')), *client = text_of(in);
    struct access_list allow = {0}, deny = {0}, none = {0};
    struct sockaddr_storage address = {0};
    bool v4 = inet_pton(AF_INET, client, &((struct sockaddr_in *)&address)->sin_addr) == 1;
    bool v6 = !v4 && inet_pton(AF_INET6, client, &((struct sockaddr_in6 *)&address)->sin6_addr) == 1;
    address.ss_family = v4 ? AF_INET : AF_INET6;
    int result = access_add(&allow, true, pattern);
    claim(access_add(&deny, false, pattern) == result && (result == 0 || result == -EINVAL));
    if (v4 || v6) {
        int match = naive_match(pattern, client);
        claim((match < 0) == (result < 0));
        claim(result < 0 || access_permits(&none, &allow, (struct sockaddr *)&address) == match);
        claim(result < 0 || access_permits(&deny, &none, (struct sockaddr *)&address) == !match);
    }
    access_free(&allow);
    access_free(&deny);
    free(pattern);
    free(client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (take(&in) & 1)
        check_pattern(in);
    else
        check_files(in);
    return 0;
}
