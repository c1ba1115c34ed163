/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the file of what has to be undone, and the undoing. The file lies on a tmpfs and is mapped and locked, so
 * writing it down costs no disk and cannot fail; only root can open it, so what it says is believed. An entry is
 * written before the act and leaves the file when the ring has the record of its end: who dies in between leaves
 * it to a successor, and undoing twice changes nothing.
 */
#define _GNU_SOURCE
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "file.h"
#include "moment.h"
#include "number.h"
#include "plan.h"
#include "record.h"

#define CALM_MAX_US UINT64_C(3600000000)
#define RETRY_US UINT64_C(1000000) /* the ring was full */

static const char magic[8] = {'O', 'O', 'M', 'S', 'L', 'U', 'N', '1'};

struct file {
        char magic[8];
        struct oomslice_undo entries[OOMSLICE_UNDO_MAX];
};

_Static_assert(sizeof(struct file) <= 4096, "one page");

/* What this process knows besides. */
static struct {
        int fd;
        uint64_t due_us;
        bool applied; /* of an OOMSLICE_UNDO_SWAP: it is done */
} live[OOMSLICE_UNDO_MAX];

static struct file *file;
static int root = -1;

int oomslice_undo_open(const char *path, int root_fd) {
        struct stat status;
        int fd, r = 0;

        for (int i = 0; i < OOMSLICE_UNDO_MAX; i++)
                live[i].fd = -1;
        root = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
        if (root < 0)
                return -errno;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &status) < 0 || ftruncate(fd, 4096) < 0)
                r = -errno;
        else if (!S_ISREG(status.st_mode) || status.st_uid != geteuid())
                r = -EPERM; /* somebody else's */
        if (r == 0) {
                file = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
                if (file == MAP_FAILED) {
                        file = NULL;
                        r = -errno;
                }
        }
        close(fd);
        if (r == 0 && memcmp(file->magic, magic, sizeof(magic)) != 0) {
                memset(file, 0, sizeof(*file));
                memcpy(file->magic, magic, sizeof(magic));
        }
        return r;
}

/* Whoever has changed the limit since has taken it over: it is left as it is then. */
static int put_back_limit(int fd, const struct oomslice_undo *entry) {
        char text[OOMSLICE_NUMBER_SIZE];
        uint64_t now;
        size_t size;
        int r;

        r = oomslice_file_number(fd, &now);
        if (r < 0)
                return r;
        if (now != entry->new_value)
                return 0;
        size = oomslice_number_format(text, entry->old_value);
        return pwrite(fd, text, size, 0) < 0 ? -errno : 0;
}

static void undo(int i) {
        struct oomslice_undo *entry = &file->entries[i];
        int r = -EBADF;

        if (entry->undone_us != 0)
                return;
        if (live[i].fd >= 0 && entry->kind == OOMSLICE_STEP_FREEZE)
                r = pwrite(live[i].fd, "0", 1, 0) < 0 ? -errno : 0;
        else if (live[i].fd >= 0)
                r = put_back_limit(live[i].fd, entry);
        /* ENODEV: the cgroup is gone, and with it all that was done to it. */
        entry->error = r == 0 || r == -ENODEV ? 0 : -r;
        entry->undone_us = oomslice_moment_now();
        if (live[i].fd >= 0)
                close(live[i].fd);
        live[i].fd = -1;
}

/* Into the ring, and out of the file. False if the ring is full. */
static bool record(int i) {
        struct oomslice_undo entry = file->entries[i];
        bool is_part = entry.kind == OOMSLICE_UNDO_SWAP;

        /* Part of a throttle, whose own entry says that it is undone: only a failure is left to be told. */
        if (is_part)
                entry.kind = OOMSLICE_STEP_THROTTLE;
        if ((!is_part || entry.error != 0) && !oomslice_record_undone(&entry))
                return false;
        file->entries[i].kind = 0;
        return true;
}

void oomslice_undo_predecessor(void) {
        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++) {
                struct oomslice_undo *entry = &file->entries[i];
                const char *name = entry->kind == OOMSLICE_STEP_FREEZE ? "cgroup.freeze"
                                   : entry->kind == OOMSLICE_UNDO_SWAP ? "memory.swap.max"
                                                                       : "memory.high";
                int directory;

                if (entry->kind == 0 || entry->undone_us != 0)
                        continue;
                directory = oomslice_cgroup_open_by_id(root, entry->cgroup_id);
                live[i].fd = directory < 0 ? -1 : openat(directory, name, O_RDWR | O_CLOEXEC);
                live[i].due_us = 0;
                if (directory >= 0)
                        close(directory);
                else if (directory == -ESTALE)
                        entry->undone_us = oomslice_moment_now(); /* no such cgroup any more */
        }
        oomslice_undo_poll(oomslice_moment_now());
}

