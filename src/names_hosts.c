/* names_hosts.c: /etc/hosts, read at each question: "address name name ... # comment" (hosts(5)). Behind os_linux. */
#include "address.h"
#include "os.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int line_matches(char *line, const char *host, struct asyncore_address *ret, struct os *os)
{
    char *rest = NULL;
    line[strcspn(line, "#\n")] = '\0';
    char *address = strtok_r(line, " \t\r", &rest);
    if (address == NULL)
        return 0;
    for (char *name = strtok_r(NULL, " \t\r", &rest); name != NULL; name = strtok_r(NULL, " \t\r", &rest))
        if (strcasecmp(name, host) == 0)
            return address_numeric(address, ret, os) == 0;
    return 0;
}

int hosts_lookup(const char *host, int family, struct asyncore_address *addresses, size_t size, struct os *os)
{
    char line[1024];
    size_t count = 0;
    FILE *file = fopen("/etc/hosts", "re");
    if (file == NULL)
        return errno == ENOENT ? 0 : -errno;
    while (count < size && fgets(line, sizeof line, file) != NULL) {
        struct asyncore_address found;
        if (line_matches(line, host, &found, os) && (family == AF_UNSPEC || found.address.ss_family == family))
            addresses[count++] = found;
    }
    fclose(file);
    return (int)count;
}
