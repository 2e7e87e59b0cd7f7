/* test_uring_seam.c: io_uring needs nothing of the kernel that the os table has not: a ring is set up, mapped, filled,
 * entered and emptied here through the table alone. That is what an engine on it will stand on. */
/* engine-independent */
#include "asyncore_sim.h"
#include "os.h"
#include "sim.h"
#include "support.h"
#include <linux/io_uring.h>
#include <stdatomic.h>

#define MARK 0x5EA11u

struct ring {
    struct io_uring_params params;
    int fd;
    char *rings;
    struct io_uring_sqe *sqes;
    size_t rings_size, sqes_size;
};

static unsigned *at(const struct ring *ring, unsigned offset)
{
    return (unsigned *)(void *)(ring->rings + offset);
}

/* One memory for both rings: Linux 5.4, and the library asks for 5.10. */
static void ring_map(struct ring *ring, struct os *os)
{
    const struct io_uring_params *p = &ring->params;
    size_t submit = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    size_t complete = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    ck_assert(p->features & IORING_FEAT_SINGLE_MMAP);
    ring->rings_size = submit > complete ? submit : complete;
    ring->sqes_size = p->sq_entries * sizeof *ring->sqes;
    ring->rings = os->uring_map(ring->fd, ring->rings_size, IORING_OFF_SQ_RING, os);
    ring->sqes = os->uring_map(ring->fd, ring->sqes_size, IORING_OFF_SQES, os);
    ck_assert_ptr_nonnull(ring->rings);
    ck_assert_ptr_nonnull(ring->sqes);
}

static void nop_submit(struct ring *ring)
{
    const struct io_uring_params *p = &ring->params;
    unsigned tail = *at(ring, p->sq_off.tail), place = tail & *at(ring, p->sq_off.ring_mask);
    ring->sqes[place] = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .user_data = MARK};
    at(ring, p->sq_off.array)[place] = place;
    atomic_store_explicit((_Atomic unsigned *)at(ring, p->sq_off.tail), tail + 1, memory_order_release);
}

START_TEST(a_ring_works_through_the_table)
{
    struct os *os = &os_linux;
    struct ring ring = {.params = {0}};
    ring.fd = os->uring_setup(4, &ring.params, os);
    if (ring.fd < 0) { /* containers forbid it, old kernels lack it: an engine then falls back to epoll */
        must(ring.fd == -EPERM || ring.fd == -ENOSYS || ring.fd == -EACCES);
        return;
    }
    ring_map(&ring, os);
    nop_submit(&ring);
    ck_assert_int_eq(os->uring_enter(ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0, os), 1);
    const struct io_uring_params *p = &ring.params;
    unsigned head = *at(&ring, p->cq_off.head);
    unsigned tail = atomic_load_explicit((_Atomic unsigned *)at(&ring, p->cq_off.tail), memory_order_acquire);
    ck_assert_uint_eq(tail - head, 1);
    const struct io_uring_cqe *cqes = (void *)(ring.rings + p->cq_off.cqes);
    const struct io_uring_cqe *cqe = &cqes[head & *at(&ring, p->cq_off.ring_mask)];
    ck_assert_uint_eq(cqe->user_data, MARK);
    ck_assert_int_eq(cqe->res, 0);
    ck_assert_int_eq(os->uring_register(ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0, os), -ENXIO);
    os->uring_unmap(ring.sqes, ring.sqes_size, os);
    os->uring_unmap(ring.rings, ring.rings_size, os);
    ck_assert_int_eq(os->close(ring.fd, os), 0);
}
END_TEST

START_TEST(the_simulated_kernel_has_none_and_says_so)
{
    struct asyncore_sim *world;
    struct io_uring_params params = {0};
    ck_assert_int_eq(asyncore_sim_new(&world, 1, NULL), 0);
    struct os *os = sim_os(world, "host");
    ck_assert_int_eq(os->uring_setup(4, &params, os), -ENOSYS);
    ck_assert_int_eq(os->uring_enter(3, 1, 1, 0, NULL, 0, os), -ENOSYS);
    ck_assert_int_eq(os->uring_register(3, IORING_UNREGISTER_BUFFERS, NULL, 0, os), -ENOSYS);
    ck_assert_ptr_null(os->uring_map(3, 4096, 0, os));
    os->uring_unmap(NULL, 0, os);
    asyncore_sim_free(world);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, a_ring_works_through_the_table);
    tcase_add_test(tests, the_simulated_kernel_has_none_and_says_so);
}

int main(void)
{
    return run_suite("uring_seam", add, NULL);
}
