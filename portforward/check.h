/* check.h: --check: what a configuration would run, and its bounds. */
#ifndef PORTFORWARD_CHECK_H
#define PORTFORWARD_CHECK_H

#include "config.h"

/* Prints it. Opens nothing and looks nothing up. */
void check_print(const struct config *config);

#endif
