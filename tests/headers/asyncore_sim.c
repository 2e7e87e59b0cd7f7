/* A user of asyncore_sim.h alone: see asyncore.c beside this file. */
#include <asyncore_sim.h>
#include <asyncore_sim.h>

int use_sim(void (*later)(struct asyncore_sim *world, void *arg));

int use_sim(void (*later)(struct asyncore_sim *world, void *arg))
{
    static struct asyncore_sim_options options;
    static struct asyncore_sim_usage usage;
    struct asyncore_sim *world;

    options.chances[ASYNCORE_SIM_SHORT] = 1000;
    if (asyncore_sim_new(&world, 1, &options) < 0 || asyncore_sim_map(world, "host") == NULL)
        return 1;
    asyncore_sim_at(world, 5 * ASYNCORE_SIM_MS, later, NULL);
    asyncore_sim_run(world, ASYNCORE_SIM_FOREVER);
    asyncore_sim_usage(world, "host", &usage);
    asyncore_sim_free(world);
    return usage.calls[ASYNCORE_SIM_ANY] != 0;
}
