/* config_test.h: what the parts of test_config.c share: a configuration, what is said of it, and what it holds. */
#ifndef CONFIG_TEST_H
#define CONFIG_TEST_H

#include "../portforward/config.h"
#include "support.h"

extern struct config config;
extern char said[]; /* the faults, a line each */

void start(void);                /* an empty configuration, nothing said */
void finish(const char *faults); /* that much was said, and counted; all is freed */
const char *rules(void);         /* "bind port > host port, host port option=value", a line each */

void add_access(TCase *tests);
void add_files(TCase *tests);
void add_memory(TCase *tests);

#endif
