/* replay.c: main() for a target without libFuzzer, with any compiler: runs it once for each file named, and for each
 * file of a folder named. CTest replays with it what is kept; a folder may be missing, but something must be run. */
#include "fuzz.h"
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

static size_t runs;

static void fail(const char *path)
{
    fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
    exit(1);
}

static void replay_file(const char *path, size_t size)
{
    uint8_t *data = malloc(size > 0 ? size : 1);
    FILE *file = fopen(path, "rb");
    if (data == NULL || file == NULL || fread(data, 1, size, file) != size)
        fail(path);
    fclose(file);
    fprintf(stderr, "%s\n", path); /* the last line tells which it was */
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    runs++;
}

static void replay(const char *path);

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void replay_folder(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, visible, alphasort);
    if (count < 0)
        fail(path);
    for (int i = 0; i < count; i++) {
        char *entry;
        if (asprintf(&entry, "%s/%s", path, entries[i]->d_name) < 0)
            fail(path);
        replay(entry);
        free(entry);
        free(entries[i]);
    }
    free(entries);
}

static void replay(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0) {
        if (errno != ENOENT)
            fail(path);
    } else if (S_ISDIR(status.st_mode)) {
        replay_folder(path);
    } else {
        replay_file(path, (size_t)status.st_size);
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    fprintf(stderr, "replay: %zu inputs\n", runs);
    return runs > 0 ? 0 : 1;
}
