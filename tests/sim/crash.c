/* crash.c: see crash.h. On a stack of its own, for the other one may be used up. */
#include "crash.h"
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static void (*crash_tell)(int number);

void crash_put(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        return;
}

static void crashed(int number)
{
    crash_tell(number);
    signal(number, SIG_DFL);
    raise(number);
}

void crash_watch(void (*tell)(int number))
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
    static char stack[65536];
    stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = crashed, .sa_flags = SA_ONSTACK};

    crash_tell = tell;
    sigaltstack(&own, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
}
