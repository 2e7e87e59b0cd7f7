/* fuzz_hosts.c: names of /etc/hosts, the file being the input: the family wanted, a line with the name that is asked
 * for, and the file's text. The answer is that of a naive reader (hosts(5)), which has the whole of every line. */
#include "fuzz.h"
#include "os.h"
#include <stdio.h>

static FILE *hosts_file(void);
#define fopen(path, mode) ((void)(path), (void)(mode), hosts_file())
#define hosts_lookup      hosts_lookup_of_input
int hosts_lookup_of_input(const char *host, int family, struct asyncore_address *addresses, size_t size,
                          struct os *os);
#include "names_hosts.c"
#undef fopen
#undef hosts_lookup

#define ROOM 3

static struct input text;

static FILE *hosts_file(void)
{
    FILE *file = text.left > 0 ? fmemopen((void *)(uintptr_t)text.at, text.left, "r") : NULL;
    if (file == NULL)
        errno = ENOENT;
    return file;
}

/* The next word of a line, in memory of its own; NULL at its end. */
static char *word(struct input *line)
{
    while (line->left > 0 && strchr(" \t\r", *line->at) != NULL && *line->at != '\0')
        take(line);
    size_t n = 0;
    while (n < line->left && strchr(" \t\r", line->at[n]) == NULL)
        n++;
    return n > 0 ? text_of(take_some(line, n)) : NULL;
}

static bool numeric(const char *address, struct asyncore_address *ret)
{
    socklen_t length;
    if (asyncore_parse_address(address, "0", &ret->address, &length) < 0 || *address == '*')
        return false;
    ret->length = length;
    return ret->address.ss_family == AF_INET || ret->address.ss_family == AF_INET6;
}

static bool read_line(struct input line, const char *host, struct asyncore_address *ret)
{
    size_t n = 0;
    while (n < line.left && line.at[n] != '#' && line.at[n] != '\0')
        n++;
    line = take_some(&line, n);
    char *address = word(&line);
    bool found = false;
    for (char *name; address != NULL && (name = word(&line)) != NULL; free(name))
        found = found || strcasecmp(name, host) == 0;
    found = found && numeric(address, ret);
    free(address);
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6};
    struct input in = {data, size};
    int family = families[take(&in) % 3], count = 0;
    char *host = text_of(take_until(&in, '\n'));
    struct asyncore_address *found = malloc(ROOM * sizeof *found), one;
    uint8_t *copy = copy_of(in.at, in.left);
    claim(found != NULL);
    text = (struct input){copy, in.left};
    int result = hosts_lookup_of_input(host, family, found, ROOM, &os_linux);
    while (in.left > 0 && count < ROOM) {
        if (!read_line(take_until(&in, '\n'), host, &one) || (family != AF_UNSPEC && one.address.ss_family != family))
            continue;
        claim(count < result);
        claim(found[count].length == one.length && memcmp(&found[count].address, &one.address, one.length) == 0);
        claim(found[count].ttl == UINT32_MAX);
        count++;
    }
    claim(count == result);
    free(copy);
    free(found);
    free(host);
    return 0;
}
