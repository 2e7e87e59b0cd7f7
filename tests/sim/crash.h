/* crash.h: a run that crashes, or hangs, says which one it was. */
#ifndef SIM_CRASH_H
#define SIM_CRASH_H

/* From now on a signal that ends the process, SIGALRM included, first calls `tell`, which may use crash_put alone: it
 * runs in the signal's handler. */
void crash_watch(void (*tell)(int number));
void crash_put(const char *text);

#endif
