/* test_sim_kernel.c: the simulated kernel against the real one, call by call.
 *
 * A sequence is some forty calls, from a seed (sim_kernel_plans.c). Each is made to a simulated host and to Linux, on
 * the loopback device and in a directory of its own (sim_kernel_calls.c); what comes of it must be the same, and after
 * each call poll(2) must say the same of every object. Linux may be a moment late, so that a call which did nothing yet
 * is made to it again, and its masks are looked at again, for at most a second.
 *
 * Linux gets a network namespace for the test alone, where that is allowed; there nearly nothing is left to chance. Where
 * it is not, other programs have ports on the same loopback device, and now and then just the one that a sequence binds
 * next. A difference that is not there when the sequence runs again was theirs, and there may be a few. One that stays is
 * shrunk, call by call, and printed with both outcomes.
 *
 * What a sequence does not come to has tests of its own (sim_kernel_values.c).
 *
 *     SEQUENCES=50000 SEED=1 build/tests/test_sim_kernel
 *
 * LEFT OUT, because the simulation does not know it, or because it is each kernel's own:
 * - How many bytes fit. FILL only asks that some do, that then the socket is not writable, and that it is again when
 *   the peer has read all. Otherwise a sequence sends less than any buffer holds (sim_kernel_plans.c), and in fewer
 *   datagrams than a Unix socket queues where that may be the administrator's (net.unix.max_dgram_qlen).
 *   After SHUT_RD Linux tells the sender of room only when he asks, which is late: no FILL then.
 * - What is left of a connection that is closed: a port that is in TIME_WAIT, or in the hands of an orphan, may be
 *   bound. So addresses to bind are those of open descriptors only, of connections that are not over, and those that a
 *   sequence leaves are reset.
 * - Other networks, and UDP sockets that are connected to port 0: nothing is connected there.
 * - TCP sockets that are connected to themselves; that were, or failed to be, connected over IPv4, as IPv6 sockets,
 *   and try IPv6
 *   (nor do UDP sockets come back from there, nor, where others' networks are near, send to AF_UNSPEC: it is routed);
 *   accepted ones that are bound anew when their connection is over.
 * - Which of several sockets with SO_REUSEPORT gets a client or a datagram: nothing is sent there (left_out()).
 *   Linux looks at the one that it finds first, not at all of them: none binds a port that one without has. Nor does it
 *   see that a TCP socket which is bound takes SO_REUSEPORT or SO_REUSEADDR back.
 * - The order of epoll_wait's events; edge-triggered, one-shot and exclusive registrations.
 * - Nagle's algorithm (every TCP socket has TCP_NODELAY), MSG_MORE and TCP_CORK, urgent bytes, MSG_WAITALL,
 *   ancillary data; O_DIRECT pipes; blocking descriptors.
 * - Directories and permissions: a Unix path may be missing, but not forbidden.
 * - What Linux changed lately: more than 8 bytes for an eventfd; SO_REUSEPORT of Unix sockets;
 *   which of its errors a Unix datagram socket gives after SHUT_WR.
 * - The default of SO_SNDBUF and SO_RCVBUF, which is a world's option here and the administrator's there. */
/* engine-independent */
#include "sim_kernel.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

#define DEFAULT_SEQUENCES 3000
#define PATIENCE_MS       1000
#define RENEWAL           500 /* sequences in one network, before too many ports are in TIME_WAIT */

struct run {
    struct side sim, real;
    unsigned shared, shut, deaf; /* slots that had SO_REUSEPORT; SHUT_WR; SHUT_RD */
    unsigned accepted, joined;   /* that accept made; TCP sockets that connect connected */
    unsigned mapped;             /* that came or connected over IPv4 as IPv6 */
    unsigned patience;
    bool alone;       /* in a network of its own */
    bool reports_all; /* and not only what differs */
    char report[1 << 16];
    size_t written;
};

static char directory[] = "/tmp/asyncore-XXXXXX";

/* -- Comparing -- */

static bool differ(const struct run *run)
{
    return strcmp(run->sim.text, run->real.text) != 0;
}

/* Whether the real call did nothing, so that it can be made again. */
static bool did_nothing(const struct call *call, const struct run *run)
{
    long n = run->real.n;
    switch (call->kind) {
    case POLL:
    case SELECT:
    case EPOLL_WAIT:
    case GETSOCKNAME:
    case GETPEERNAME:
        return true;
    case GETSOCKOPT:
        return n == 0;
    case CONNECT:
        return n == -EALREADY;
    case RECV:
    case RECVFROM:
        return n == -EAGAIN || (call->flags & MSG_PEEK) != 0;
    case ACCEPT:
    case SEND:
    case SENDTO:
    case READ:
    case WRITE:
        return n == -EAGAIN;
    default:
        return false;
    }
}

