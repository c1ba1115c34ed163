/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what is locked. mlockall() takes all, which with tables for 4096 units would be three times of what a
 * machine of 100 units needs; so the tables are let go again, and their used part is locked with each plan.
 */
#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <sys/mman.h>

#include "file.h"

enum { TABLES_MAX = 16 };

static struct {
        void *start;
        size_t size;
} tables[TABLES_MAX];
static size_t tables_count;
static bool locked;

/* The last page of a table is shared with whatever the linker put behind it, unless the table fills it. */
static size_t whole_pages(size_t size) {
        return size / OOMSLICE_LOCK_PAGE * OOMSLICE_LOCK_PAGE;
}

void oomslice_lock_table(void *table, size_t size) {
        if (tables_count < TABLES_MAX) {
                tables[tables_count].start = table;
                tables[tables_count++].size = whole_pages(size);
        }
}

/* The kernel gives a program 128 KiB of stack to begin with; half of that is never reached here. */
static void unlock_stack(void) {
        uintptr_t here = (uintptr_t)__builtin_frame_address(0) / OOMSLICE_LOCK_PAGE * OOMSLICE_LOCK_PAGE;
        const size_t kept = 48 * 1024, rest = 128 * 1024;

        /* Page by page: how far down the mapping goes is not known, and ENOMEM beyond its end is no matter. */
        for (size_t below = kept; below < rest; below += OOMSLICE_LOCK_PAGE)
                (void)munlock((void *)(here - below - OOMSLICE_LOCK_PAGE), OOMSLICE_LOCK_PAGE);
}

int oomslice_lock_all(void) {
        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
                return -errno;
        unlock_stack();
        for (size_t i = 0; i < tables_count; i++)
                (void)munlock(tables[i].start, tables[i].size);
        locked = true;
        return 0;
}

void oomslice_lock_used(void *table, size_t size, size_t used) {
        size_t up = whole_pages(used + OOMSLICE_LOCK_PAGE - 1);

        if (!locked)
                return;
        size = whole_pages(size);
        up = up < size ? up : size;
        /* Both calls can only fail on limits that mlockall() has met before; then the pages are just not locked. */
        if (up > 0)
                (void)mlock(table, up);
        if (up < size) {
                (void)munlock((char *)table + up, size - up);
                (void)madvise((char *)table + up, size - up,
                              MADV_DONTNEED); /* reads as zero when needed again */
        }
}

uint64_t oomslice_lock_bytes(int status_fd) {
        static char text[4096];
        uint64_t kilobytes = 0;

        if (oomslice_file_read(status_fd, text, sizeof(text)) < 0 ||
            oomslice_file_parse_field(text, "VmLck:", &kilobytes) < 0)
                return 0;
        return kilobytes * 1024;
}
