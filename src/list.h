/* list.h: circular doubly linked lists through a member of the object. A link that is in no list points at
 * itself or holds NULL, so that unlinking twice, or a zeroed object, is nothing. */
#ifndef LIST_H
#define LIST_H

#include "asyncore.h"

/* For the few functions that every message passes: what is rare stays out of their way, and of their registers. */
#define HOT  static inline __attribute__((always_inline))
#define RARE __attribute__((noinline))

typedef struct asyncore_link_ link_t;

#define owner_of(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

static inline void list_init(link_t *head)
{
    head->next = head->prev = head;
}

static inline int list_empty(const link_t *head)
{
    return head->next == head;
}

static inline void list_append(link_t *head, link_t *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void list_unlink(link_t *link)
{
    if (link->next == NULL)
        return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* Moves everything from one list to another, which must be empty: the way to visit a list whose members may leave or
 * join while it is visited. */
static inline void list_take(link_t *from, link_t *to)
{
    list_init(to);
    if (list_empty(from))
        return;
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

#endif
