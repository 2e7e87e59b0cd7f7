/* fuzz.h: what the targets share. A target is a file fuzz_NAME.c with LLVMFuzzerTestOneInput() in it: libFuzzer calls
 * it with inputs that it makes up, replay.c with those that are kept. It gives back all that it takes, and aborts
 * when something that must hold does not. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold, whatever the input. */
#define claim(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* The input, from its beginning. What is not there any more is 0. */
struct input {
    const uint8_t *at;
    size_t left;
};

static inline unsigned take(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

/* As many of n bytes as there are. */
static inline struct input take_some(struct input *in, size_t n)
{
    struct input some = {in->at, n < in->left ? n : in->left};
    in->at += some.left;
    in->left -= some.left;
    return some;
}

/* Up to that byte, which goes too; all, if there is none. */
static inline struct input take_until(struct input *in, int byte)
{
    const uint8_t *end = in->left > 0 ? memchr(in->at, byte, in->left) : NULL;
    struct input some = take_some(in, end != NULL ? (size_t)(end - in->at) : in->left);
    take_some(in, 1);
    return some;
}

/* A copy in memory that is no byte longer, so that a checker sees who reads on. To be freed. */
static inline void *copy_of(const void *data, size_t n)
{
    void *copy = malloc(n > 0 ? n : 1);
    claim(copy != NULL);
    if (n > 0)
        memcpy(copy, data, n);
    return copy;
}

/* The same as a string; it ends at a NUL in it. */
static inline char *text_of(struct input in)
{
    size_t n = in.left > 0 ? strnlen((const char *)in.at, in.left) : 0;
    char *text = malloc(n + 1);
    claim(text != NULL);
    if (n > 0)
        memcpy(text, in.at, n);
    text[n] = '\0';
    return text;
}

#endif
