/* A program outside the tree, as short as it may be: a channel of a class of its own hears a line over a socket
 * pair. Prints the version of the header and of the library. */
#include <asynchat.h>
#include <stdio.h>
#include <unistd.h>

static int on_data(struct asynchat *c, const void *data, size_t n)
{
    printf("%.*s ", (int)n, (const char *)data);
    return c->base.base.fd < 0;
}

static int on_line(struct asynchat *c)
{
    return asyncore_close(&c->base.base);
}

static const struct asynchat_class line_class = {
    .base = {.name = "line"}, .collect_incoming_data = on_data, .found_terminator = on_line};

int main(void)
{
    struct asynchat line;
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0 || write(fds[1], "heard\n", 6) != 6)
        return 1;
    if (asynchat_init(&line, &line_class, NULL) < 0 || asyncore_set_socket(&line.base.base, fds[0]) < 0)
        return 1;
    if (asynchat_set_terminator(&line, "\n", 1) < 0 || asyncore_loop(NULL, 5000, 20) != 0)
        return 1;
    printf("%s %s\n", ASYNCORE_VERSION, asyncore_version());
    return asyncore_map_free(NULL) < 0;
}
