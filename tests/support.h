/* support.h: what the Check programs share: a map and a count of descriptors for each test, probes (channels that
 * write down what happens to them), blocking peers, and loops with a deadline. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "asynchat.h"
#include "asyncore.h"
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* -- The program -- */

/* The map of the test in hand: made before it, freed after it. */
extern struct asyncore_map *map;
void use_map(const struct asyncore_map_options *options); /* another one in its place */

/* Runs the tests that each function adds (NULL ends them); main returns what it returns. Each test gets a process, a
 * time limit and a fresh map, and fails if it leaves more or fewer descriptors behind than it found. */
int run_suite(const char *name, void (*add)(TCase *tests), ...);

/* _exit(2) for a test's own child: what it ran is counted too (make coverage). */
void leave_child(int status) __attribute__((noreturn));

/* For what is checked very often: Check writes a record of each of its own assertions. */
#define must(condition) \
    do { \
        if (!(condition)) \
            ck_abort_msg("not so: %s", #condition); \
    } while (0)

/* Leaves a test that cannot be run here, and says so. */
#define skip_unless(condition, why) \
    do { \
        if (!(condition)) { \
            printf("skipped: %s: %s\n", __func__, why); \
            return; \
        } \
    } while (0)

bool has_ipv6(void);
bool has_cares(void);
bool engine_is(const char *name);
bool under_valgrind(void);
bool runs_slowly(void); /* under a checker: figures of time mean little */
int count_descriptors(void);

/* -- Notes: what happened, in order, as one line of words -- */

void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *notes(void);
void forget_notes(void);

/* Compares, and begins a new line. */
#define assert_notes(expected) \
    do { \
        ck_assert_str_eq(notes(), expected); \
        forget_notes(); \
    } while (0)

/* -- Time -- */

uint64_t clock_ns(void);
uint64_t cpu_ns(void); /* of this process */
unsigned patience(void); /* ms after which a test gives up, stretched by $CK_TIMEOUT_MULTIPLIER */

/* Turns until the condition holds; fails at the deadline. */
#define run_map_until(m, condition) \
    do { \
        uint64_t end_ = clock_ns() + patience() * UINT64_C(1000000); \
        while (!(condition)) { \
            if (clock_ns() >= end_) \
                ck_abort_msg("still not: %s (notes: %.200s)", #condition, notes()); \
            must(asyncore_poll(m, 20) >= 0); \
        } \
    } while (0)
#define run_until(condition) run_map_until(map, condition)

/* Waits without turns. */
#define wait_until(condition) \
    do { \
        uint64_t end_ = clock_ns() + patience() * UINT64_C(1000000); \
        while (!(condition)) { \
            if (clock_ns() >= end_) \
                ck_abort_msg("still not: %s", #condition); \
            rest_ms(1); \
        } \
    } while (0)
void rest_ms(unsigned milliseconds);

/* Serves the map for so long, and returns how many turns that took: a few when nothing happens. */
int run_for(unsigned milliseconds);
void assert_idle_for(unsigned milliseconds); /* no more turns than the waiting itself takes */
void turn(void); /* one, without waiting */

/* -- Probes -- */

/* A channel that counts and notes its handlers. Lives until the test's map is gone. */
struct probe {
    struct asyncore_dispatcher base;
    char name[8];          /* goes before its notes: "a:read" */
    unsigned char *input;
    size_t bytes;          /* in input */
    size_t piece;          /* how much a read takes; 0: a lot */
    int connects, reads, writes, accepts, sockets, closes, errors, destroys;
    int error;             /* what handle_error was told */
    int result;            /* what handle_read returns when it read something, if not 0 */
    bool stays;            /* handle_close and handle_error do not close */
    struct probe *other;   /* whatever a test needs */
    struct asyncore_map *second;
    int number;
    struct probe *next;
};

/* Notes connect, read, write, close, error, destroy, and does what the parent does; counts handle_socket.
 * Writes nothing. */
extern const struct asyncore_class probe_class;

struct probe *probe_new(const struct asyncore_class *class_, const char *name);
struct probe *probe_on(const struct asyncore_class *class_, const char *name, int fd); /* set_socket */
struct probe *probe_with_peer(const struct asyncore_class *class_, int *peer);           /* unix_pair */
struct probe *probe_listen(const struct asyncore_class *class_, const char *name, const char *host, char port[8]);

static inline struct probe *probe_of(struct asyncore_dispatcher *d)
{
    return (struct probe *)d;
}

void probe_note(struct probe *p, const char *what);

/* -- Peers: blocking sockets that give up after a while -- */

void unix_pair(int fds[2]);
void tcp_pair(int fds[2]);
int peer_listen(const char *host, char port[8]); /* numeric host; port "0" or "" chooses one and is filled in */
int peer_connect(const char *host, const char *port);
int peer_accept(int listener);
void peer_send(int fd, const void *data, size_t size);
size_t peer_recv(int fd, void *data, size_t size); /* as much as size, less at the end of the stream */
bool peer_at_end(int fd);                          /* the next thing is the end of the stream */
bool peer_reset_came(int fd);                      /* ... or a reset */
void peer_reset(int fd);                           /* closes so that the other side gets a reset */
bool readable_now(int fd, int milliseconds);
size_t waiting_bytes(int fd);                      /* unread in the kernel */
void small_buffers(int fd);                        /* as small as the kernel allows, for both directions */
void set_blocking(int fd, bool on);
bool is_open(int fd);
int full_listener(char port[8], int fillers[], int *count); /* whose next client has to wait; at most 16 fillers */
int refusing_port(char port[8]); /* bound, so that nobody else gets it, and not listening */
void channel_port(struct asyncore_dispatcher *d, char port[8]);

/* -- Bytes of which every stretch is different -- */

void pattern_fill(void *data, size_t offset, size_t size);
void pattern_check(const void *data, size_t offset, size_t size);
uint32_t random_next(uint32_t *state); /* the same numbers every time */

#endif
