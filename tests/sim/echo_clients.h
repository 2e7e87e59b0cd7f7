/* echo_clients.h: clients of an echo server, whatever it is made of. */
#ifndef SIM_ECHO_CLIENTS_H
#define SIM_ECHO_CLIENTS_H

#include "scenario.h"

struct echo_clients;

/* Plans them, on the raw host "client", for the host "server" at this port. */
struct echo_clients *echo_clients(struct run *run, uint16_t port);

void echo_clients_check(struct run *run, struct echo_clients *clients);

#endif
