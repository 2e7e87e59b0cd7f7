/* room.c: a chat room on async_chat. What one member says, a line, is said to all others.
 *
 * Everybody is held to what the library counts. A member that is said more than it reads gets a queue; past HIGH bytes
 * of it the library no longer listens to that member, and when LIMIT does not take another line the member is thrown
 * out: reset, so that it knows that it missed something. A member with a line of more than LINE bytes is thrown out,
 * too. A member that ends its stream gets what was said until then. */
#include "room.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct member {
    struct asynchat chat;
    struct room *room;
    struct member *next, **place; /* in the room; place is NULL once it has left */
    size_t used;
    char line[ROOM_LINE + 2];
};

static void member_leave(struct member *m)
{
    if (m->place == NULL)
        return;
    *m->place = m->next;
    if (m->next != NULL)
        m->next->place = m->place;
    m->place = NULL;
    m->room->count--;
}

static void member_throw_out(struct member *m)
{
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    struct asyncore_dispatcher *d = &m->chat.base.base;

    m->room->thrown_out++;
    member_leave(m);
    if (asyncore_setsockopt(d, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) < 0)
        asyncore_log_info(d, "error", "a member is thrown out, and may not notice");
    asyncore_close(d);
}

static int member_collect(struct asynchat *chat, const void *data, size_t n)
{
    struct member *m = (struct member *)chat;

    if (m->used + n > ROOM_LINE) {
        member_throw_out(m);
        return 0;
    }
    memcpy(m->line + m->used, data, n);
    m->used += n;
    return 0;
}

static int member_found(struct asynchat *chat)
{
    struct member *m = (struct member *)chat, *next;

    memcpy(m->line + m->used, "\r\n", 2);
    for (struct member *other = m->room->members; other != NULL; other = next) {
        next = other->next;
        if (other != m && asynchat_push(&other->chat, m->line, m->used + 2) < 0)
            member_throw_out(other);
    }
    m->used = 0;
    return 0;
}

static int member_close(struct asyncore_dispatcher *d);

static void member_destroy(struct asyncore_dispatcher *d)
{
    member_leave((struct member *)d);
    free(d);
}

static const struct asynchat_class member_class = {
    .base = {.name = "member", .handle_close = member_close, .destroy = member_destroy},
    .collect_incoming_data = member_collect,
    .found_terminator = member_found,
};

static int member_close(struct asyncore_dispatcher *d)
{
    member_leave((struct member *)d);
    return asyncore_super(d, &member_class.base)->handle_close(d);
}

static void member_enter(struct member *m, struct room *room)
{
    m->room = room;
    m->place = &room->members;
    m->next = room->members;
    if (m->next != NULL)
        m->next->place = &m->next;
    room->members = m;
    room->count++;
}

static int room_accepted(struct asyncore_dispatcher *d, int fd, const struct sockaddr *address, socklen_t length)
{
    struct member *m = calloc(1, sizeof *m);
    int error = m != NULL ? asynchat_init(&m->chat, &member_class, d->map) : -ENOMEM;

    (void)address, (void)length;
    if (error < 0) {
        free(m);
        asyncore_close_fd(d->map, fd);
        return error;
    }
    error = asyncore_set_socket(&m->chat.base.base, fd);
    if (error == 0) /* a member that could not be set up leaves with its destroy */
        member_enter(m, (struct room *)d);
    if (error == 0)
        error = asyncore_set_marks(&m->chat.base, ROOM_LOW, ROOM_HIGH, ROOM_LIMIT);
    if (error == 0)
        error = asynchat_set_terminator(&m->chat, "\r\n", 2);
    if (error < 0)
        asyncore_close(&m->chat.base.base);
    return error;
}

static const struct asyncore_class room_class = {.name = "room", .handle_accepted = room_accepted};

int room_open(struct room *room, struct asyncore_map *map, const char *port)
{
    int error = asyncore_dispatcher_init(&room->base, &room_class, map);

    if (error == 0)
        error = asyncore_create_socket(&room->base, AF_UNSPEC, SOCK_STREAM);
    if (error == 0)
        error = asyncore_bind(&room->base, "*", port);
    if (error == 0)
        error = asyncore_listen(&room->base, 64);
    return error;
}

void room_close(struct room *room)
{
    struct member *m, *next;

    asyncore_fini(&room->base);
    for (m = room->members; m != NULL; m = next) {
        next = m->next;
        if (asynchat_close_when_done(&m->chat) < 0)
            member_throw_out(m);
    }
}
