/* load.h: what the load programs have in common. They are driven by lines, so that several can be started at once and
 * a server's CPU time be read at the right moments. Exit status: 1 something did not work, 2 wrong usage, 3 bytes were
 * lost or changed. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    PERIOD = 251,   /* of the pattern */
    SILENCE = 20000 /* ms after which a server counts as hung */
};

/* "NAME: what: why" on stderr, and the end. */
_Noreturn void fail(const char *what, const char *why);
_Noreturn void lost(const char *what, const char *why);

/* Nanoseconds of the monotonic clock. */
uint64_t now(void);

/* An argument that is a number from 0 to max; anything else ends the program. */
double number(const char *text, const char *what, double max);

/* A socket for 127.0.0.1:port, that sends without Nagle's delay and whose close() is a reset: no TIME_WAIT, for
 * thousands of them would tax the next measurement. dial() is connected and blocks; dial_start() has begun, does not
 * block, and is -1 if there is no port or descriptor. */
int dial(unsigned port);
int dial_start(unsigned port);

/* Memory with `size` bytes of the pattern. */
unsigned char *pattern_new(size_t size);

/* Prints a line, and waits for one on stdin. False: stdin has ended. */
bool say_and_wait(const char *line);

#endif
