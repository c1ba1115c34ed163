/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the open files of one cgroup and the figures read from them. Opening happens when a plan is taken;
 * afterwards there are only reads of open descriptors. A cgroup that is removed answers ENODEV: the descriptor
 * never comes to mean another cgroup.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "held.h"
#include "plan.h"

enum { FIGURES = OOMSLICE_HELD_CANDIDATE | OOMSLICE_HELD_MIN };

static const struct {
        const char *name;
        size_t offset;
        int flags;
        uint32_t groups;
} files[] = {
        {"cgroup.kill", offsetof(struct oomslice_held, kill), O_WRONLY, OOMSLICE_HELD_CANDIDATE},
        {"cgroup.procs", offsetof(struct oomslice_held, procs), O_RDONLY, OOMSLICE_HELD_CANDIDATE},
        {"cgroup.events", offsetof(struct oomslice_held, events), O_RDONLY, OOMSLICE_HELD_CANDIDATE},
        {"memory.current", offsetof(struct oomslice_held, current), O_RDONLY, FIGURES},
        {"memory.stat", offsetof(struct oomslice_held, stat), O_RDONLY, FIGURES},
        {"memory.swap.current", offsetof(struct oomslice_held, swap), O_RDONLY, OOMSLICE_HELD_CANDIDATE},
        {"cgroup.freeze", offsetof(struct oomslice_held, freeze), O_RDWR, OOMSLICE_HELD_FREEZE},
        {"memory.high", offsetof(struct oomslice_held, high), O_RDWR, OOMSLICE_HELD_HIGH},
        {"memory.swap.max", offsetof(struct oomslice_held, swap_max), O_RDWR, OOMSLICE_HELD_HIGH},
        {"memory.reclaim", offsetof(struct oomslice_held, reclaim), O_WRONLY, OOMSLICE_HELD_RECLAIM},
        {"memory.min", offsetof(struct oomslice_held, min), O_RDONLY, OOMSLICE_HELD_MIN},
};

enum { FILES_COUNT = sizeof(files) / sizeof(files[0]) };

static int32_t *descriptor(const struct oomslice_held *held, size_t file) {
        return (int32_t *)((char *)held + files[file].offset);
}

