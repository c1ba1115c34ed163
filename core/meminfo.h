/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the whole machine has left, from /proc/meminfo. Bytes. */
#include <stdint.h>

/* cffi: begin */
struct oomslice_meminfo {
        uint64_t total;
        uint64_t
                available; /* MemAvailable; the deciding thread takes off what nobody can have, see withheld.h */
        uint64_t swap_total;
        uint64_t swap_free;
        uint64_t file;        /* page cache on the LRU lists */
        uint64_t swap_cached; /* in memory with a place in swap: one of the two will be free */
};
/* cffi: end */

/* 0, -errno of the read, or -EBADMSG if MemTotal or MemAvailable is not there; *infop then is untouched. */
int oomslice_meminfo_read(int fd, struct oomslice_meminfo *infop);
int oomslice_meminfo_parse(const char *text, struct oomslice_meminfo *infop);
