/* room.h: see room.c. */
#ifndef SIM_ROOM_H
#define SIM_ROOM_H

#include "asynchat.h"

enum {
    ROOM_LINE = 512,
    ROOM_LOW = 4096,
    ROOM_HIGH = 16384,
    ROOM_LIMIT = 65536
};

struct member;

struct room {
    struct asyncore_dispatcher base;
    struct member *members;
    size_t count, thrown_out;
};

int room_open(struct room *room, struct asyncore_map *map, const char *port);
void room_close(struct room *room); /* every member is sent what was said, and then the end */

#endif
