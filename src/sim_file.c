/* sim_file.c: descriptors and what waits for them; pipes, eventfd, timerfd, signalfd.
 *
 * Descriptors are the lowest free number from 3 on, as everywhere. A file without readers or writers is closed at once;
 * only sockets live on, see sim_stream.c.
 *
 * EPOLL keeps a ready list for each set. A stirred file's registrations go to its end if poll(2) would report them;
 * a wait walks the list once, drops what is not ready any more, and puts what it reports back to the end: that is
 * level-triggered, in the order in which Linux reports. */
#include "sim.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>

#define FIRST_FD 3

/* -- Rings -- */

static bool ring_grow(struct sim_ring *ring, size_t need)
{
    size_t room = ring->room != 0 ? ring->room : 2048;
    while (room < need)
        room *= 2;
    char *data = malloc(room);
    if (data == NULL)
        return false;
    sim_ring_peek(ring, 0, data, ring->used);
    free(ring->data);
    ring->data = data;
    ring->room = room;
    ring->head = 0;
    return true;
}

size_t sim_ring_add(struct sim_ring *ring, const void *data, size_t size)
{
    if (size == 0 || (ring->used + size > ring->room && !ring_grow(ring, ring->used + size)))
        return 0;
    size_t at = (ring->head + ring->used) & (ring->room - 1);
    size_t first = size < ring->room - at ? size : ring->room - at;
    memcpy(ring->data + at, data, first);
    memcpy(ring->data, (const char *)data + first, size - first);
    ring->used += size;
    return size;
}

size_t sim_ring_peek(const struct sim_ring *ring, size_t from, void *data, size_t size)
{
    if (from >= ring->used)
        return 0;
    if (size > ring->used - from)
        size = ring->used - from;
    size_t at = (ring->head + from) & (ring->room - 1);
    size_t first = size < ring->room - at ? size : ring->room - at;
    memcpy(data, ring->data + at, first);
    memcpy((char *)data + first, ring->data, size - first);
    return size;
}

void sim_ring_drop(struct sim_ring *ring, size_t size)
{
    ring->used -= size;
    ring->head = ring->used == 0 ? 0 : (ring->head + size) & (ring->room - 1);
}

void sim_ring_clear(struct sim_ring *ring)
{
    free(ring->data);
    *ring = (struct sim_ring){0};
}

/* -- Descriptors -- */

struct sim_file *sim_file_of(struct sim_host *host, int fd)
{
    return fd >= 0 && (unsigned)fd < host->file_room ? host->files[fd] : NULL;
}

bool sim_room_for_one(const struct sim_host *host)
{
    return host->descriptors < host->descriptors_most;
}

int sim_file_open(struct sim_file *file)
{
    struct sim_host *host = file->host;
    unsigned fd = FIRST_FD;
    if (!sim_room_for_one(host))
        return -EMFILE;
    while (fd < host->file_room && host->files[fd] != NULL)
        fd++;
    if (fd >= host->file_room) {
        unsigned room = host->file_room * 2 + 16;
        struct sim_file **files = realloc(host->files, room * sizeof(*files));
        if (files == NULL)
            return -ENFILE;
        memset(files + host->file_room, 0, (room - host->file_room) * sizeof(*files));
        host->files = files;
        host->file_room = room;
    }
    host->files[fd] = file;
    host->descriptors++;
    return file->fd = (int)fd;
}

/* What only one engine makes has numbers apart, so that those of sockets are the same with every engine. */
static bool of_engine(const struct sim_kind *kind);

void sim_file_init(struct sim_file *file, const struct sim_kind *kind, struct sim_host *host, int flags)
{
    file->kind = kind;
    file->host = host;
    file->fd = -1;
    file->flags = flags;
    file->number = of_engine(kind) ? 0x800000 + host->engine_numbers++ : host->numbers++;
    list_init(&file->items);
}

void *sim_file_new(size_t size, const struct sim_kind *kind, struct sim_host *host, int flags)
{
    struct sim_file *file = sim_alloc(size);
    if (file != NULL)
        sim_file_init(file, kind, host, flags);
    return file;
}

