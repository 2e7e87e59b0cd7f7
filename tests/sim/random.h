/* random.h: numbers that follow from a seed: splitmix64, whose state is one word. */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_word(struct random *r)
{
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* From low to high, both included. */
static inline uint64_t random_in(struct random *r, uint64_t low, uint64_t high)
{
    return low + random_word(r) % (high - low + 1);
}

/* The same, but each size of number is as likely as the next: 1 to 1,000,000 is below 1,000 every other time. */
static inline uint64_t random_scale(struct random *r, uint64_t low, uint64_t high)
{
    unsigned bits = 0;
    uint64_t bound;

    while (bits < 63 && (high - low) >> bits)
        bits++;
    bound = UINT64_C(1) << random_in(r, 0, bits);
    bound = bound - 1 > high - low ? high - low : bound - 1;
    return low + random_word(r) % (bound + 1);
}

static inline bool random_chance(struct random *r, unsigned percent)
{
    return random_word(r) % 100 < percent;
}

#endif
