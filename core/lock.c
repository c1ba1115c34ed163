/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what is locked. mlockall() takes all, which with tables for 4096 units would be three times of what a
 * machine of 100 units needs; so the tables are let go again, and their used part is locked with each plan.
 *
 * Promises: what the threads of an armed core touch is in RAM and stays there, so neither a decision nor its record, the
 * watchdog's included, has a page fault, not even a minor one. mlockall() and mlock() fault in what they lock, and break
 * copy-on-write. What is not locked is not there at all, so that a use of it would be seen: tables beyond the plan in
 * force, a part of the stack that is never reached, addresses for a reserve. Pages that come after arming, a plan with
 * its part of the tables and the reserve, are faulted in by whoever takes them, not in a decision. The kernel's own pages
 * (vdso and vvar) cannot be locked; they are there since the dry run, see rehearse.c.
 *
 * Not in anybody's hand here: the kernel moves locked pages too (vm.compact_unevictable_allowed, NUMA balancing), and
 * who touches one meanwhile waits for the copy of it.
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

/* Neither locked nor there: it reads as zero when it is needed again. */
static void release(void *start, size_t size) {
        (void)munlock(start, size);
        (void)madvise(start, size, MADV_DONTNEED);
}

void oomslice_lock_table(void *table, size_t size) {
        if (tables_count < TABLES_MAX) {
                tables[tables_count].start = table;
                tables[tables_count++].size = whole_pages(size);
        }
}

/*
 * The kernel gives a program 128 KiB of stack to begin with; half of that is never reached here. The caller is about as
 * deep as the loop, below which a decision takes less than half of what is kept: 17 KiB where processes are listed in
 * cgroups eight levels deep, to be signalled one by one.
 */
static void unlock_stack(void) {
        uintptr_t here = (uintptr_t)__builtin_frame_address(0) / OOMSLICE_LOCK_PAGE * OOMSLICE_LOCK_PAGE;
        const size_t kept = 48 * 1024, rest = 128 * 1024;

        /* Page by page: how far down the mapping goes is not known, and ENOMEM beyond its end is no matter. */
        for (size_t below = kept; below < rest; below += OOMSLICE_LOCK_PAGE)
                release((void *)(here - below - OOMSLICE_LOCK_PAGE), OOMSLICE_LOCK_PAGE);
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
        if (up < size)
                release((char *)table + up, size - up);
}

uint64_t oomslice_lock_bytes(int status_fd) {
        static char text[4096];
        uint64_t kilobytes = 0;

        if (oomslice_file_read(status_fd, text, sizeof(text)) < 0 ||
            oomslice_file_parse_field(text, "VmLck:", &kilobytes) < 0)
                return 0;
        return kilobytes * 1024;
}
