/* config_file.c: files of rules, and the files that they include.
 *
 * An included file is read where it is included, as if its lines stood there: the rule above its first line is the
 * last one before it. Its defaults alone end with it. Files that include one another form a chain of struct source,
 * the innermost first: a file that is in it already would be read for ever.
 *
 * Only regular files are read: one that never ends, or that nobody writes to, would hold a reload up. How many files
 * and bytes are read in all is bounded too, because eight levels of a few patterns are more files than anyone has. */
#include "config_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One reading, from the first file to the last. */
struct reading {
    unsigned files;
    size_t bytes;
    bool stopped; /* a bound was passed, and this was told */
};

struct source {
    const struct source *includer;
    struct reading *reading;
    const char *path;
    FILE *file;
    dev_t device;
    ino_t inode;
    unsigned line;
    char *where; /* "PATH:LINE" */
};

static bool stop(struct config *config, struct reading *reading, const char *where, const char *reason)
{
    reading->stopped = true;
    return config_fault(config, where, reason, NULL);
}

/* -- Lines -- */

/* The next line, without its end (LF, or CR and LF, or that of the file). `text` has LINE_MAX_BYTES + 1. */
static bool next_line(struct source *source, char *text, const char **reason)
{
    size_t length = 0;
    int c, last = 0;

    *reason = NULL;
    for (; (c = getc_unlocked(source->file)) != EOF && c != '\n'; last = c) {
        if (c == '\0')
            *reason = "a NUL byte in the line";
        if (length < LINE_MAX_BYTES)
            text[length] = (char)c;
        length++;
        if (++source->reading->bytes > BYTES_MAX)
            break;
    }
    if (c == EOF && length == 0)
        return false;
    source->reading->bytes++;
    source->line++;
    length -= last == '\r';
    if (length > LINE_MAX_BYTES)
        *reason = "longer than 4096 bytes";
    else
        text[length] = '\0';
    return true;
}

static bool read_lines(struct config *config, struct source *source)
{
    char text[LINE_MAX_BYTES + 1];
    const char *reason;
    size_t room = strlen(source->path) + sizeof(":4294967295");
    bool good = true;

    while (!source->reading->stopped && next_line(source, text, &reason)) {
        snprintf(source->where, room, "%s:%u", source->path, source->line);
        if (source->reading->bytes > BYTES_MAX)
            return stop(config, source->reading, source->where, "more than 16 MiB in all: the rest is not read");
        if (config->faults >= FAULTS_MAX)
            return stop(config, source->reading, source->where, "too many faults: the rest is not read");
        good &= reason ? config_fault(config, source->where, reason, NULL)
                       : config_read_line(config, source, source->where, text);
    }
    if (ferror(source->file))
        return config_fault(config, source->path, strerror(errno), NULL);
    return good;
}

/* -- Files -- */

/* Opens the file, or returns why not. O_NONBLOCK: a FIFO without a writer. */
static const char *open_source(struct source *source)
{
    struct stat status;
    int fd = open(source->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int error;

    if (fd < 0)
        return errno == ENOMEM ? no_memory : strerror(errno);
    source->file = fstat(fd, &status) == 0 ? fdopen(fd, "r") : NULL;
    if (!source->file) {
        error = errno;
        close(fd);
        return error == ENOMEM ? no_memory : strerror(error);
    }
    source->device = status.st_dev;
    source->inode = status.st_ino;
    if (S_ISDIR(status.st_mode))
        return strerror(EISDIR);
    return S_ISREG(status.st_mode) ? NULL : "not a regular file";
}

static const char *loop_fault(const struct source *source)
{
    unsigned depth = 0;

    for (const struct source *s = source->includer; s; s = s->includer) {
        if (s->device == source->device && s->inode == source->inode)
            return "includes itself";
        depth++;
    }
    return depth > INCLUDE_DEPTH ? "included more than 8 files deep" : NULL;
}

/* `where` is the line that includes it; NULL: nobody does. */
static bool read_file(struct config *config, struct source *source, const char *where)
{
    struct rule_options defaults = config->defaults;
    const char *reason = NULL;
    bool good;

    if (source->reading->files++ >= FILES_MAX)
        return stop(config, source->reading, where, "more than 4096 files: the rest is not read");
    source->where = malloc(strlen(source->path) + sizeof(":4294967295"));
    if (!source->where)
        reason = no_memory;
    else if (!(reason = open_source(source)))
        reason = loop_fault(source);
    if (reason)
        good = where ? config_fault(config, where, reason, source->path)
                     : config_fault(config, source->path, reason, NULL);
    else
        good = read_lines(config, source);
    config->defaults = defaults;
    if (source->file)
        fclose(source->file);
    free(source->where);
    return good;
}

int config_read(struct config *config, const char *file)
{
    struct reading reading = {0};
    struct source source = {.reading = &reading, .path = file};

    return read_file(config, &source, NULL) ? 0 : -1;
}

/* -- Include -- */

static bool is_pattern(const char *text)
{
    return text[strcspn(text, "*?[")] != '\0';
}

/* The name as the program has to open it: relative ones are relative to the folder of the file that names them. In a
 * pattern, what is special in that folder's own name is quoted. NULL: no memory. */
static char *include_path(const struct source *source, const char *name)
{
    const char *slash = source && *name != '/' ? strrchr(source->path, '/') : NULL;
    size_t folder = slash ? (size_t)(slash - source->path) + 1 : 0;
    char *path = malloc(2 * folder + strlen(name) + 1), *to = path;

    if (!path)
        return NULL;
    for (size_t i = 0; i < folder; i++) {
        if (is_pattern(name) && strchr("*?[]\\", source->path[i]))
            *to++ = '\\';
        *to++ = source->path[i];
    }
    strcpy(to, name);
    return path;
}

static bool include_file(struct config *config, const struct source *source, struct reading *reading,
                         const char *where, const char *path)
{
    struct source included = {.includer = source, .reading = reading, .path = path};

    return reading->stopped || read_file(config, &included, where);
}

static int glob_error;

/* A folder that is not there has no files in it. */
static int folder_failed(const char *path, int error)
{
    (void)path;
    if (error == ENOENT || error == ENOTDIR)
        return 0;
    glob_error = error;
    return 1;
}

/* All files that the pattern stands for, sorted. */
static bool include_files(struct config *config, const struct source *source, struct reading *reading,
                          const char *where, const char *pattern)
{
    glob_t found = {0};
    bool good = true;
    int r;

    glob_error = 0;
    r = glob(pattern, 0, folder_failed, &found);
    if (r == GLOB_NOSPACE || glob_error == ENOMEM)
        good = config_fault(config, where, no_memory, NULL);
    else if (r != 0 && r != GLOB_NOMATCH)
        good = config_fault(config, where, strerror(glob_error ? glob_error : EIO), pattern);
    for (size_t i = 0; r == 0 && i < found.gl_pathc; i++)
        good &= include_file(config, source, reading, where, found.gl_pathv[i]);
    globfree(&found);
    return good;
}

bool config_include(struct config *config, const struct source *source, const char *where, const char *pattern)
{
    struct reading first = {0};
    struct reading *reading = source ? source->reading : &first;
    char *path = include_path(source, pattern);
    bool good;

    if (!path)
        return config_fault(config, where, no_memory, NULL);
    good = (is_pattern(pattern) ? include_files : include_file)(config, source, reading, where, path);
    free(path);
    return good;
}
