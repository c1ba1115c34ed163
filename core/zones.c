/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the parsing of /proc/zoneinfo, which is long where there are many processors. It is read in pieces, the next from
 * where the last one ended, as the kernel makes a record for each zone only when it is asked for; so a buffer of fixed size
 * is enough for any machine.
 */
#define _GNU_SOURCE
#include "zones.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

enum {
        PIECE = 8192,
        PIECES_MAX = 1024, /* a file that goes on for longer is none of the kernel's */
};

struct sums {
        uint64_t boost, low, high; /* pages, the last two as they stand there: raised by boost */
        uint32_t zones;
};

/* "        low      1234": other lines that begin alike have a colon or go on. */
static bool is_field(const char *line, const char *key, uint64_t *valuep) {
        size_t size = strlen(key);

        if (strncmp(line, key, size) != 0 || line[size] != ' ')
                return false;
        *valuep = oomslice_file_parse_number(line + size);
        return true;
}

static void take_line(struct sums *sums, const char *line) {
        uint64_t value;

        while (*line == ' ')
                line++;
        if (is_field(line, "boost", &value)) {
                sums->boost += value;
        } else if (is_field(line, "low", &value)) {
                sums->low += value;
                sums->zones++;
        } else if (is_field(line, "high", &value)) {
                sums->high += value;
        }
}

/* Takes all lines that are complete; returns how much of the text is left for the next piece, moved to its start. */
static size_t take_lines(struct sums *sums, char *text, size_t size) {
        char *line = text, *end;

        text[size] = '\0';
        while ((end = strchr(line, '\n'))) {
                *end = '\0';
                take_line(sums, line);
                line = end + 1;
        }
        size -= (size_t)(line - text);
        /* No line of it is that long; one that is says nothing. */
        if (size >= PIECE / 2)
                return 0;
        memmove(text, line, size);
        return size;
}

int oomslice_zones_read(int fd, struct oomslice_zones *zonesp) {
        static char text[PIECE + 1];
        struct sums sums = {0};
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        size_t left = 0;
        off_t at = 0;

        if (fd < 0)
                return -EBADF;
        for (int i = 0; i < PIECES_MAX; i++) {
                ssize_t n = oomslice_file_pread(fd, text + left, PIECE - left, at);

                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                at += n;
                left = take_lines(&sums, text, left + (size_t)n);
        }
        if (sums.zones == 0)
                return -EBADMSG;
        *zonesp = (struct oomslice_zones){
                .boost = sums.boost * page,
                .low = (sums.low > sums.boost ? sums.low - sums.boost : 0) * page,
                .high = (sums.high > sums.boost ? sums.high - sums.boost : 0) * page,
        };
        return 0;
}
