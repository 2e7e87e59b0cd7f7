/* A user of asyncore.h alone, in the language that C11 and C++17 share: every macro, every struct. It is
 * compiled, never run: a header's macros are seen by a compiler only where they are used. */
#include <asyncore.h>
#include <asyncore.h>

int use_maps(struct asyncore_map **map);
int use_channels(struct asyncore_map *map);
int use_the_rest(struct asyncore_map *map);

int use_maps(struct asyncore_map **map)
{
    struct asyncore_map_options options = {"epoll", NULL, 0, 0, 0, {NULL}};

    return asyncore_map_new(map, &options) + asyncore_map_new(map, NULL);
}

static int on_read(struct asyncore_dispatcher *d)
{
    const void *data;

    return (int)asyncore_recv_view(d, &data);
}

int use_channels(struct asyncore_map *map)
{
    static struct asyncore_class cls;
    static struct asyncore_dispatcher d;
    static struct asyncore_dispatcher_with_send s;
    static struct asyncore_file_dispatcher f;

    cls.name = "user";
    cls.handle_read = on_read;
    cls.destroy = asyncore_destroy_free;
    asyncore_log(&d, "%d of %s", 1, "one");
    asyncore_log_info(&d, "info", "%d", 1);
    return asyncore_dispatcher_init(&d, &cls, map) + asyncore_dispatcher_with_send_init(&s, &cls, map) +
           asyncore_file_dispatcher_init(&f, &cls, map) + asyncore_want(&d, ASYNCORE_READ | ASYNCORE_ERROR);
}

static void on_signal(struct asyncore_signal *signal, int number, void *arg)
{
    (void)signal, (void)number, (void)arg;
}

int use_the_rest(struct asyncore_map *map)
{
    static struct asyncore_signal signal;
    static struct asyncore_timer timer;
    static struct asyncore_lookup lookup;
    static struct asyncore_event event;
    static struct asyncore_address address;
    static struct asyncore_dispatcher d;
    static struct asyncore_pipe pipe;
    int error = ASYNCORE_ENONAME;

    asyncore_cancel(&timer);
    asyncore_resolve_cancel(&lookup);
    if (asyncore_pipe_open(map, &pipe, 0) == 0 && asyncore_splice(&d, &pipe, pipe.size, ASYNCORE_READ) > 0)
        asyncore_pipe_close(map, &pipe);
    return asyncore_signal_init(&signal, map, 1, on_signal, &address) + asyncore_map_wait(map, 0, &event, 1) + error;
}