int oomslice_undo_add(const struct oomslice_undo *entry, int fd) {
        int at = -1;

        if (!file || fd < 0)
                return -ENOSYS;
        for (int i = 0; i < OOMSLICE_UNDO_MAX && at < 0; i++)
                if (file->entries[i].kind == 0)
                        at = i;
        if (at < 0)
                return -ENOSPC;
        live[at].fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (live[at].fd < 0)
                return -errno;
        live[at].applied = false;
        live[at].due_us = OOMSLICE_MOMENT_NEVER; /* until the pressure has been seen to end */
        file->entries[at] = *entry;
        file->entries[at].undone_us = 0;
        file->entries[at].error = 0;
        /* The kind last: an entry that is half written is none. */
        file->entries[at].kind = 0;
        __atomic_store_n(&file->entries[at].kind, entry->kind, __ATOMIC_RELEASE);
        return 0;
}

static int find(uint64_t cgroup_id, uint32_t kind) {
        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++)
                if (file->entries[i].kind == kind && file->entries[i].cgroup_id == cgroup_id &&
                    file->entries[i].undone_us == 0)
                        return i;
        return -1;
}

void oomslice_undo_forget(uint64_t cgroup_id, uint32_t kind) {
        int i = find(cgroup_id, kind);

        if (i < 0)
                return;
        close(live[i].fd);
        live[i].fd = -1;
        file->entries[i].kind = 0;
}

bool oomslice_undo_has(uint64_t cgroup_id, uint32_t kind) {
        return find(cgroup_id, kind) >= 0;
}

static bool is_pending(int i, uint32_t kind) {
        return file->entries[i].kind == kind && file->entries[i].undone_us == 0 && live[i].fd >= 0 &&
               !live[i].applied;
}

bool oomslice_undo_is_pending(uint32_t kind) {
        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++)
                if (is_pending(i, kind))
                        return true;
        return false;
}

void oomslice_undo_apply_pending(uint32_t kind) {
        char text[OOMSLICE_NUMBER_SIZE];

        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++) {
                if (!is_pending(i, kind))
                        continue;
                /* One that cannot be written is that of a cgroup which is gone: it is not tried again. */
                (void)pwrite(live[i].fd, text, oomslice_number_format(text, file->entries[i].new_value), 0);
                live[i].applied = true;
        }
}

void oomslice_undo_pressure(uint64_t domain_id, uint64_t now_us, uint64_t calm_us) {
        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++)
                if (file->entries[i].kind != 0 && file->entries[i].domain_id == domain_id)
                        live[i].due_us = now_us + (calm_us < CALM_MAX_US ? calm_us : CALM_MAX_US);
}

void oomslice_undo_unit(uint64_t cgroup_id, uint64_t now_us) {
        for (int i = OOMSLICE_UNDO_MAX - 1; file && i >= 0; i--)
                if (file->entries[i].kind != 0 && file->entries[i].cgroup_id == cgroup_id)
                        live[i].due_us = now_us;
        oomslice_undo_poll(now_us);
}

/* The newest that is due, or -1. */
static int newest_due(uint64_t now_us) {
        int newest = -1;

        for (int i = 0; i < OOMSLICE_UNDO_MAX; i++) {
                const struct oomslice_undo *entry = &file->entries[i];

                if (entry->kind == 0 || now_us < live[i].due_us)
                        continue;
                if (newest < 0 || entry->begin_us > file->entries[newest].begin_us)
                        newest = i;
        }
        return newest;
}

void oomslice_undo_poll(uint64_t now_us) {
        int i;

        while (file && (i = newest_due(now_us)) >= 0) {
                undo(i);
                if (!record(i))
                        live[i].due_us = now_us + RETRY_US;
        }
}

uint64_t oomslice_undo_next(void) {
        uint64_t next = OOMSLICE_MOMENT_NEVER;

        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++)
                if (file->entries[i].kind != 0 && live[i].due_us < next)
                        next = live[i].due_us;
        return next;
}

void oomslice_undo_all(uint64_t now_us) {
        for (int i = 0; file && i < OOMSLICE_UNDO_MAX; i++)
                live[i].due_us = now_us;
        oomslice_undo_poll(now_us);
}