static void pause_ms(void)
{
    poll(NULL, 0, 1);
}

static bool calls_differ(struct run *run, const struct call *call, unsigned index)
{
    uint64_t end = clock_ns() + run->patience * UINT64_C(1000000);
    side_call(&run->sim, call, index);
    run->real.expected = run->sim.n;
    side_call(&run->real, call, index);
    while (differ(run) && did_nothing(call, run) && clock_ns() < end) {
        pause_ms();
        side_call(&run->real, call, index);
    }
    return differ(run);
}

static bool masks_differ(struct run *run)
{
    uint64_t end = clock_ns() + run->patience * UINT64_C(1000000);
    side_masks(&run->sim);
    side_masks(&run->real);
    while (differ(run) && clock_ns() < end) {
        pause_ms();
        side_masks(&run->real);
    }
    return differ(run);
}

/* -- Sequences -- */

static bool makes_slot(const struct call *call)
{
    return call->kind <= EPOLL;
}

static bool is_unix(const struct run *run, int slot)
{
    int family = 0;
    socklen_t length = sizeof family;
    run->sim.os->getsockopt(run->sim.fd[slot], SOL_SOCKET, SO_DOMAIN, &family, &length, run->sim.os);
    return family == AF_UNIX;
}

static struct sockaddr_in6 name_of(const struct run *run, int slot)
{
    struct sockaddr_in6 name = {.sin6_port = 0}; /* at the same place in sockaddr_in */
    socklen_t length = sizeof name;
    if (slot < 0 || run->sim.os->getsockname(run->sim.fd[slot], (void *)&name, &length, run->sim.os) < 0)
        name.sin6_family = AF_UNSPEC;
    return name;
}

static bool is_connected(const struct run *run, int slot)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    return run->sim.os->getpeername(run->sim.fd[slot], (void *)&peer, &length, run->sim.os) == 0;
}

static bool is_stream(const struct run *run, int slot)
{
    return slot >= 0 && run->sim.type[slot] == SOCK_STREAM;
}

static bool odd_connect(const struct run *run, const struct call *call, bool toward_slot)
{
    struct sockaddr_in6 own = name_of(run, call->a), other = name_of(run, toward_slot ? call->number : -1);
    if (call->where == FOREIGN4 || (call->where <= ANY6 && call->where != NOWHERE))
        return true;
    bool inet = own.sin6_family == AF_INET || own.sin6_family == AF_INET6;
    if (inet && own.sin6_port != 0 && toward_slot && own.sin6_port == other.sin6_port && is_stream(run, call->a))
        return true;
    bool mapped = call->a >= 0 && run->mapped >> call->a & 1;
    if (mapped && call->where == UNSPEC)
        return true;
    return mapped && is_stream(run, call->a) && !is_connected(run, call->a) && call->where != OF_SLOT_MAPPED;
}

/* Whether a socket with SO_REUSEPORT would come to a port that one without has. */
static bool mixes(const struct run *run, const struct call *call)
{
    struct sockaddr_in6 wanted = name_of(run, call->number);
    if (call->a < 0 || wanted.sin6_port == 0 || !(run->shared >> call->a & 1))
        return false;
    for (int i = 0; i < SLOTS; i++)
        if (run->sim.fd[i] != NOT_OPEN && !(run->shared >> i & 1) && run->sim.type[i] == run->sim.type[call->a] &&
            !is_unix(run, i) && name_of(run, i).sin6_port == wanted.sin6_port)
            return true;
    return false;
}

/* Whether a bound TCP socket would no longer share its port. */
static bool odd_reuse(const struct run *run, const struct call *call)
{
    bool shares = call->level == SOL_SOCKET && (call->option == SO_REUSEADDR || call->option == SO_REUSEPORT);
    return shares && call->value == 0 && is_stream(run, call->a) && !is_unix(run, call->a) &&
           name_of(run, call->a).sin6_port != 0;
}

static bool odd_bind(const struct run *run, const struct call *call, bool toward_slot)
{
    if (call->where == NOBODY4 || call->where == NOBODY6 || call->where == HALF_IN)
        return true;
    if (call->a >= 0 && run->accepted >> call->a & 1 && !is_connected(run, call->a))
        return true;
    if (toward_slot && (run->accepted | run->joined) >> call->number & 1 && !is_connected(run, call->number))
        return true;
    if (toward_slot && mixes(run, call))
        return true;
    return toward_slot &&
           (run->sim.fd[call->number] == NOT_OPEN || name_of(run, call->number).sin6_family == AF_UNSPEC);
}

