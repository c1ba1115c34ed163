/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the gap between a plan and the machine: a unit started after the last plan must not be invisible, least
 * of all when it is the one that eats the memory. This is the one place of the kill path that opens files; it
 * is bounded in number and depth, and each failure leaves out one cgroup and nothing else.
 */
#define _GNU_SOURCE
#include "unplanned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"

struct search {
        const struct oomslice_force *force;
        struct oomslice_unplanned *found;
        uint32_t count;
};

/* One per level of the search, since an outer directory is still being read while an inner one is. */
static _Alignas(struct dirent64) char buffers[OOMSLICE_UNPLANNED_DEPTH + 1][2048];

static bool ends_with(const char *text, const char *end) {
        size_t text_size = strlen(text), end_size = strlen(end);

        return text_size > end_size && strcmp(text + text_size - end_size, end) == 0;
}

/* A user manager's unit holds slices of its own, and its init.scope holds the manager itself. */
static bool is_searched(const char *name) {
        return ends_with(name, ".slice") || (strncmp(name, "user@", 5) == 0 && ends_with(name, ".service"));
}

/* systemd's units that have a cgroup but, between their helpers, no process: not worth opening six files each. */
static bool is_skipped(const char *name) {
        return name[0] == '.' || strcmp(name, "init.scope") == 0 || ends_with(name, ".mount") ||
               ends_with(name, ".socket") || ends_with(name, ".swap");
}

static void search_directory(struct search *search, int directory, int32_t heir_of, uint32_t depth);

static void visit(struct search *search, int directory, const struct dirent64 *entry, int32_t heir_of,
                  uint32_t depth) {
        struct oomslice_unplanned *unplanned = &search->found[search->count];
        size_t length = strlen(entry->d_name);
        uint64_t id;
        int fd;

        if (entry->d_type != DT_DIR || is_skipped(entry->d_name) || length >= sizeof(unplanned->name) ||
            oomslice_force_find(search->force, entry->d_ino) >= 0)
                return;
        fd = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return;
        if (is_searched(entry->d_name)) {
                if (depth < OOMSLICE_UNPLANNED_DEPTH)
                        search_directory(search, fd, heir_of, depth + 1);
        } else if (oomslice_cgroup_id(fd, &id) == 0 && oomslice_force_find(search->force, id) < 0 &&
                   oomslice_held_open(&unplanned->held, fd, OOMSLICE_HELD_ALL) == 0) {
                if (oomslice_held_populated(unplanned->held.events) == 0) {
                        oomslice_held_close(
                                &unplanned->held); /* nothing to kill: not worth one of the places */
                } else {
                        unplanned->cgroup_id = id;
                        unplanned->heir_of = heir_of;
                        memcpy(unplanned->name, entry->d_name, length + 1);
                        search->count++;
                }
        }
        close(fd);
}

static void search_directory(struct search *search, int directory, int32_t heir_of, uint32_t depth) {
        if (lseek(directory, 0, SEEK_SET) < 0)
                return;
        while (search->count < OOMSLICE_UNPLANNED_MAX) {
                ssize_t size = getdents64(directory, buffers[depth], sizeof(buffers[depth]));

                if (size <= 0)
                        return;
                for (long at = 0; at < size && search->count < OOMSLICE_UNPLANNED_MAX;) {
                        const struct dirent64 *entry = (const struct dirent64 *)(buffers[depth] + at);

                        visit(search, directory, entry, heir_of, depth);
                        at += entry->d_reclen;
                }
        }
}

uint32_t oomslice_unplanned_find(const struct oomslice_force *force, int32_t top,
                                 struct oomslice_unplanned found[static OOMSLICE_UNPLANNED_MAX]) {
        /* Whoever inherits one of these could not be chosen, so there is no need to look. */
        const uint32_t never = OOMSLICE_UNIT_CANDIDATE | OOMSLICE_UNIT_TAKEN | OOMSLICE_UNIT_PROTECTED |
                               OOMSLICE_UNIT_SELF | OOMSLICE_UNIT_LEFT_TO_OOMD;
        struct search search = {.force = force, .found = found};

        for (uint32_t i = (uint32_t)top; i < force->plan.header->units_count; i++)
                if (!(force->plan.units[i].flags & never) && force->held[i].directory >= 0 &&
                    oomslice_plan_is_below(&force->plan, (int32_t)i, top))
                        search_directory(&search, force->held[i].directory, (int32_t)i, 0);
        return search.count;
}

void oomslice_unplanned_close(struct oomslice_unplanned *found, uint32_t count) {
        for (uint32_t i = 0; i < count; i++)
                oomslice_held_close(&found[i].held);
}
