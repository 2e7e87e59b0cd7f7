/* config_parts.h: what the files of the configuration know of each other. config.c takes lines apart, config_rule.c
 * reads rules, config_option.c what stands in their brackets, config_file.c files. */
#ifndef PORTFORWARD_CONFIG_PARTS_H
#define PORTFORWARD_CONFIG_PARTS_H

#include "config.h"

#include <stddef.h>

enum {
    FAULTS_MAX = 1000,        /* told; then the reading ends */
    FILES_MAX = 4096,         /* read for one configuration, each counted as often as it is included */
    BYTES_MAX = 16 << 20,     /* of them all */
    PRINTABLE_WORD = 80,      /* of a word in a fault, its end included */
};

extern const char no_memory[];

/* A file that is being read. */
struct source;

/* Tells "WHERE: REASON: WORD", or without the word if that is NULL. Returns false. */
bool config_fault(struct config *config, const char *where, const char *reason, const char *word);

/* Printable ASCII as it is, other bytes as \xNN; what does not fit is cut and ends in "...". Returns `text`. */
char *printable(char *text, size_t size, const char *from);

/* The next word of a line, ended there; NULL at its end or at a comment. *line moves behind it. */
char *next_word(char **line);

/* A line, which is taken apart. `source` is where it stands, NULL: on the command line. */
bool config_read_line(struct config *config, const struct source *source, const char *where, char *line);

bool config_include(struct config *config, const struct source *source, const char *where, const char *pattern);

/* A rule from its words; `list` is the rest of its line, or NULL. The words are not kept. */
bool config_add_rule(struct config *config, const char *where, char *words[4], char *list);
void rule_config_free(struct rule_config *rule);

/* Sets what a list "[...]" says, the text of which is taken apart. */
bool config_options(struct config *config, const char *where, struct rule_options *options, char *list);

/* The text of a numeric address as inet_ntop(3) writes it, whether in brackets or not; false: it is none. */
enum { ADDRESS_TEXT = 64 };
bool numeric_host(const char *host, char text[ADDRESS_TEXT]);

#endif