/* What is not run, in neither kernel; the file's head says why. */
static bool left_out(const struct run *run, const struct call *call)
{
    const struct side *sim = &run->sim;
    bool toward_slot = call->where >= OF_SLOT && call->where < NOBODY4;
    bool less_than_none = (call->kind == SELECT && call->value < 0) || (call->kind == EPOLL_WAIT && call->size < 0);
    bool sends = call->kind == SEND || call->kind == SENDTO || call->kind == WRITE;
    if (less_than_none && under_valgrind()) /* which looks for that much memory */
        return true;
    if (makes_slot(call) && sim->fd[call->a] != NOT_OPEN)
        return true;
    if (call->kind == PIPE && call->a == call->b) /* there was no other left */
        return true;
    if (call->kind == SETSOCKOPT && odd_reuse(run, call))
        return true;
    if ((call->kind == ACCEPT || call->kind == PIPE) && sim->fd[call->b] != NOT_OPEN)
        return true;
    if (call->kind == CONNECT && odd_connect(run, call, toward_slot))
        return true;
    if (call->kind == BIND && odd_bind(run, call, toward_slot))
        return true;
    if (call->kind == SENDTO && call->where == UNSPEC && !run->alone && call->a >= 0 && run->mapped >> call->a & 1)
        return true;
    if (call->kind == SENDTO && call->where == FOREIGN4)
        return true;
    if ((call->kind == CONNECT || call->kind == SENDTO) && toward_slot && run->shared >> call->number & 1)
        return true;
    if (call->a < 0)
        return false;
    if (call->kind == WRITE && sim->type[call->a] == EVENTFD_TYPE && call->size > 8)
        return true;
    if (sends && run->shut >> call->a & 1 && sim->type[call->a] == SOCK_DGRAM && is_unix(run, call->a))
        return true;
    if (call->kind == FILL && run->deaf >> call->b & 1)
        return true;
    return call->kind == SETSOCKOPT && call->option == SO_REUSEPORT && is_unix(run, call->a);
}

static void note_effects(struct run *run, const struct call *call)
{
    if (call->kind == SETSOCKOPT && call->level == SOL_SOCKET && call->option == SO_REUSEPORT && call->a >= 0)
        run->shared |= 1u << call->a;
    if (call->kind == SHUTDOWN && call->flags != SHUT_RD && call->a >= 0)
        run->shut |= 1u << call->a;
    if (call->kind == SHUTDOWN && call->flags != SHUT_WR && call->a >= 0)
        run->deaf |= 1u << call->a;
    if (makes_slot(call)) {
        run->shut &= ~(1u << call->a);
        run->deaf &= ~(1u << call->a);
    }
    if (call->kind == ACCEPT && call->a >= 0)
        run->accepted |= 1u << call->b;
    if (call->kind == ACCEPT && call->a >= 0 && run->deaf >> call->a & 1)
        run->deaf |= 1u << call->b;
    if (call->kind == CLOSE && call->a >= 0) {
        run->accepted &= ~(1u << call->a);
        run->joined &= ~(1u << call->a);
        run->mapped &= ~(1u << call->a);
    }
    if (call->kind == CONNECT && is_stream(run, call->a) && !is_unix(run, call->a) && is_connected(run, call->a))
        run->joined |= 1u << call->a;
    if ((call->kind == CONNECT || call->kind == ACCEPT) && call->a >= 0) {
        int slot = call->kind == CONNECT ? call->a : call->b;
        struct sockaddr_in6 own = name_of(run, slot);
        if (own.sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&own.sin6_addr))
            run->mapped |= 1u << slot;
    }
    if (call->kind == ACCEPT && call->a >= 0 && run->shared >> call->a & 1)
        run->shared |= 1u << call->b;
}

