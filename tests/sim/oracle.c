/* oracle.c: see oracle.h. */
#include "oracle.h"

#include "witness.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STEP UINT64_C(0x9E3779B97F4A7C15) /* from one word of a stream to the next; odd, so that all differ */

static bool vfail(struct run *run, const char *oracle, const char *format, va_list arguments)
{
    struct run_result *result = run->result;
    uint64_t now = run->world != NULL ? run_now(run) : result->ended;
    int n;

    if (result->oracle[0] != '\0')
        return false;
    snprintf(result->oracle, sizeof result->oracle, "%s", oracle);
    n = snprintf(result->what, sizeof result->what, "at %llu.%09llu: ", (unsigned long long)(now / ASYNCORE_SIM_SECOND),
                 (unsigned long long)(now % ASYNCORE_SIM_SECOND));
    vsnprintf(result->what + n, sizeof result->what - (size_t)n, format, arguments);
    return false;
}

bool oracle_fail(struct run *run, const char *oracle, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfail(run, oracle, format, arguments);
    va_end(arguments);
    return false;
}

bool oracle_that(struct run *run, bool condition, const char *oracle, const char *format, ...)
{
    va_list arguments;

    if (condition)
        return true;
    va_start(arguments, format);
    vfail(run, oracle, format, arguments);
    va_end(arguments);
    return false;
}

bool oracle_failed(const struct run *run)
{
    return run->result->oracle[0] != '\0';
}

/* -- Streams -- */

static uint64_t stream_word(uint64_t salt, uint64_t place)
{
    return salt + place * STEP;
}

void stream_fill(uint64_t salt, uint64_t offset, void *data, size_t size)
{
    unsigned char *bytes = data;
    uint64_t word = stream_word(salt, offset / 8);
    size_t skip = offset % 8, n;

    if (skip != 0 && size > 0) {
        n = 8 - skip < size ? 8 - skip : size;
        memcpy(bytes, (const unsigned char *)&word + skip, n);
        bytes += n;
        size -= n;
        word += STEP;
    }
    for (; size >= 8; size -= 8, bytes += 8, word += STEP)
        memcpy(bytes, &word, 8);
    memcpy(bytes, &word, size);
}

bool oracle_prefix_of(struct run *run, const char *who, const void *expected, size_t expected_size, uint64_t offset,
                      const void *data, size_t size)
{
    const unsigned char *want = (const unsigned char *)expected + offset, *got = data;
    size_t i = 0;

    if (offset + size <= expected_size && memcmp(want, got, size) == 0)
        return true;
    if (offset > expected_size)
        return oracle_fail(run, "prefix", "%s: %zu bytes past the end, %llu bytes", who, size,
                           (unsigned long long)expected_size);
    while (i < size && offset + i < expected_size && want[i] == got[i])
        i++;
    if (offset + i == expected_size)
        return oracle_fail(run, "prefix", "%s: bytes past the end, %zu bytes: \"%.*s\"", who, expected_size,
                           (int)(size - i > 40 ? 40 : size - i), (const char *)got + i);
    return oracle_fail(run, "prefix", "%s: byte %llu is 0x%02x, was sent as 0x%02x", who,
                       (unsigned long long)(offset + i), got[i], want[i]);
}

bool oracle_prefix(struct run *run, const char *who, uint64_t salt, uint64_t offset, const void *data, size_t size)
{
    static unsigned char expected[4096];
    const unsigned char *got = data;

    while (size > 0) {
        size_t n = size < sizeof expected ? size : sizeof expected;
        stream_fill(salt, offset, expected, n);
        for (size_t i = 0; memcmp(expected, got, n) != 0 && i < n; i++)
            if (expected[i] != got[i])
                return oracle_fail(run, "prefix", "%s: byte %llu is 0x%02x, was sent as 0x%02x", who,
                                   (unsigned long long)(offset + i), got[i], expected[i]);
        got += n;
        offset += n;
        size -= n;
    }
    return true;
}

bool oracle_no_more(struct run *run, const char *who, uint64_t sent, uint64_t received)
{
    return oracle_that(run, received <= sent, "more", "%s: received %llu bytes of %llu sent", who,
                       (unsigned long long)received, (unsigned long long)sent);
}

bool oracle_complete(struct run *run, const char *who, uint64_t sent, uint64_t received)
{
    return oracle_that(run, received == sent, "complete", "%s: received %llu bytes of %llu sent", who,
                       (unsigned long long)received, (unsigned long long)sent);
}

bool oracle_end(struct run *run, const char *who, bool sender_ended, uint64_t sent, uint64_t received)
{
    return oracle_that(run, sender_ended && received == sent, "end",
                       "%s: a clean end after %llu bytes of %llu, sender %s", who, (unsigned long long)received,
                       (unsigned long long)sent, sender_ended ? "ended" : "did not end");
}

bool oracle_clean(struct run *run, const char *who, int error)
{
    return oracle_that(run, error == 0, "clean", "%s: %s", who, asyncore_strerror(error));
}

bool oracle_reported(struct run *run, const char *who, bool whole)
{
    return oracle_that(run, whole || run->complaints > 0, "reported",
                       "%s got what looks complete and is not, and nobody complained", who);
}

bool oracle_done(struct run *run, const char *who, bool done)
{
    return oracle_that(run, done, "stuck", "%s has not come to an end", who);
}

bool oracle_listens(struct run *run, const struct asyncore_dispatcher *listener)
{
    return oracle_that(run, listener->fd >= 0 || run->config->script_count > 0, "listener", "the listener was closed");
}

