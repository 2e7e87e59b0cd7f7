/* awkward: a kernel that answers as it may, and hardly ever does. Preloaded (LD_PRELOAD) into a program, it makes one
 * in so many calls (AWKWARD, "SEED:ONE_IN") of those that move bytes or wait for them
 *
 *     say "not now" although there is something             EAGAIN
 *     be interrupted                                        EINTR
 *     do less than they could                               short counts, fewer events, in another order
 *     find the kernel short of memory, or clients gone      ENOBUFS, ECONNABORTED
 *     not splice this socket                                EINVAL, one in so many splices again: it holds for good
 *
 * None of it may change what a program does in the end. At the program's end a line on stderr says how often what was
 * done, "awkward: recv 12 send 3 ...", so that a test can tell that it tested something.
 *
 * Whatever a call does for real it does through the libc: a sanitizer's eyes stay open. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECV, SEND, SPLICE, REFUSED, PIPE, CONNECT, ACCEPT, WAIT, KINDS, DESCRIPTORS = 65536 };

static const char *const names[KINDS] = {"recv",    "send",   "splice", "refused-splice", "pipe",
                                           "connect", "accept", "wait"};
static unsigned counts[KINDS];
static uint64_t state;
static unsigned one_in;
static bool connecting[DESCRIPTORS]; /* connect(2) was begun here, and what came of it not asked for */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("AWKWARD");
    unsigned long long seed = 1;

    if (text && sscanf(text, "%llu:%u", &seed, &one_in) != 2)
        one_in = 0;
    state = seed;
}

__attribute__((destructor)) static void end(void)
{
    char text[256];
    int length = snprintf(text, sizeof(text), "awkward:");

    for (int i = 0; i < KINDS; i++)
        length += snprintf(text + length, sizeof(text) - (size_t)length, " %s %u", names[i], counts[i]);
    text[length++] = '\n';
    if (one_in && write(STDERR_FILENO, text, (size_t)length) < 0)
        return; /* nobody hears it: nor would a test */
}

/* splitmix64, for whichever thread asks */
static unsigned draw(unsigned below)
{
    uint64_t z;

    pthread_mutex_lock(&lock);
    z = state += 0x9e3779b97f4a7c15u;
    pthread_mutex_unlock(&lock);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % below);
}

static bool awkward(int kind)
{
    if (one_in == 0 || draw(one_in) != 0)
        return false;
    __atomic_add_fetch(&counts[kind], 1, __ATOMIC_RELAXED);
    return true;
}

static ssize_t fails(int error)
{
    errno = error;
    return -1;
}

/* The libc's function of this name, in a pointer of the type that it has here. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static size_t less(size_t size)
{
    return size > 1 ? 1 + draw(size > 64 && draw(2) ? 64 : (unsigned)(size - 1)) : size;
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    if (awkward(RECV)) {
        switch (draw(3)) {
        case 0: return fails(EAGAIN);
        case 1: return fails(EINTR);
        default: size = less(size);
        }
    }
    return REAL(recv)(fd, data, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    if (awkward(SEND)) {
        switch (draw(4)) {
        case 0: return fails(EAGAIN);
        case 1: return fails(EINTR);
        case 2: return fails(ENOBUFS);
        default: size = less(size);
        }
    }
    return REAL(send)(fd, data, size, flags);
}

ssize_t splice(int in, loff_t *in_at, int out, loff_t *out_at, size_t size, unsigned flags)
{
    if (awkward(SPLICE)) {
        switch (draw(3)) {
        case 0: return fails(EAGAIN);
        case 1: return fails(EINTR);
        default: size = less(size);
        }
    }
    if (one_in && draw(one_in) == 0 && awkward(REFUSED))
        return fails(EINVAL);
    return REAL(splice)(in, in_at, out, out_at, size, flags);
}

/* Out of a pipe: what was spliced into it. Other descriptors are nobody's business. */
ssize_t read(int fd, void *data, size_t size)
{
    struct stat status;

    if (one_in && size > 0 && fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && awkward(PIPE)) {
        if (draw(2))
            return fails(EINTR);
        size = less(size);
    }
    return REAL(read)(fd, data, size);
}

int socket(int family, int type, int protocol)
{
    int fd = REAL(socket)(family, type, protocol);

    if (fd >= 0 && fd < DESCRIPTORS)
        connecting[fd] = false;
    return fd;
}

/* A connect(2) that asks what came of an earlier one finds it still under way: a wake-up for nothing. */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    bool known = fd >= 0 && fd < DESCRIPTORS;
    int r;

    if (known && connecting[fd] && awkward(CONNECT))
        return (int)fails(EALREADY);
    r = REAL(connect)(fd, address, length);
    if (known)
        connecting[fd] = r < 0 && (errno == EINPROGRESS || errno == EALREADY);
    if (r < 0 && errno == EINPROGRESS && awkward(CONNECT))
        errno = EINTR; /* and goes on by itself, connect(2) */
    return r;
}

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict length, int flags)
{
    static const int errors[] = {EAGAIN, EINTR, ECONNABORTED, ENOBUFS};

    if (awkward(ACCEPT))
        return (int)fails(errors[draw(4)]);
    return REAL(accept4)(fd, address, length, flags);
}

int epoll_wait(int set, struct epoll_event *events, int size, int timeout)
{
    int count;

    if (!awkward(WAIT))
        return REAL(epoll_wait)(set, events, size, timeout);
    if (draw(3) == 0)
        return (int)fails(EINTR);
    count = REAL(epoll_wait)(set, events, (int)less((size_t)size), timeout);
    for (int i = 0, j = count - 1; i < j; i++, j--) {
        struct epoll_event event = events[i];

        events[i] = events[j];
        events[j] = event;
    }
    return count;
}
