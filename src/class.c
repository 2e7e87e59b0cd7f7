/* class.c: classes resolved into tables without holes.
 *
 * For each class that a channel is made with, the map keeps one table in which every slot is the class's own or the
 * nearest ancestor's, down to the library's base class: an inherited slot costs nothing per call. Ancestors get
 * tables of their own at the same time, so that asyncore_super() only looks one up. */
#include "channel.h"
#include "map.h"
#include <errno.h>
#include <string.h>

#define DEPTH      16 /* ancestors: a longer chain is a circle */
#define SLOTS_MAX  64
#define FIRST_SLOT 2 /* after name and parent */

_Static_assert(sizeof(struct asyncore_class) == 256, "part of the ABI");
_Static_assert(offsetof(struct asyncore_class, handle_connect) == FIRST_SLOT * sizeof(void *),
               "name and parent come first");

struct resolved {
    struct resolved *next;
    const struct asyncore_class *source;
    const struct class_root *root;
    struct asyncore_class table; /* and what the root's table has beyond */
};

static struct resolved *find(struct asyncore_map *map, const struct asyncore_class *cls, const struct class_root *root)
{
    struct resolved *r = map->classes;
    while (r != NULL && (r->source != cls || r->root != root))
        r = r->next;
    return r;
}

/* Slots are compared and copied as one kind of function pointer, through memcpy. */
static void overlay(void *table, const struct asyncore_class *cls, size_t size)
{
    void (*own[SLOTS_MAX])(void), (*all[SLOTS_MAX])(void);
    memcpy(own, cls, size);
    memcpy(all, table, size);
    for (size_t i = FIRST_SLOT; i < size / sizeof *own; i++)
        if (own[i] != NULL)
            all[i] = own[i];
    memcpy(table, all, size);
}

static int resolve_one(struct asyncore_map *map, const struct asyncore_class *cls, const struct class_root *root)
{
    size_t beyond = root->size - sizeof(struct asyncore_class);
    struct resolved *r = map_alloc(map, sizeof *r + beyond);
    if (r == NULL)
        return -ENOMEM;
    memset(&r->table, 0, root->size);
    if (cls == NULL) {
        memcpy(&r->table, &dispatcher_defaults, sizeof dispatcher_defaults);
        overlay(&r->table, root->own, root->size);
        r->table.name = root->own->name;
    } else {
        memcpy(&r->table, &find(map, cls->parent, root)->table, root->size);
        overlay(&r->table, cls, root->size);
        r->table.name = cls->name;
        r->table.parent = cls->parent;
    }
    r->source = cls;
    r->root = root;
    r->next = map->classes;
    map->classes = r;
    return 0;
}

/* The root's own table is the one of no class; then ancestors come before their children. */
int class_resolve(struct asyncore_map *map, const struct asyncore_class *cls, const struct class_root *root,
                  const struct asyncore_class **ret)
{
    const struct asyncore_class *chain[DEPTH];
    int depth = 0;
    struct resolved *r = find(map, cls, root);
    for (const struct asyncore_class *c = cls; r == NULL; c = c->parent) {
        if (depth == DEPTH)
            return -ELOOP;
        chain[depth++] = c;
        if (c == NULL)
            break;
    }
    for (int i = depth; i-- > 0;)
        if (find(map, chain[i], root) == NULL) {
            int result = resolve_one(map, chain[i], root);
            if (result < 0)
                return result;
        }
    *ret = &find(map, cls, root)->table;
    return 0;
}

static struct resolved *resolved_of(const struct asyncore_dispatcher *d)
{
    return owner_of(d->class_, struct resolved, table);
}

const struct class_root *class_root_of(const struct asyncore_dispatcher *d)
{
    return resolved_of(d)->root;
}

const struct asyncore_class *class_source_of(const struct asyncore_dispatcher *d)
{
    return resolved_of(d)->source;
}

const struct asyncore_class *asyncore_super(const struct asyncore_dispatcher *d, const struct asyncore_class *mine)
{
    return &find(d->map, mine->parent, class_root_of(d))->table;
}

void classes_clear(struct asyncore_map *map)
{
    while (map->classes != NULL) {
        struct resolved *r = map->classes;
        map->classes = r->next;
        map_release(map, r);
    }
}