static void item_free(struct sim_item *item)
{
    list_unlink(&item->of_file);
    list_unlink(&item->of_set);
    list_unlink(&item->ready);
    free(item);
}

int sim_file_close(struct sim_host *host, int fd)
{
    struct sim_file *file = sim_file_of(host, fd);
    if (file == NULL)
        return -EBADF;
    host->files[fd] = NULL;
    host->descriptors--;
    file->fd = -1;
    while (!list_empty(&file->items))
        item_free(owner_of(file->items.next, struct sim_item, of_file));
    file->kind->close(file);
    return 0;
}

static int opened(struct sim_file *file)
{
    if (file == NULL)
        return -ENOMEM;
    int fd = sim_file_open(file);
    if (fd < 0)
        file->kind->close(file);
    return fd;
}

static ssize_t no_read(struct sim_file *file, void *data, size_t size)
{
    (void)file, (void)data, (void)size;
    return -EINVAL;
}

static ssize_t no_write(struct sim_file *file, const void *data, size_t size)
{
    (void)file, (void)data, (void)size;
    return -EINVAL;
}

/* Not opened for that. */
static ssize_t bad_read(struct sim_file *file, void *data, size_t size)
{
    (void)file, (void)data, (void)size;
    return -EBADF;
}

static ssize_t bad_write(struct sim_file *file, const void *data, size_t size)
{
    (void)file, (void)data, (void)size;
    return -EBADF;
}

/* -- Pipes: two files and what is between them (pipe(7)) -- */

struct pipe_end {
    struct sim_file file;
    struct pipe_end *other; /* NULL: closed */
    struct sim_ring ring;   /* of the reading end */
    size_t limit;
};

#define PIPE_ATOMIC 4096 /* PIPE_BUF: so much is written whole or not at all */

static unsigned pipe_reader_ready(struct sim_file *file)
{
    struct pipe_end *end = (struct pipe_end *)file;
    return (end->ring.used != 0 ? POLLIN | POLLRDNORM : 0) | (end->other == NULL ? POLLHUP : 0);
}

static unsigned pipe_writer_ready(struct sim_file *file)
{
    struct pipe_end *end = (struct pipe_end *)file;
    if (end->other == NULL)
        return POLLOUT | POLLWRNORM | POLLERR;
    return end->limit - end->other->ring.used >= PIPE_ATOMIC ? POLLOUT | POLLWRNORM : 0;
}

static ssize_t pipe_read(struct sim_file *file, void *data, size_t size)
{
    struct pipe_end *end = (struct pipe_end *)file;
    if (size == 0)
        return 0;
    size_t n = sim_ring_peek(&end->ring, 0, data, size);
    if (n == 0)
        return end->other == NULL ? 0 : -EAGAIN;
    sim_ring_drop(&end->ring, n);
    if (end->other != NULL)
        sim_stir(&end->other->file);
    return (ssize_t)n;
}

static ssize_t pipe_write(struct sim_file *file, const void *data, size_t size)
{
    struct pipe_end *end = (struct pipe_end *)file;
    if (size == 0)
        return 0;
    if (end->other == NULL)
        return -EPIPE;
    size_t room = end->limit - end->other->ring.used;
    if (room == 0 || (size <= PIPE_ATOMIC && size > room))
        return -EAGAIN;
    size_t n = sim_ring_add(&end->other->ring, data, size < room ? size : room);
    sim_stir(&end->other->file);
    return n == 0 ? -ENOMEM : (ssize_t)n;
}

static void pipe_close(struct sim_file *file)
{
    struct pipe_end *end = (struct pipe_end *)file;
    if (end->other != NULL) {
        end->other->other = NULL;
        sim_stir(&end->other->file);
    }
    sim_ring_clear(&end->ring);
    free(end);
}

static const struct sim_kind pipe_reader = {"pipe", pipe_reader_ready, pipe_read, bad_write, pipe_close};
static const struct sim_kind pipe_writer = {"pipe", pipe_writer_ready, bad_read, pipe_write, pipe_close};

