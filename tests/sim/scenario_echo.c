/* scenario_echo.c: examples/echo_server.c and clients that send a stream and compare what comes back. Most end as they
 * should; some read slowly, some leave without reading, some reset. */
int echo_main(int argc, char **argv);
#include "program.h"
#define main echo_main
#include "../../examples/echo_server.c"
#undef main
#include "echo_clients.h"

struct state {
    struct asyncore_dispatcher server;
    struct echo_clients *clients;
};

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "server");
    int error = map != NULL ? echo_server(map, &state->server, "*", "7") : -ENOMEM;

    if (error == 0)
        state->clients = echo_clients(run, 7);
    return error;
}

static void finish(struct run *run)
{
    oracle_listens(run, &((struct state *)run->state)->server);
    asyncore_fini(&((struct state *)run->state)->server);
}

static void check(struct run *run)
{
    echo_clients_check(run, ((struct state *)run->state)->clients);
}

const struct scenario scenario_echo = {
    .name = "echo", .separate = true, .start = start, .finish = finish, .check = check};
