/* program.h: what a scenario includes before the program under test, so that its memory and its channels are watched.
 * Everything of the C library that a program may include comes first: only the program's own text is changed. */
#ifndef SIM_PROGRAM_H
#define SIM_PROGRAM_H

#include "oracle.h"
#include "peer.h"
#include "scenario.h"
#include "witness.h"
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define malloc(size)          scenario_malloc(size)
#define calloc(count, size)   scenario_calloc(count, size)
#define realloc(memory, size) scenario_realloc(memory, size)
#define strdup(text)          scenario_strdup(text)
#define free(memory)          scenario_free(memory)
#define asyncore_destroy_free scenario_destroy_free

#undef asyncore_dispatcher_init
#undef asyncore_dispatcher_with_send_init
#undef asyncore_file_dispatcher_init
#undef asynchat_init
#define asyncore_dispatcher_init(d, cls, map)           witness_dispatcher_init(d, cls, map)
#define asyncore_dispatcher_with_send_init(s, cls, map) witness_with_send_init(s, cls, map)
#define asyncore_file_dispatcher_init(f, cls, map)      witness_file_init(f, cls, map)
#define asynchat_init(c, cls, map)                      witness_chat_init(c, cls, map)
#define asyncore_close(d)                               witness_close(d)
#define asyncore_create_socket(d, family, type)         witness_create_socket(d, family, type)
#define asyncore_fini(d)                                witness_fini(d)

#endif
