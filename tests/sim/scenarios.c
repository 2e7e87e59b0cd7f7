/* scenarios.c: the table. */
#include "scenario.h"

#include <string.h>

extern const struct scenario scenario_echo, scenario_echo_logging, scenario_hello_http, scenario_client_http,
    scenario_room, scenario_forward, scenario_timers, scenario_names, scenario_udp, scenario_files,
    scenario_accept_storm, scenario_corners, scenario_idle, scenario_depot, scenario_reuse, scenario_swarm, scenario_rules;

const struct scenario *const scenarios[] = {&scenario_echo,
                                            &scenario_echo_logging,
                                            &scenario_hello_http,
                                            &scenario_client_http,
                                            &scenario_room,
                                            &scenario_forward,
                                            &scenario_timers,
                                            &scenario_names,
                                            &scenario_udp,
                                            &scenario_files,
                                            &scenario_accept_storm,
                                            &scenario_corners,
                                            &scenario_idle,
                                            &scenario_depot,
                                            &scenario_reuse,
                                            &scenario_swarm,
                                            &scenario_rules,
                                            NULL};

const struct scenario *scenario_find(const char *name)
{
    for (size_t i = 0; scenarios[i] != NULL; i++)
        if (strcmp(scenarios[i]->name, name) == 0)
            return scenarios[i];
    return NULL;
}
