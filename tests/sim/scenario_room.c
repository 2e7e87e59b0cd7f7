/* scenario_room.c: room.c, with members that talk and listen as they should, that listen slowly or not at all, that end
 * their streams early, that reset, and one with a line that is too long.
 *
 * Each member's lines are numbered and say whose they are. Who listens must get every other member's lines whole, in
 * order and without a gap from the first one on; who was not thrown out must get all of them. */
#include "program.h"
#include "room.c"

enum {
    MEMBERS = 8,
    LINES = 200,
    TALK = 3
};

enum manner {
    GOOD,
    SLOW,
    DEAF,
    LEAVES,
    RUDE,
    LONG_LINE
};

struct talker {
    struct peer peer;
    enum manner manner;
    int number;
    size_t used, lines, line_at[LINES + 1];
    char text[LINES * (ROOM_LINE + 2)];
    size_t heard[MEMBERS]; /* the next line of each */
    char line[ROOM_LINE + 2];
    size_t line_used;
};

struct state {
    struct room room;
    int count;
    struct talker talkers[MEMBERS];
};

static size_t output(struct peer *peer, unsigned char *data, size_t size)
{
    memcpy(data, ((struct talker *)peer)->text + peer->sent, size);
    return size;
}

static void hear(struct run *run, struct talker *t)
{
    struct state *state = run->state;
    unsigned who = MEMBERS, number = LINES;
    const struct talker *from;

    sscanf(t->line, "%u %u ", &who, &number);
    if (!oracle_that(run, who < MEMBERS && number < state->talkers[who].lines, "prefix", "%s hears \"%.*s\"",
                     t->peer.name, (int)t->line_used, t->line))
        return;
    from = &state->talkers[who];
    oracle_that(run, from != t, "more", "%s hears itself", t->peer.name);
    oracle_that(run, number == t->heard[who], "order", "%s hears line %u of %s instead of %zu", t->peer.name, number,
                from->peer.name, t->heard[who]);
    oracle_that(run, from->line_at[number] + t->line_used <= from->peer.sent, "more", "%s hears what %s has not said",
                t->peer.name, from->peer.name);
    oracle_prefix_of(run, t->peer.name, from->text + from->line_at[number],
                     from->line_at[number + 1] - from->line_at[number], 0, t->line, t->line_used);
    t->heard[who] = number + 1;
}

static void input(struct peer *peer, const unsigned char *data, size_t size)
{
    struct talker *t = (struct talker *)peer;

    for (size_t i = 0; i < size; i++) {
        if (!oracle_that(peer_run(peer), t->line_used < sizeof t->line, "prefix", "%s hears a line without end",
                         peer->name))
            return;
        t->line[t->line_used++] = (char)data[i];
        if (data[i] != '\n')
            continue;
        hear(peer_run(peer), t);
        t->line_used = 0;
    }
}

static const struct peer_class talker_class = {.output = output, .input = input};

static void write_lines(struct random *r, struct talker *t, size_t lines)
{
    for (; t->lines < lines; t->lines++) {
        t->line_at[t->lines] = t->used;
        t->used += (size_t)sprintf(t->text + t->used, "%d %zu ", t->number, t->lines);
        for (size_t n = (size_t)random_in(r, 0, ROOM_LINE - 20), i = 0; i < n; i++)
            t->text[t->used++] = (char)(i % 7 == 3 ? '\r' : 'a' + (t->lines + i) % 26);
        t->used += (size_t)sprintf(t->text + t->used, "\r\n");
    }
    t->line_at[lines] = t->used;
}

