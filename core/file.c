/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the reading and parsing of "key value" files. One pread from offset 0 each time: sequence files of the
 * kernel are made anew for it, and the buffer they need exists from the first read on. Never opens, never
 * allocates, no stdio.
 */
#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* The kernel has a lock for each open file; with it the thread that is stuck in one would hold the other one, too. */
static atomic_int busy = -1;
static _Thread_local bool decides;

void oomslice_file_decide(void) {
        decides = true;
}

bool oomslice_file_is_busy(int fd) {
        return fd >= 0 && atomic_load(&busy) == fd;
}

static void set_busy(int fd) {
        if (decides)
                atomic_store_explicit(&busy, fd, memory_order_release);
}

ssize_t oomslice_file_pread(int fd, void *data, size_t size, off_t at) {
        ssize_t n;

        set_busy(fd);
        do
                n = pread(fd, data, size, at);
        while (n < 0 && errno == EINTR);
        set_busy(-1);
        return n;
}

ssize_t oomslice_file_pwrite(int fd, const void *data, size_t size) {
        ssize_t n;

        set_busy(fd);
        do
                n = pwrite(fd, data, size, 0);
        while (n < 0 && errno == EINTR);
        set_busy(-1);
        return n;
}

ssize_t oomslice_file_read(int fd, char *text, size_t size) {
        ssize_t n;

        text[0] = '\0';
        if (fd < 0)
                return -EBADF;
        n = oomslice_file_pread(fd, text, size - 1, 0);
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
