/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the watches of inotify. The kernel does not end the watch of a cgroup that is removed (kernfs drops its files behind
 * inotify's back), so each is ended here: when its slice tells of it, or at the latest with the next table.
 */
#define _GNU_SOURCE
#include "watch.h"

#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "looks.h"
#include "young.h"

/* By descriptor: a path may mean a later cgroup by now. */
static int watch(const struct oomslice_apply *apply, int directory, const char *file, uint32_t mask) {
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d%s", directory, file);
        return inotify_add_watch(apply->events, path, mask);
}

void oomslice_watch_unit(const struct oomslice_apply *apply, struct oomslice_scored_unit *unit,
                         int directory) {
        if (unit->watch < 0)
                unit->watch = watch(apply, directory, "/cgroup.events", IN_MODIFY);
}

void oomslice_watch_slice(const struct oomslice_apply *apply, struct oomslice_scored_unit *slice,
                          int directory) {
        if (slice->watch < 0)
                slice->watch = watch(apply, directory, "", IN_CREATE | IN_DELETE | IN_ONLYDIR);
}

void oomslice_watch_end(const struct oomslice_apply *apply, struct oomslice_scored_unit *unit) {
        if (unit->watch >= 0)
                (void)inotify_rm_watch(apply->events, unit->watch);
        unit->watch = -1;
}

void oomslice_watch_all(struct oomslice_apply *apply) {
        for (size_t i = 0; i < apply->scores.units_count; i++) {
                struct oomslice_scored_unit *unit = &apply->scores.units[i];
                int directory = unit->watch >= 0 || unit->kept ? -1 : oomslice_apply_open(apply, unit);

                if (directory < 0)
                        continue;
                oomslice_watch_unit(apply, unit, directory);
                close(directory);
        }
}

static void tell(struct oomslice_apply *apply, const struct inotify_event *event) {
        struct oomslice_scores *scores = &apply->scores;

        for (size_t i = 0; i < scores->slices_count; i++)
                if (scores->slices[i].watch == event->wd) {
                        if (!(event->mask & IN_ISDIR) || event->len == 0)
                                return;
                        if (event->mask & IN_CREATE)
                                oomslice_young_appeared(apply, i, event->name);
                        else if (event->mask & IN_DELETE)
                                oomslice_young_ended(apply, scores->slices[i].path, event->name);
                        return;
                }
        for (size_t i = 0; i < scores->units_count; i++)
                if (scores->units[i].watch == event->wd) {
                        oomslice_looks_begin(apply, &scores->units[i]);
                        return;
                }
}

void oomslice_watch_read(struct oomslice_apply *apply) {
        _Alignas(struct inotify_event) char buffer[4096];
        ssize_t size = read(apply->events, buffer, sizeof(buffer));

        for (ssize_t at = 0; at < size;) {
                const struct inotify_event *event = (const struct inotify_event *)(buffer + at);

                at += (ssize_t)sizeof(*event) + event->len;
                if (event->mask & IN_Q_OVERFLOW) {
                        /* Nobody knows what was missed. */
                        oomslice_young_look_around(apply);
                        for (size_t i = 0; i < apply->scores.units_count; i++)
                                (void)oomslice_apply_unit(apply, &apply->scores.units[i]);
                } else
                        tell(apply, event);
        }
}
