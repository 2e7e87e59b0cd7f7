/* oracle.h: what must be true. The first oracle that fails is the run's result; those after it are most often only its
 * consequences, and say nothing. Each returns whether it held. `who` names the peer or channel in the message. */
#ifndef SIM_ORACLE_H
#define SIM_ORACLE_H

#include "scenario.h"

/* The failure itself, for what only one scenario knows; `oracle` is a word, and the name shrinking goes by. */
bool oracle_fail(struct run *run, const char *oracle, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool oracle_failed(const struct run *run);
bool oracle_that(struct run *run, bool condition, const char *oracle, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* -- Streams: bytes that differ at every place and in every stream, at one addition for eight of them -- */

/* The stream's first eight bytes are its salt: who reads them knows which it is. */
void stream_fill(uint64_t salt, uint64_t offset, void *data, size_t size);

/* "prefix": what was received at `offset` is what was sent there. */
bool oracle_prefix(struct run *run, const char *who, uint64_t salt, uint64_t offset, const void *data, size_t size);
bool oracle_prefix_of(struct run *run, const char *who, const void *expected, size_t expected_size, uint64_t offset,
                      const void *data, size_t size); /* ... and of a text */

/* "more": no more bytes came than were sent. "complete": as many. */
bool oracle_no_more(struct run *run, const char *who, uint64_t sent, uint64_t received);
bool oracle_complete(struct run *run, const char *who, uint64_t sent, uint64_t received);

/* "end": an end of stream came only after the sender's own end and its last byte. A reset never becomes one. */
bool oracle_end(struct run *run, const char *who, bool sender_ended, uint64_t sent, uint64_t received);

/* "clean": no error where there was no reason for one. */
bool oracle_clean(struct run *run, const char *who, int error);

/* "listener": it still listens, whatever became of its clients. */
bool oracle_listens(struct run *run, const struct asyncore_dispatcher *listener);

/* "reported": what ended as if all were well is whole, or some map logged a warning or an error. For runs
 * where calls fail. */
bool oracle_reported(struct run *run, const char *who, bool whole);

/* "stuck": it came to an end of some kind. */
bool oracle_done(struct run *run, const char *who, bool done);

/* -- Of every run; scenario_run() calls them -- */

bool oracle_excused(struct run *run);          /* a loop failed as a script wanted: there is nothing more to check */
bool oracle_rest(struct run *run, int result); /* "rest": nothing is left to happen; "loop": no endless turns */
bool oracle_loops(struct run *run);            /* "loop": every loop has ended, none has failed */
bool oracle_memory(struct run *run);           /* "memory": bounded by marks and connections */
bool oracle_spin(struct run *run);             /* "spin": turns do something */
bool oracle_leaks(struct run *run);            /* "leak": descriptors and blocks, when the maps' channels are gone */
bool oracle_program_leaks(struct run *run);    /* "leak": the program's blocks; "destroy": each channel's, once */

/* -- Timers -- */

/* "early", "late": it was due, and not long since. */
bool oracle_due(struct run *run, const char *who, uint64_t now, uint64_t due, uint64_t slack);

#endif
