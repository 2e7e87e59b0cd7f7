/* errnos.h: the errors that Linux may give, call by call; see errnos.c. */
#ifndef SIM_ERRNOS_H
#define SIM_ERRNOS_H

#include "asyncore_sim.h"

/* The negated errnos of a call; 0 ends the list. Empty: the call cannot fail. */
const int *errnos_of(enum asyncore_sim_call call);

/* "ENOMEM" for -ENOMEM, and back: 0 if it is none; a number is taken as well. */
const char *errno_name(int error);
int errno_by_name(const char *text);

#endif