int sim_pipe(struct sim_host *host, int fds[2])
{
    struct pipe_end *reader = sim_file_new(sizeof *reader, &pipe_reader, host, O_RDONLY);
    struct pipe_end *writer = sim_file_new(sizeof *writer, &pipe_writer, host, O_WRONLY);
    if (reader == NULL || writer == NULL) {
        free(reader);
        free(writer);
        return -ENOMEM;
    }
    reader->other = writer;
    writer->other = reader;
    reader->limit = writer->limit = host->world->options.pipe_buffer;
    int in = opened(&reader->file);
    int out = in < 0 ? in : opened(&writer->file);
    if (out < 0) {
        if (in < 0)
            pipe_close(&writer->file);
        else
            sim_file_close(host, in);
        return out;
    }
    fds[0] = in;
    fds[1] = out;
    return 0;
}

/* -- eventfd(2), timerfd_create(2), signalfd(2) -- */

struct counter {
    struct sim_file file;
    uint64_t count;    /* eventfd, and how often the others would say something */
    uint64_t deadline; /* timerfd: on the host's clock; 0: none */
    int number;        /* signalfd: its count is the host's */
};

static unsigned counter_ready(struct sim_file *file)
{
    return ((struct counter *)file)->count != 0 ? POLLIN : 0;
}

static unsigned event_ready(struct sim_file *file)
{
    struct counter *counter = (struct counter *)file;
    return counter_ready(file) | (counter->count < UINT64_MAX - 1 ? POLLOUT : 0);
}

static ssize_t counter_read(struct sim_file *file, void *data, size_t size)
{
    struct counter *counter = (struct counter *)file;
    if (size < sizeof counter->count)
        return -EINVAL;
    if (counter->count == 0)
        return -EAGAIN;
    memcpy(data, &counter->count, sizeof counter->count);
    counter->count = 0;
    sim_stir(file);
    return sizeof counter->count;
}

static ssize_t event_write(struct sim_file *file, const void *data, size_t size)
{
    struct counter *counter = (struct counter *)file;
    uint64_t count;
    if (size < sizeof count)
        return -EINVAL;
    memcpy(&count, data, sizeof count);
    if (count == UINT64_MAX)
        return -EINVAL;
    if (UINT64_MAX - 1 - counter->count < count)
        return -EAGAIN;
    counter->count += count;
    sim_stir(file);
    return sizeof count;
}

static uint32_t *pending_of(struct sim_file *file)
{
    return &file->host->pending[((struct counter *)file)->number];
}

static unsigned signal_ready(struct sim_file *file)
{
    return *pending_of(file) != 0 ? POLLIN : 0;
}

/* Whichever signalfd is read first has it; as many as there is room for. */
static ssize_t signal_read(struct sim_file *file, void *data, size_t size)
{
    struct signalfd_siginfo info = {.ssi_signo = (uint32_t)((struct counter *)file)->number};
    uint32_t *pending = pending_of(file);
    size_t n = 0;
    if (size < sizeof info)
        return -EINVAL;
    if (*pending == 0)
        return -EAGAIN;
    for (; *pending != 0 && size - n >= sizeof info; n += sizeof info, --*pending)
        memcpy((char *)data + n, &info, sizeof info);
    return (ssize_t)n;
}

static void counter_close(struct sim_file *file)
{
    sim_events_forget(file->host->world, file);
    free(file);
}

static const struct sim_kind event_kind = {"eventfd", event_ready, counter_read, event_write, counter_close};
static const struct sim_kind timer_kind = {"timerfd", counter_ready, counter_read, no_write, counter_close};
static const struct sim_kind signal_kind = {"signalfd", signal_ready, signal_read, no_write, counter_close};

int sim_eventfd(struct sim_host *host)
{
    return opened(sim_file_new(sizeof(struct counter), &event_kind, host, O_RDWR | O_NONBLOCK));
}

int sim_timerfd(struct sim_host *host)
{
    return opened(sim_file_new(sizeof(struct counter), &timer_kind, host, O_RDWR | O_NONBLOCK));
}

static void timer_due(struct asyncore_sim *world, void *object, uint64_t deadline)
{
    struct counter *timer = object;
    if (timer->deadline == 0 || timer->deadline != deadline || world->closing)
        return;
    timer->deadline = 0;
    timer->count = 1;
    sim_stir(&timer->file);
}

