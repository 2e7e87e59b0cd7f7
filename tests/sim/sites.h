/* sites.h: which places of the library's text call the os layer, and which of these calls were made to fail.
 *
 * The executable is linked with --wrap=sim_os_fill: every host's table gets functions that note the return address of
 * the call, whether the script struck it, and go on to the simulated kernel's. A site is a return address; sites.py
 * knows its line. */
#ifndef SIM_SITES_H
#define SIM_SITES_H

#include "asyncore_sim.h"
#include <stdbool.h>
#include <stdio.h>

/* The k-th call of a kind on a host. */
struct site_call {
    char host[16];
    enum asyncore_sim_call call;
    uint64_t k;
    const void *site;
};

enum {
    SITE_CALLS = 64
};

/* What a run without a fault reaches is known from then on, until the next such beginning. */
void sites_begin(bool baseline);

/* Of the run since: the first call of each site that the baseline did not reach; where the first fault struck (NULL: no
 * library call was), and what was called right after it. */
size_t sites_new(const struct site_call **calls);
const void *sites_struck(void);
size_t sites_after(const struct site_call **calls);

/* "ADDRESS REACHED STRUCK CALL" for each site of all runs; addresses are relative to the image. */
void sites_print(FILE *file);

#endif
