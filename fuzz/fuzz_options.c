/* fuzz_options.c: the command lines of the programs: example_option() with a table like the examples', and portforward's
 * options_parse(). The first byte chooses; each line after it is an argument.
 *
 * Their sources are included with exit, stdout and stderr redirected. Either they leave, with 2 and one line that begins
 * with the program's name and names what is wrong, or with 0 and the help; or what they took is within its ranges. An
 * option that a line calls wrong is wrong alone, too. */
#include "common.h"
#include "fuzz.h"
#include <setjmp.h>

#define MOST_ARGUMENTS 16

static FILE *out, *err; /* the program's */
static char *said;      /* on err */
static size_t said_size;
static jmp_buf left;
static int status;

static _Noreturn void leave(int with)
{
    status = with;
    longjmp(left, 1);
}

#undef stdout
#undef stderr
#define stdout      out
#define stderr      err
#define printf(...) fprintf(out, __VA_ARGS__)
#define exit(with)  leave(with)
#include "common.c"
#define flush_stdout forward_flush_stdout
#include "../portforward/options.c"
#undef exit
#undef printf
#undef stdout
#undef stderr
extern FILE *stderr;

/* -- The two programs -- */

static void check_number(const char *text, size_t lowest, size_t highest)
{
    size_t number = 0;
    claim(strspn(text, "0123456789") == strlen(text) && *text);
    claim(example_number(text, highest, &number) && number >= lowest);
}

static void example(int argc, char **argv)
{
    static const struct option options[] = {EXAMPLE_HELP,
                                            EXAMPLE_ADDRESS,
                                            EXAMPLE_PORT,
                                            {"timeout", required_argument, NULL, 't'},
                                            {"include", no_argument, NULL, 'i'},
                                            {NULL, 0, NULL, 0}};
    struct example e = {"program", "[-i] URL\n", options, "URL", "127.0.0.1", "80"};
    int letter, turns = 0;
    while ((letter = example_option(&e, argc, argv)) != -1) {
        claim(letter == 't' || letter == 'i');
        claim(letter != 't' || optarg != NULL);
        claim(turns++ < 4096 * MOST_ARGUMENTS);
    }
    claim(optind == argc - 1 && argv[optind] != NULL);
    check_number(e.port, 0, 65535);
}

static void forward(int argc, char **argv)
{
    struct options o;
    options_parse(argc, argv, &o);
    claim(optind + (int)o.rule_count == argc && *o.local_host);
    claim((o.config_file != NULL) == (o.remote_host == NULL && o.rule_count == 0));
    claim(strncmp(o.local_host, "unix:", 5) != 0);
    claim(o.remote_host == NULL || (*o.remote_host && strncmp(o.remote_host, "unix:", 5) != 0));
    claim(o.drain <= DURATION_MAX * 1000u && o.defaults.idle <= DURATION_MAX * 1000u && o.defaults.backlog > 0);
    check_number(o.local_port, 0, 65535);
    check_number(o.remote_port, 1, 65535);
}

/* How it left: 0, 2, or -1 when it did not. */
static int run(void (*program)(int argc, char **argv), int argc, char **argv)
{
    char *copy[MOST_ARGUMENTS + 2]; /* getopt sorts them */
    memcpy(copy, argv, (size_t)(argc + 1) * sizeof *copy);
    rewind(out);
    rewind(err);
    optind = 0;
    status = -1;
    if (setjmp(left) == 0)
        program(argc, copy);
    claim(fflush(err) == 0);
    return status;
}

/* -- What it said -- */

/* To be freed. The stream ends no text that is shorter than the one before. */
static char *line_said(void)
{
    char *line = text_of((struct input){(const uint8_t *)said, said_size});
    claim(strlen(line) == said_size);
    return line;
}

/* "NAME: what is wrong with an option: which": which, or NULL when a line says something else. */
static const char *culprit(const char *line)
{
    static const char *const wrongs[] = {"unknown option: ", "unknown or wrong option: ", "this option needs a value: ",
                                         "option needs an argument: "};
    line = strchr(line, ' ') + 1;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++)
        if (strncmp(line, wrongs[i], strlen(wrongs[i])) == 0)
            return line + strlen(wrongs[i]);
    return NULL;
}

static void check_culprit(void (*program)(int argc, char **argv), const char *line)
{
    const char *which = culprit(line);
    if (which == NULL)
        return;
    size_t n = strlen(which) - (program == forward ? strlen(" (--help tells more)\n") : 1);
    char *option = text_of((struct input){(const uint8_t *)which, n});
    char *argv[] = {(char *)(uintptr_t) "program", option, NULL};
    if (strcmp(option, "--") != 0) { /* the letter '-' of "-x-" */
        claim(run(program, 2, argv) == 2);
        char *alone = line_said();
        claim(strcmp(alone, line) == 0);
        free(alone);
    }
    free(option);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    char *argv[MOST_ARGUMENTS + 2] = {(char *)(uintptr_t) "program"};
    int argc = 1;
    if (out == NULL) {
        out = fopen("/dev/null", "w");
        err = open_memstream(&said, &said_size);
        claim(out != NULL && err != NULL);
    }
    bool is_example = take(&in) & 1;
    void (*program)(int argc, char **argv) = is_example ? example : forward;
    take_until(&in, '\n');
    while (in.left > 0 && argc <= MOST_ARGUMENTS)
        argv[argc++] = text_of(take_until(&in, '\n'));
    argv[argc] = NULL;

    int how = run(program, argc, argv);
    claim(how == -1 || how == 0 || how == 2);
    claim(how == 2 ? said_size > 0 : said_size == 0);
    if (how == 2) {
        char *line = line_said();
        const char *name = is_example ? "program: " : "portforward: ";
        claim(strncmp(line, name, strlen(name)) == 0);
        claim(strchr(line, '\n') == line + said_size - 1);
        check_culprit(program, line);
        free(line);
    }
    for (int i = 1; i < argc; i++)
        free(argv[i]);
    return 0;
}