static void report(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void report(struct run *run, const char *format, ...)
{
    va_list arguments;
    if (run->written >= sizeof run->report)
        return;
    va_start(arguments, format);
    run->written += (size_t)vsnprintf(run->report + run->written, sizeof run->report - run->written, format, arguments);
    va_end(arguments);
}

static void report_call(struct run *run, const struct call *call, bool same)
{
    char text[512];
    if (same && !run->reports_all)
        return;
    call_print(call, text, sizeof text);
    if (same)
        report(run, "    %s = %s\n", text, run->sim.text);
    else
        report(run, "    %s\n        simulated: %s\n        real:      %s\n", text, run->sim.text, run->real.text);
}

/* A FILL that did not end as it should leaves different amounts behind. */
static bool is_over(const struct run *run, const struct call *call)
{
    return call->kind == FILL && strstr(run->sim.text, "not all") != NULL;
}

/* The index of the first call that differs, or -1. */
static int run_calls(struct run *run, const struct call *calls, int count, unsigned seed)
{
    struct asyncore_sim *world;
    int found = -1;
    ck_assert_int_eq(asyncore_sim_new(&world, seed, NULL), 0);
    side_begin(&run->sim, world, directory, seed);
    side_begin(&run->real, NULL, directory, seed);
    run->written = 0;
    run->shared = run->shut = run->deaf = run->accepted = run->joined = run->mapped = 0;
    for (int i = 0; i < count && found < 0; i++) {
        if (left_out(run, &calls[i]))
            continue;
        bool differs = calls_differ(run, &calls[i], (unsigned)i);
        report_call(run, &calls[i], !differs);
        note_effects(run, &calls[i]);
        if (!differs && is_over(run, &calls[i]))
            break;
        if (!differs && masks_differ(run)) {
            differs = true;
            report(run, "    poll, of every slot\n        simulated:%s\n        real:     %s\n", run->sim.text,
                   run->real.text);
        }
        if (differs)
            found = i;
    }
    side_end(&run->real);
    side_end(&run->sim);
    asyncore_sim_free(world);
    return found;
}

/* Leaves out what is not needed for the difference. */
static int shrink(struct run *run, struct call *calls, int count, unsigned seed)
{
    struct call fewer[MOST];
    run->patience = 50;
    for (bool again = true; again;) {
        again = false;
        for (int i = count - 1; i >= 0; i--) {
            memcpy(fewer, calls, (size_t)count * sizeof *calls);
            memmove(&fewer[i], &fewer[i + 1], (size_t)(count - 1 - i) * sizeof *calls);
            int found = run_calls(run, fewer, count - 1, seed);
            if (found < 0)
                continue;
            count = found + 1;
            memcpy(calls, fewer, (size_t)count * sizeof *calls);
            i = i < count ? i : count;
            again = true;
        }
    }
    run->patience = PATIENCE_MS;
    return count;
}

/* -- The tests -- */

static unsigned environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static unsigned sequences(void)
{
    return environment("SEQUENCES", under_valgrind() || runs_slowly() ? DEFAULT_SEQUENCES / 10 : DEFAULT_SEQUENCES);
}

static void fail_with(struct run *run, enum theme theme, unsigned seed)
{
    struct call calls[MOST];
    int count = plan(theme, seed, run->alone, calls);
    count = shrink(run, calls, count, seed);
    run->reports_all = true;
    run_calls(run, calls, count, seed);
    rmdir(directory);
    ck_abort_msg("theme %d, SEED=%u SEQUENCES=1: the kernels differ\n%s", theme, seed, run->report);
}

/* Whether a difference that came once can be explained where nobody else is: the kernel chose a port that it had given
 * to this sequence before, or one that an earlier sequence has left in TIME_WAIT at another address. */
static bool is_chance(const char *difference)
{
    bool in_use =
        strncmp(difference, "    bind ", 9) == 0 && strstr(difference, "real:      Address already in use") != NULL;
    return in_use || strstr(difference, ":p") != NULL;
}

/* How many of `count` sequences may differ once. */
static unsigned allowance(bool alone, unsigned count)
{
    return alone ? 1 + count / 5000 : 2 + count / 100;
}

START_TEST(the_kernels_agree)
{
    enum theme theme = (enum theme)_i;
    unsigned first = environment("SEED", 1), count = (sequences() + THEMES - 1) / THEMES, once = 0, strange = 0;
    static struct run run = {.patience = PATIENCE_MS};
    static char difference[sizeof run.report];
    struct call calls[MOST];
    run.alone = leave_network();
    skip_unless(has_ipv6(), "no ::1 here");
    signal(SIGPIPE, SIG_IGN);
    must(mkdtemp(directory) != NULL);
    for (unsigned seed = first; seed < first + count; seed++) {
        if (run.alone && (seed - first) % RENEWAL == RENEWAL - 1)
            must(leave_network());
        int length = plan(theme, seed, run.alone, calls);
        if (run_calls(&run, calls, length, seed) < 0)
            continue;
        memcpy(difference, run.report, sizeof difference);
        if (run_calls(&run, calls, length, seed) >= 0 && run_calls(&run, calls, length, seed) >= 0)
            fail_with(&run, theme, seed);
        printf("theme %d, SEED=%u: differed once, and not again\n%s", theme, seed, difference);
        fflush(stdout); /* or it is lost where the test fails */
        once++;
        strange += run.alone && !is_chance(difference);
    }
    rmdir(directory);
    ck_assert_uint_eq(strange, 0);
    ck_assert_uint_le(once, allowance(run.alone, count));
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_set_timeout(tests, 60 + sequences() / 100); /* a difference takes long to shrink */
    tcase_add_loop_test(tests, the_kernels_agree, 0, THEMES);
}

int main(void)
{
    return run_suite("sim_kernel", add_tests, add_values, NULL);
}
