/* witness.h: between a program's classes and the library, to see that handlers are called only when they may be.
 *
 * program.h makes the init functions of the included program these: each class gets a child whose handlers note the
 * call and go on to the program's own. "handler": none runs on a channel that is closed, or was never made. "empty":
 * where no fault makes it so, handle_read of a channel without a queue finds something to read. "destroy": it runs
 * once, between the turns' handlers, and for every channel that was made and not taken back by asyncore_fini(). */
#ifndef SIM_WITNESS_H
#define SIM_WITNESS_H

#include "asynchat.h"
#include "scenario.h"

int witness_dispatcher_init(struct asyncore_dispatcher *d, const struct asyncore_class *cls, struct asyncore_map *map);
int witness_with_send_init(struct asyncore_dispatcher_with_send *s, const struct asyncore_class *cls,
                           struct asyncore_map *map);
int witness_file_init(struct asyncore_file_dispatcher *f, const struct asyncore_class *cls, struct asyncore_map *map);
int witness_chat_init(struct asynchat *c, const struct asynchat_class *cls, struct asyncore_map *map);
int witness_close(struct asyncore_dispatcher *d);
int witness_create_socket(struct asyncore_dispatcher *d, int family, int type);
int witness_fini(struct asyncore_dispatcher *d);

void witness_begin(struct run *run);    /* forgets what was */
bool witness_all_gone(struct run *run); /* after the maps were freed */

#endif
