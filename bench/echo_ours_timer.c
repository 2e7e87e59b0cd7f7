/* echo_ours_timer: examples/echo_server.c, to the letter, with one timer pending that will not come due while anybody
 * measures: what it costs more than the example is what a pending timer costs. */
int echo_server_main(int argc, char **argv);
#define main echo_server_main
#include "../examples/echo_server.c"
#undef main

static void never(struct asyncore_timer *timer, void *arg)
{
    (void)timer, (void)arg;
    abort();
}

int main(void)
{
    static struct asyncore_timer timer;
    static struct asyncore_dispatcher server;
    const struct example e = {.name = "echo_ours_timer", .address = "127.0.0.1", .port = "0"};
    struct asyncore_map *map = example_map(&e);
    int error;

    if (!map)
        return 1;
    error = asyncore_call_later(map, &timer, 24ull * 60 * 60 * 1000, never, NULL);
    if (!error)
        error = echo_server(map, &server, e.address, e.port);
    return example_serve(&e, map, &server, error);
}