/* When the host's clock shows the deadline. */
static void timer_schedule(struct counter *timer)
{
    struct sim_host *host = timer->file.host;
    uint64_t clock = host->os.now(&host->os), now = sim_host_time(host);
    sim_event_add(host->world, timer->deadline <= clock ? now : now + (timer->deadline - clock), timer_due, timer,
                  timer->deadline);
}

int sim_timerfd_set(struct sim_file *file, uint64_t deadline)
{
    struct counter *timer = (struct counter *)file;
    if (file->kind != &timer_kind)
        return -EINVAL;
    sim_events_forget(file->host->world, file);
    timer->count = 0;
    timer->deadline = deadline;
    if (deadline != 0 && deadline <= file->host->os.now(&file->host->os)) {
        timer->deadline = 0;
        timer->count = 1;
        sim_stir(file);
    } else if (deadline != 0) {
        timer_schedule(timer);
    }
    return 0;
}

void sim_timer_jumped(struct sim_file *file)
{
    struct counter *timer = (struct counter *)file;
    if (file->kind != &timer_kind || timer->deadline == 0)
        return;
    sim_events_forget(file->host->world, file);
    timer_schedule(timer);
}

/* glibc keeps 32 and 33 to itself. */
int sim_signalfd(struct sim_host *host, int number, int *was_blocked)
{
    if (number < 1 || number > SIM_SIGNALS || number == 32 || number == 33)
        return -EINVAL;
    struct counter *counter = sim_file_new(sizeof *counter, &signal_kind, host, O_RDWR | O_NONBLOCK);
    if (counter == NULL)
        return -ENOMEM;
    counter->number = number;
    int fd = opened(&counter->file);
    if (fd < 0)
        return fd;
    *was_blocked = host->blocked >> (number - 1) & 1;
    host->blocked |= UINT64_C(1) << (number - 1);
    return fd;
}

void sim_signalfd_close(struct sim_host *host, int fd, int number, int was_blocked)
{
    sim_file_close(host, fd);
    if (was_blocked)
        return;
    host->pending[number] = 0;
    host->blocked &= ~(UINT64_C(1) << (number - 1));
}

void sim_signal_raised(struct sim_host *host, int number)
{
    if (!(host->blocked >> (number - 1) & 1))
        return;
    if (number < 32) /* standard signals do not queue (signal(7)) */
        host->pending[number] = 1;
    else
        host->pending[number]++;
    for (unsigned fd = 0; fd < host->file_room; fd++) {
        struct sim_file *file = host->files[fd];
        if (file != NULL && file->kind == &signal_kind && ((struct counter *)file)->number == number)
            sim_stir(file);
    }
}

/* -- epoll -- */

struct set {
    struct sim_file file;
    link_t items, ready;
};

static unsigned item_ready(struct sim_item *item)
{
    return item->file->kind->ready(item->file) & (item->event.events | POLLERR | POLLHUP);
}

static unsigned set_ready(struct sim_file *file)
{
    struct set *set = (struct set *)file;
    for (link_t *link = set->ready.next; link != &set->ready; link = link->next)
        if (item_ready(owner_of(link, struct sim_item, ready)) != 0)
            return POLLIN | POLLRDNORM;
    return 0;
}

static void set_close(struct sim_file *file)
{
    struct set *set = (struct set *)file;
    while (!list_empty(&set->items))
        item_free(owner_of(set->items.next, struct sim_item, of_set));
    free(set);
}

static const struct sim_kind set_kind = {"epoll", set_ready, no_read, no_write, set_close};

static bool of_engine(const struct sim_kind *kind)
{
    return kind == &set_kind || kind == &event_kind || kind == &timer_kind;
}

int sim_epoll_create(struct sim_host *host)
{
    struct set *set = sim_file_new(sizeof *set, &set_kind, host, O_RDWR);
    if (set == NULL)
        return -ENOMEM;
    list_init(&set->items);
    list_init(&set->ready);
    return opened(&set->file);
}

static void item_stir(struct sim_item *item)
{
    if (item_ready(item) == 0)
        return;
    if (item->ready.next == NULL || list_empty(&item->ready))
        list_append(&((struct set *)item->set)->ready, &item->ready);
    sim_stir(item->set);
}

