/* A user of asynchat.h alone: see asyncore.c beside this file. */
#include <asynchat.h>
#include <asynchat.h>

int use_chat(struct asyncore_map *map);

static int on_data(struct asynchat *c, const void *data, size_t n)
{
    return asynchat_push(c, data, n);
}

static int on_terminator(struct asynchat *c)
{
    return asynchat_close_when_done(c);
}

int use_chat(struct asyncore_map *map)
{
    static struct asynchat_class cls;
    static struct asynchat c;
    static struct asynchat_simple_producer p;

    cls.base.name = "user";
    cls.collect_incoming_data = on_data;
    cls.found_terminator = on_terminator;
    asynchat_simple_producer_init(&p, "data", 4, 0);
    return asynchat_init(&c, &cls, map) + asynchat_push_with_producer(&c, &p.base) + (int)ASYNCHAT_ELIMIT;
}
