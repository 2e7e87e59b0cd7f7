/* address.h: text to socket address and back. See address.c. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "asyncore.h"
#include "os.h"
#include <stdbool.h>

int address_port(const char *text, uint16_t *port); /* 0 or ASYNCORE_EPORT */
/* 0 or ASYNCORE_EHOST; the port stays 0. */
int address_numeric(const char *host, struct asyncore_address *ret, struct os *os);
/* asyncore_parse_address, where the kernel is known. */
int address_parse(const char *host, const char *port, struct asyncore_address *ret, struct os *os);
void address_set_port(struct asyncore_address *address, uint16_t port); /* nothing on a Unix address */

#endif