bool oracle_due(struct run *run, const char *who, uint64_t now, uint64_t due, uint64_t slack)
{
    return oracle_that(run, now >= due, "early", "%s: %llu ns too early", who, (unsigned long long)(due - now)) &&
           oracle_that(run, now <= due + slack, "late", "%s: %llu ns late, at most %llu", who,
                       (unsigned long long)(now - due), (unsigned long long)slack);
}

/* -- Of every run -- */

/* No kernel memory for the map's own wake-up, by chance: its loop did not even begin. */
static bool never_began(const struct run *run, const char *map, int result)
{
    struct asyncore_sim_usage usage;

    return run->weather == HARD && result == -ENOMEM && asyncore_sim_usage(run->world, map, &usage) == 0 &&
           usage.turns <= 1;
}

/* A wait that was made to fail by hand ends its loop, as it should; so does a map that cannot get at its own wake-up.
 * Then nobody serves the peers any more. */
bool oracle_excused(struct run *run)
{
    bool engines = false, memory = run_scripted(run, ASYNCORE_SIM_ALLOC);

    for (int call = ASYNCORE_SIM_EPOLL_CREATE; call <= ASYNCORE_SIM_SELECT; call++)
        engines |= run_scripted(run, (enum asyncore_sim_call)call);
    for (size_t i = 0; i < run->map_count; i++) {
        int result = asyncore_sim_result(run->world, run->maps[i]);
        run->loop_failed |= result < 0 && (engines || (memory && result == -ENOMEM));
        run->loop_failed |= never_began(run, run->maps[i], result);
    }
    return run->loop_failed;
}

bool oracle_rest(struct run *run, int result)
{
    if (result < 0)
        return oracle_fail(run, "loop", "the world failed: %s", asyncore_strerror(result));
    return oracle_that(run, result == 0, "rest", "the world does not come to rest");
}

bool oracle_loops(struct run *run)
{
    for (size_t i = 0; i < run->map_count; i++) {
        int result = asyncore_sim_result(run->world, run->maps[i]);
        if (result < 0)
            return oracle_fail(run, "loop", "the loop of %s failed: %s", run->maps[i], asyncore_strerror(result));
        if (result != 0)
            return oracle_fail(run, "loop", "the loop of %s has nothing left, and did not end", run->maps[i]);
    }
    return true;
}

/* A channel holds at most its queue up to the high mark, one read more, and what those take in the queue. */
bool oracle_memory(struct run *run)
{
    enum {
        MAP = 512 * 1024,
        CHANNEL = (256 + 64 + 64) * 1024 + 4096
    };
    size_t bound = run->memory_bound != 0 ? run->memory_bound : MAP + run->connections * CHANNEL;

    for (size_t i = 0; i < run->map_count; i++) {
        struct asyncore_sim_usage usage;
        if (asyncore_sim_usage(run->world, run->maps[i], &usage) == 0 && usage.bytes_most > bound)
            return oracle_fail(run, "memory", "%s took %zu bytes at most, should be %zu", run->maps[i],
                               usage.bytes_most, bound);
    }
    return true;
}

static uint64_t useful_calls(const struct asyncore_sim_usage *usage)
{
    static const enum asyncore_sim_call useful[] = {
        ASYNCORE_SIM_ACCEPT, ASYNCORE_SIM_CONNECT, ASYNCORE_SIM_RECV,  ASYNCORE_SIM_SEND,  ASYNCORE_SIM_RECVFROM,
        ASYNCORE_SIM_SENDTO, ASYNCORE_SIM_READ,    ASYNCORE_SIM_WRITE, ASYNCORE_SIM_CLOSE, ASYNCORE_SIM_SHUTDOWN};
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof useful / sizeof *useful; i++)
        sum += usage->calls[useful[i]];
    return sum;
}

/* With the engine select, channels that wait for an error alone are looked at one by one, every 100 ms. */
static uint64_t looks(const struct run *run, const struct asyncore_sim_usage *usage)
{
    if (strcmp(run->options.engine, "select") != 0)
        return 0;
    return usage->calls[ASYNCORE_SIM_POLL] + (1 + run->connections) * run->result->ended / (50 * ASYNCORE_SIM_MS);
}

/* Every turn has a reason: a call on a descriptor, a timer, an interrupted wait. */
bool oracle_spin(struct run *run)
{
    for (size_t i = 0; i < run->map_count; i++) {
        struct asyncore_sim_usage usage;
        if (asyncore_sim_usage(run->world, run->maps[i], &usage) < 0)
            continue;
        uint64_t bound = 100 + 4 * (useful_calls(&usage) + run->free_turns) + looks(run, &usage);
        run->result->turns += usage.turns;
        if (usage.turns > bound)
            return oracle_fail(run, "spin", "%s took %llu turns for %llu calls", run->maps[i],
                               (unsigned long long)usage.turns, (unsigned long long)useful_calls(&usage));
    }
    return true;
}

bool oracle_leaks(struct run *run)
{
    for (size_t i = 0; i < run->map_count; i++) {
        struct asyncore_sim_usage usage;
        if (asyncore_sim_usage(run->world, run->maps[i], &usage) < 0)
            continue;
        if (usage.descriptors != 0 || usage.blocks != 0 || usage.bytes != 0)
            return oracle_fail(run, "leak", "%s: %u descriptors, %zu blocks, %zu bytes are left", run->maps[i],
                               usage.descriptors, usage.blocks, usage.bytes);
    }
    return true;
}

bool oracle_program_leaks(struct run *run)
{
    size_t blocks = scenario_blocks();

    return oracle_that(run, blocks == 0, "leak", "the program left %zu blocks of memory", blocks) &&
           witness_all_gone(run);
}
