/* scenario_echo_logging.c: examples/echo_server_logging.c, whose channels have predicates, with the clients of echo and
 * one from an address that it denies. What it logs goes to a function that reads every byte of it. */
int echo_logging_main(int argc, char **argv);
#include "program.h"
#define main echo_logging_main
#include "../../examples/echo_server_logging.c"
#undef main
#include "echo_clients.h"

struct state {
    struct run *run;
    struct server server;
    struct echo_clients *clients;
    struct peer denied;
    size_t logged, denials;
};

static void log_line(void *arg, const char *type, const char *message)
{
    struct state *state = arg;

    state->logged += strlen(type) + strlen(message);
    if (strncmp(message, "handle_close: ", 14) == 0 && strstr(message, ": end of stream") == NULL)
        type = "error"; /* this program tells it among its other lines */
    run_log(state->run, type, message);
    state->denials += strncmp(message, "denied: ", 8) == 0;
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "server");
    int error = map != NULL ? 0 : -ENOMEM;

    state->run = run;
    if (error == 0)
        error = asyncore_set_log(map, log_line, state);
    oracle_that(run, deny(&state->server, asyncore_sim_address(run->world, "denied", AF_INET)), "start",
                "the address to deny is none");
    if (error == 0)
        error = echo_server_logging(map, &state->server, "0.0.0.0", "7");
    if (error < 0)
        return error;
    state->clients = echo_clients(run, 7);
    state->denied.plan = (struct peer_plan){.start = ASYNCORE_SIM_MS, .total = 0, .end = PEER_WAITS};
    peer_connect(&state->denied, peer_host(run, "denied"), "denied",
                 asyncore_sim_address(run->world, "server", AF_INET), 7);
    return 0;
}

static void finish(struct run *run)
{
    oracle_listens(run, &((struct state *)run->state)->server.base);
    asyncore_fini(&((struct state *)run->state)->server.base);
}

static void check(struct run *run)
{
    struct state *state = run->state;

    echo_clients_check(run, state->clients);
    oracle_done(run, "denied", state->denied.state == PEER_DONE);
    oracle_complete(run, "denied", 0, state->denied.received);
    if (!run->hard)
        oracle_that(run, state->denials == 1 && state->denied.got_end, "denied", "denied %zu times", state->denials);
}

const struct scenario scenario_echo_logging = {
    .name = "echo_logging", .separate = true, .start = start, .finish = finish, .check = check};