void oomslice_held_init(struct oomslice_held *held) {
        *held = (struct oomslice_held){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
}

void oomslice_held_close(struct oomslice_held *held) {
        for (size_t i = 0; i < FILES_COUNT; i++)
                if (*descriptor(held, i) >= 0)
                        close(*descriptor(held, i));
        if (held->directory >= 0)
                close(held->directory);
        oomslice_held_init(held);
}

static int open_file(const struct oomslice_held *held, size_t file) {
        /* Writing memory.high shall reclaim, by a hand: newer kernels skip that with O_NONBLOCK. */
        int wait = files[file].groups & OOMSLICE_HELD_CANDIDATE ? O_NONBLOCK : 0;

        return openat(held->directory, files[file].name, files[file].flags | O_CLOEXEC | wait);
}

uint32_t oomslice_held_files_of_step(uint32_t kind) {
        return kind == OOMSLICE_STEP_FREEZE     ? OOMSLICE_HELD_FREEZE
               : kind == OOMSLICE_STEP_THROTTLE ? OOMSLICE_HELD_HIGH
               : kind == OOMSLICE_STEP_RECLAIM  ? OOMSLICE_HELD_RECLAIM
                                                : 0;
}

void oomslice_held_open_more(struct oomslice_held *held, uint32_t wanted) {
        for (size_t i = 0; i < FILES_COUNT; i++)
                if ((files[i].groups & wanted) && *descriptor(held, i) < 0)
                        *descriptor(held, i) = open_file(held, i);
}

int oomslice_held_open(struct oomslice_held *held, int directory_fd, uint32_t wanted) {
        int r;

        oomslice_held_init(held);
        /* Opened anew: the sender still has the other one, and a directory's read position is shared by all. */
        held->directory = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (held->directory < 0)
                return -errno;
        for (size_t i = 0; i < FILES_COUNT; i++) {
                int fd;

                if (!(files[i].groups & wanted))
                        continue;
                fd = open_file(held, i);
                /* Missing: no memory controller, no swap, or an older kernel; the features say so. */
                if (fd < 0 && errno != ENOENT && errno != ENODEV && errno != EOPNOTSUPP) {
                        r = -errno;
                        oomslice_held_close(held);
                        return r;
                }
                *descriptor(held, i) = fd;
        }
        return 0;
}

void oomslice_held_copy(struct oomslice_held *copy, const struct oomslice_held *held) {
        oomslice_held_init(copy);
        copy->directory = held->directory < 0 ? -1 : fcntl(held->directory, F_DUPFD_CLOEXEC, 0);
        for (size_t i = 0; i < FILES_COUNT; i++)
                if (*descriptor(held, i) >= 0)
                        *descriptor(copy, i) = fcntl(*descriptor(held, i), F_DUPFD_CLOEXEC, 0);
}

bool oomslice_held_is_complete(const struct oomslice_held *held, uint32_t wanted) {
        if (held->directory < 0)
                return false;
        for (size_t i = 0; i < FILES_COUNT; i++)
                if (!!(files[i].groups & wanted) != (*descriptor(held, i) >= 0))
                        return false;
        return true;
}

void oomslice_held_prefault(const struct oomslice_held *held) {
        static char text[8192];

        for (size_t i = 0; i < FILES_COUNT; i++)
                if (files[i].flags != O_WRONLY && *descriptor(held, i) >= 0)
                        (void)oomslice_file_read(*descriptor(held, i), text, sizeof(text));
}

static int read_event(int events_fd, const char *key) {
        char text[128];
        uint64_t value;
        ssize_t n;
        int r;

        n = oomslice_file_read(events_fd, text, sizeof(text));
        if (n < 0)
                return (int)n;
        r = oomslice_file_parse_field(text, key, &value);
        return r < 0 ? r : value != 0;
}

int oomslice_held_populated(int events_fd) {
        return read_event(events_fd, "populated");
}

int oomslice_held_frozen(int events_fd) {
        return read_event(events_fd, "frozen");
}

/* A file that was not there from the start counts as zero. */
static int read_number(int fd, uint64_t *valuep) {
        *valuep = 0;
        return fd < 0 ? 0 : oomslice_file_number(fd, valuep);
}

int oomslice_held_usage_rough(const struct oomslice_held *held, struct oomslice_usage *usagep) {
        struct oomslice_usage usage = {0};
        int r;

        r = read_number(held->current, &usage.current);
        if (r == 0)
                r = read_number(held->swap, &usage.swap);
        if (r < 0)
                return r;
        usage.memory = usage.current + usage.swap;
        *usagep = usage;
        return 0;
}

int oomslice_held_usage(const struct oomslice_held *held, struct oomslice_usage *usagep) {
        static char text[8192]; /* only the deciding thread reads figures */
        uint64_t active = 0, inactive = 0, refaults_anon = 0, refaults_file = 0;
        struct oomslice_usage usage;
        ssize_t n;
        int r;

        r = oomslice_held_usage_rough(held, &usage);
        if (r < 0)
                return r;
        if (held->stat >= 0) {
                n = oomslice_file_read(held->stat, text, sizeof(text));
                if (n < 0)
                        return (int)n;
                (void)oomslice_file_parse_field(text, "active_file", &active);
                (void)oomslice_file_parse_field(text, "inactive_file", &inactive);
                (void)oomslice_file_parse_field(text, "shmem", &usage.shared);
                (void)oomslice_file_parse_field(text, "workingset_refault_anon", &refaults_anon);
                (void)oomslice_file_parse_field(text, "workingset_refault_file", &refaults_file);
                /* The two files are not read in one moment: the difference may be negative. */
                usage.file = active + inactive;
                usage.memory = (usage.current > usage.file ? usage.current - usage.file : 0) + usage.swap;
                usage.refaults = refaults_anon + refaults_file;
        }
        *usagep = usage;
        return 0;
}