static void plan(struct run *run, struct talker *t)
{
    static const enum manner manners[] = {GOOD, GOOD, GOOD, GOOD, GOOD, SLOW, DEAF, LEAVES, RUDE, LONG_LINE};
    struct random *r = &run->random;
    struct peer_plan *p = &t->peer.plan;

    t->manner = manners[random_in(r, 0, sizeof manners / sizeof *manners - 1)];
    t->peer.class_ = &talker_class;
    write_lines(r, t, (size_t)(random_chance(r, 50) ? random_in(r, 1, run_size(run, LINES, 8))
                                                    : random_scale(r, 1, run_size(run, LINES, 8))));
    p->start = random_in(r, 0, 50 * ASYNCORE_SIM_MS);
    p->total = t->used;
    p->end = PEER_WAITS;
    if (random_chance(r, 50))
        p->send_piece = (size_t)random_scale(r, run_size(run, 16, 100), 4096);
    if (random_chance(r, 50))
        p->send_pause = random_scale(r, 1000, ASYNCORE_SIM_MS);
    if (t->manner == SLOW) {
        p->read_piece = (size_t)random_scale(r, 100, 4096);
        p->read_pause = random_scale(r, ASYNCORE_SIM_US, 20 * ASYNCORE_SIM_MS);
    } else if (t->manner == DEAF) {
        p->read_start = 1000 * ASYNCORE_SIM_SECOND;
    } else if (t->manner == LEAVES) {
        p->end = PEER_SHUTS;
    } else if (t->manner == RUDE) {
        p->total = random_in(r, 0, t->used);
        p->end = (enum peer_end)random_in(r, PEER_CLOSES, PEER_RESETS);
    } else if (t->manner == LONG_LINE) {
        memset(t->text + t->line_at[t->lines - 1], 'x', t->used - t->line_at[t->lines - 1]);
        t->lines--;
        if (t->used - t->line_at[t->lines] <= ROOM_LINE)
            t->manner = RUDE; /* it is not too long, and without an end */
    }
}

static int start(struct run *run)
{
    struct state *state = run->state = run_alloc(run, sizeof *state);
    struct asyncore_map *map = run_map(run, "server");
    int error = map != NULL ? room_open(&state->room, map, "5222") : -ENOMEM;
    char name[32];

    if (error < 0)
        return error;
    run->memory_bound = 512 * 1024 + MEMBERS * (2 * ROOM_LIMIT + 2 * 65536);
    state->count = (int)run_size(run, MEMBERS, 3);
    for (int i = 0; i < state->count; i++) {
        struct talker *t = &state->talkers[i];
        t->number = i;
        plan(run, t);
        t->peer.next_send = TALK * ASYNCORE_SIM_SECOND; /* when all are there */
        snprintf(name, sizeof name, "member %d", i);
        peer_connect(&t->peer, peer_host(run, "client"), name, asyncore_sim_address(run->world, "server", AF_INET),
                     5222);
    }
    return 0;
}

static void finish(struct run *run)
{
    oracle_listens(run, &((struct state *)run->state)->room.base);
    room_close(&((struct state *)run->state)->room);
}

/* Who heard all that was said to it, or had reason to be thrown out. */
static void check_heard(struct run *run, const struct state *state, const struct talker *t)
{
    size_t said = 0;

    for (int i = 0; i < state->count; i++)
        said += i != t->number ? state->talkers[i].peer.sent : 0;
    if (!t->peer.got_end) {
        oracle_that(run, said > ROOM_LIMIT, "clean", "%s was thrown out, and all that was said is %zu bytes",
                    t->peer.name, said);
        return;
    }
    oracle_clean(run, t->peer.name, t->peer.error);
    for (int i = 0; i < state->count; i++) {
        const struct talker *from = &state->talkers[i];
        if (from == t || from->manner > SLOW || !from->peer.got_end) /* it was cut off in what it said */
            continue;
        oracle_complete(run, t->peer.name, from->lines, t->heard[i]);
    }
}

/* Whether it heard all of those who were not cut off themselves. */
static bool heard_all(const struct state *state, const struct talker *t)
{
    for (int i = 0; i < state->count; i++) {
        const struct talker *from = &state->talkers[i];
        if (from != t && from->manner <= SLOW && from->peer.got_end && t->heard[i] != from->lines)
            return false;
    }
    return true;
}

static void check(struct run *run)
{
    struct state *state = run->state;

    oracle_that(run, state->room.count == 0 && state->room.members == NULL, "stuck", "somebody is left in the room");
    for (int i = 0; i < state->count; i++) {
        const struct talker *t = &state->talkers[i];
        oracle_done(run, t->peer.name, t->peer.state == PEER_DONE);
        oracle_that(run, t->manner != LONG_LINE || run->hard || t->peer.error != 0, "clean",
                    "%s was not thrown out for its line", t->peer.name);
        if (t->peer.got_end && t->manner <= SLOW)
            oracle_reported(run, t->peer.name, heard_all(state, t));
        if (!run->hard && t->manner <= SLOW)
            check_heard(run, state, t);
    }
}

const struct scenario scenario_room = {.name = "room", .start = start, .finish = finish, .check = check};
