/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the reading and parsing of "key value" files. One pread from offset 0 each time: sequence files of the
 * kernel are made anew for it, and the buffer they need exists from the first read on. Never opens, never
 * allocates, no stdio.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

ssize_t oomslice_file_read(int fd, char *text, size_t size) {
        ssize_t n;

        text[0] = '\0';
        if (fd < 0)
                return -EBADF;
        do
                n = pread(fd, text, size - 1, 0);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        text[n] = '\0';
        return n;
}

uint64_t oomslice_file_parse_number(const char *text) {
        uint64_t value = 0;

        while (*text == ' ' || *text == '\t')
                text++;
        for (; *text >= '0' && *text <= '9'; text++)
                if (__builtin_mul_overflow(value, 10U, &value) ||
                    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
                        return UINT64_MAX;
        return value;
}

int oomslice_file_number(int fd, uint64_t *valuep) {
        char text[32];
        ssize_t n;

        n = oomslice_file_read(fd, text, sizeof(text));
        if (n < 0)
                return (int)n;
        *valuep = strncmp(text, "max", 3) == 0 ? UINT64_MAX : oomslice_file_parse_number(text);
        return 0;
}

int oomslice_file_parse_field(const char *text, const char *key, uint64_t *valuep) {
        size_t size = strlen(key);

        while (text && *text != '\0') {
                if (strncmp(text, key, size) == 0 && (text[size] == ' ' || text[size] == '\t')) {
                        *valuep = oomslice_file_parse_number(text + size);
                        return 0;
                }
                text = strchr(text, '\n');
                if (text)
                        text++;
        }
        return -ENOENT;
}
