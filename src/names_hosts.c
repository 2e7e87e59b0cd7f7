/* names_hosts.c: /etc/hosts, read at each question: "address name name ... # comment" (hosts(5)). Behind os_linux. */
#include "address.h"
#include "os.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Not all that address_numeric() knows is an address here: "*" and "unix:..." are not. */
static int is_address(const char *text, struct asyncore_address *ret, struct os *os)
{
    return *text != '*' && address_numeric(text, ret, os) == 0 && ret->address.ss_family != AF_UNIX;
}

static int line_matches(char *line, const char *host, struct asyncore_address *ret, struct os *os)
{
    char *rest = NULL;
    line[strcspn(line, "#\n")] = '\0';
    char *address = strtok_r(line, " \t\r", &rest);
    if (address == NULL)
        return 0;
    for (char *name = strtok_r(NULL, " \t\r", &rest); name != NULL; name = strtok_r(NULL, " \t\r", &rest))
        if (strcasecmp(name, host) == 0)
            return is_address(address, ret, os);
    return 0;
}

int hosts_lookup(const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os)
{
    char *line = NULL; /* as long as it may be: the rest of a long one is no line of its own */
    size_t count = 0, room = 0;
    FILE *file = fopen("/etc/hosts", "re");
    if (file == NULL)
        return errno == ENOENT ? 0 : -errno;
    while (count < size && getline(&line, &room, file) >= 0) {
        struct asyncore_address found;
        if (line_matches(line, host, &found, os) && (family == AF_UNSPEC || found.address.ss_family == family))
            addresses[count++] = found;
    }
    free(line);
    fclose(file);
    return (int)count;
}