void sim_stir(struct sim_file *file)
{
    file->host->stirred = true;
    for (link_t *link = file->items.next; link != &file->items; link = link->next)
        item_stir(owner_of(link, struct sim_item, of_file));
}

static struct sim_item *item_find(struct set *set, const struct sim_file *file)
{
    for (link_t *link = file->items.next; link != &file->items; link = link->next) {
        struct sim_item *item = owner_of(link, struct sim_item, of_file);
        if (item->set == &set->file)
            return item;
    }
    return NULL;
}

static int item_add(struct set *set, struct sim_file *file, const struct epoll_event *event)
{
    struct sim_item *item = sim_alloc(sizeof *item);
    if (item == NULL)
        return -ENOMEM;
    item->file = file;
    item->set = &set->file;
    item->event = *event;
    item->fd = file->fd;
    list_append(&file->items, &item->of_file);
    list_append(&set->items, &item->of_set);
    item_stir(item);
    return 0;
}

/* Sets within sets: a circle would stir itself for ever, and Linux has no more than five, one in the other. */
#define SETS_DEEP 5

static bool reaches(struct sim_file *file, const struct sim_file *target)
{
    struct set *set = (struct set *)file;
    if (file == target)
        return true;
    for (link_t *link = set->items.next; link != &set->items; link = link->next) {
        struct sim_file *inner = owner_of(link, struct sim_item, of_set)->file;
        if (inner->kind == &set_kind && reaches(inner, target))
            return true;
    }
    return false;
}

static int sets_below(struct sim_file *file)
{
    struct set *set = (struct set *)file;
    int most = 0;
    for (link_t *link = set->items.next; link != &set->items; link = link->next) {
        struct sim_file *inner = owner_of(link, struct sim_item, of_set)->file;
        int deep = inner->kind == &set_kind ? 1 + sets_below(inner) : 0;
        most = deep > most ? deep : most;
    }
    return most;
}

static int sets_above(const struct sim_file *file)
{
    int most = 0;
    for (const link_t *link = file->items.next; link != &file->items; link = link->next) {
        int high = 1 + sets_above(owner_of(link, struct sim_item, of_file)->set);
        most = high > most ? high : most;
    }
    return most;
}

int sim_epoll_ctl(struct sim_file *file, int op, int fd, struct epoll_event *event)
{
    struct set *set = (struct set *)file;
    struct sim_file *target = sim_file_of(file->host, fd);
    if (target == NULL)
        return -EBADF;
    if (file->kind != &set_kind || target == file)
        return -EINVAL;
    struct sim_item *item = item_find(set, target);
    if (op == EPOLL_CTL_ADD) {
        if (target->kind == &set_kind &&
            (reaches(target, file) || sets_below(target) + sets_above(file) + 1 >= SETS_DEEP))
            return -ELOOP;
        return item != NULL ? -EEXIST : item_add(set, target, event);
    }
    if (op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL)
        return -EINVAL;
    if (item == NULL)
        return -ENOENT;
    if (op == EPOLL_CTL_DEL) {
        item_free(item);
        return 0;
    }
    item->event = *event;
    item_stir(item);
    return 0;
}

/* Once an instant: among hundreds of files one is always struck, and the host would never come to wait. */
static bool spurious(struct sim_file *file)
{
    uint64_t instant = file->host->world->time + 1;
    if (file->host->world->options.chances[ASYNCORE_SIM_SPURIOUS] == 0 || file->doubted == instant ||
        file->kind->ready(file) & SIM_SURE)
        return false;
    file->doubted = instant;
    return sim_fault(file->host, file, ASYNCORE_SIM_SPURIOUS);
}

static void events_shuffle(struct sim_file *set, struct epoll_event *events, int count)
{
    if (count < 2 || !sim_fault(set->host, NULL, ASYNCORE_SIM_REORDER))
        return;
    for (int i = count - 1; i > 0; i--) {
        int other = (int)(sim_chance(set->host->world) % (unsigned)(i + 1));
        struct epoll_event event = events[i];
        events[i] = events[other];
        events[other] = event;
    }
}

