/* address.h: text to socket address and back. See address.c. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "asyncore.h"
#include <stdbool.h>

int address_port(const char *text, uint16_t *port);                     /* 0 or ASYNCORE_EPORT */
int address_numeric(const char *host, struct asyncore_address *ret);    /* 0 or ASYNCORE_EHOST; the port stays 0 */
void address_set_port(struct asyncore_address *address, uint16_t port); /* nothing on a Unix address */

#endif