/* What is not ready and reported all the same. */
static int events_spurious(struct set *set, struct epoll_event *events, int size, int count)
{
    if (set->file.host->world->options.chances[ASYNCORE_SIM_SPURIOUS] == 0)
        return count;
    for (link_t *link = set->items.next; link != &set->items && count < size; link = link->next) {
        struct sim_item *item = owner_of(link, struct sim_item, of_set);
        unsigned wanted = item->event.events & (POLLIN | POLLOUT);
        if (wanted == 0 || of_engine(item->file->kind) || item_ready(item) != 0 || !spurious(item->file))
            continue;
        events[count].events = wanted;
        events[count++].data = item->event.data;
    }
    return count;
}

int sim_epoll_wait(struct sim_file *file, struct epoll_event *events, int size)
{
    struct set *set = (struct set *)file;
    link_t todo;
    int count = 0;
    if (file->kind != &set_kind || size <= 0)
        return -EINVAL;
    list_take(&set->ready, &todo);
    while (!list_empty(&todo) && count < size) {
        struct sim_item *item = owner_of(todo.next, struct sim_item, ready);
        unsigned ready = item_ready(item);
        list_unlink(&item->ready);
        if (ready == 0)
            continue;
        list_append(&set->ready, &item->ready);
        events[count].events = ready;
        events[count++].data = item->event.data;
    }
    while (!list_empty(&set->ready)) { /* those not looked at come before those reported */
        link_t *link = set->ready.next;
        list_unlink(link);
        list_append(&todo, link);
    }
    list_take(&todo, &set->ready);
    events_shuffle(file, events, count);
    return events_spurious(set, events, size, count);
}

/* -- poll and select -- */

int sim_poll(struct sim_host *host, struct pollfd *fds, nfds_t count)
{
    int ready = 0;
    for (nfds_t i = 0; i < count; i++) {
        struct sim_file *file = sim_file_of(host, fds[i].fd);
        unsigned wanted = (unsigned short)fds[i].events, seen = 0;
        if (fds[i].fd >= 0 && file == NULL)
            seen = POLLNVAL;
        else if (fds[i].fd >= 0)
            seen = file->kind->ready(file) & (wanted | POLLERR | POLLHUP);
        if (seen == 0 && file != NULL && (wanted & (POLLIN | POLLOUT)) != 0 && !of_engine(file->kind) && spurious(file))
            seen = wanted & (POLLIN | POLLOUT);
        fds[i].revents = (short)seen;
        ready += seen != 0;
    }
    return ready;
}

/* Which of select(2)'s sets a file belongs to, as Linux maps them from poll's bits. */
#define SELECT_READ   (POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR)
#define SELECT_WRITE  (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR)
#define SELECT_EXCEPT POLLPRI

static int select_one(struct sim_file *file, int fd, const bool *wanted, fd_set *results)
{
    static const unsigned bits[3] = {SELECT_READ, SELECT_WRITE, SELECT_EXCEPT};
    unsigned seen = file->kind->ready(file);
    int ready = 0;
    for (int i = 0; i < 3; i++) {
        if (!wanted[i])
            continue;
        if ((seen & bits[i]) == 0 && (bits[i] == SELECT_EXCEPT || of_engine(file->kind) || !spurious(file)))
            continue;
        FD_SET(fd, &results[i]);
        ready++;
    }
    return ready;
}

int sim_select(struct sim_host *host, int count, fd_set *reads, fd_set *writes, fd_set *excepts)
{
    fd_set *sets[3] = {reads, writes, excepts}, results[3];
    int ready = 0;
    for (int i = 0; i < 3; i++)
        FD_ZERO(&results[i]);
    for (int fd = 0; fd < count; fd++) {
        struct sim_file *file = sim_file_of(host, fd);
        bool wanted[3];
        for (int i = 0; i < 3; i++)
            wanted[i] = sets[i] != NULL && FD_ISSET(fd, sets[i]);
        if (!wanted[0] && !wanted[1] && !wanted[2])
            continue;
        if (file == NULL)
            return -EBADF;
        ready += select_one(file, fd, wanted, results);
    }
    for (int i = 0; i < 3 && ready >= 0; i++)
        if (sets[i] != NULL)
            *sets[i] = results[i];
    return ready;
}
