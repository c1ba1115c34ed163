/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the decision which process gets which value. What a process has that did not get it from us was given to it by
 * its owner: below zero it stays (that takes privileges), above its unit's baseline it is never lowered, and -1000 is
 * never touched. What it has from us is known by the number: a unit's own earlier values, and below zero those of any
 * unit, because a process that was started in a protected unit and moved elsewhere (a login, a container) took it along.
 *
 * Children inherit, so a unit is looked at when it comes, when its value changes, and when its cgroup is populated anew, a
 * few times then (looks.c); and in one look again until nothing changes, because a process may fork between being listed and
 * being written.
 */
#define _GNU_SOURCE
#include "apply.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adjust.h"
#include "force.h"
#include "state.h"

enum { ROUNDS_MAX = 8, DEPTH_MAX = 16, CGROUPS_MAX = 4096 };

struct pids {
        int32_t *list;
        size_t count, room;
        uint32_t cgroups; /* looked at */
};

static void complain(struct oomslice_apply *apply, const char *path, const char *what, int error) {
        apply->missed++;
        (void)snprintf(apply->error, sizeof(apply->error), "%.120s: %s: %s", path, what,
                       error ? strerrordesc_np(error < 0 ? -error : error) : "too many");
}

static int append(struct pids *pids, int32_t pid) {
        if (pids->count == pids->room) {
                size_t room = pids->room ? 2 * pids->room : 256;
                int32_t *more = reallocarray(pids->list, room, sizeof(*more));

                if (!more)
                        return -ENOMEM;
                pids->list = more;
                pids->room = room;
        }
        pids->list[pids->count++] = pid;
        return 0;
}

static int list_file(int directory, struct pids *pids) {
        int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        char line[32];
        FILE *file;
        int r = 0;

        if (fd < 0)
                return -errno;
        file = fdopen(fd, "re");
        if (!file) {
                close(fd);
                return -ENOMEM;
        }
        while (r == 0 && fgets(line, sizeof(line), file)) {
                int32_t pid = atoi(line);

                /* 0: of another pid namespace. */
                if (pid > 1 && pid != getpid())
                        r = append(pids, pid);
        }
        (void)fclose(file);
        return r;
}

/* Takes over the descriptor. */
static int list_below(int directory, int depth, struct pids *pids) {
        const struct dirent *entry;
        DIR *stream;
        int r = list_file(directory, pids);

        stream = fdopendir(directory);
        if (!stream) {
                close(directory);
                return -ENOMEM;
        }
        while ((r == 0 || r == -EOPNOTSUPP) && depth < DEPTH_MAX && (entry = readdir(stream))) {
                int child;

                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                if (++pids->cgroups > CGROUPS_MAX) {
                        r = -E2BIG;
                        break;
                }
                child = openat(dirfd(stream), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
                if (child >= 0)
                        r = list_below(child, depth + 1, pids);
        }
        (void)closedir(stream);
        /* ENODEV: removed while it was read; EOPNOTSUPP: a threaded one, whose processes are listed above it. */
        return r == -ENODEV || r == -ENOENT || r == -EOPNOTSUPP ? 0 : r;
}

int oomslice_apply_open(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit) {
        struct stat status;
        const char *path = unit->path[1] == '\0' ? "." : unit->path + 1;
        int fd = openat(apply->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

        if (fd < 0)
                return -errno;
        if (fstat(fd, &status) < 0 || status.st_ino != unit->id) {
                close(fd);
                return -ENOENT;
        }
        return fd;
}

static bool given_anywhere(const struct oomslice_scores *scores, int adj) {
        for (size_t i = 0; i < scores->units_count; i++)
                if (oomslice_scored_unit_gave(&scores->units[i], adj))
                        return true;
        return false;
}

bool oomslice_apply_wanted(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit,
                           int adj, bool *ours, int *wantedp) {
        bool wanted = unit->wanted && !apply->undo;

        *ours = oomslice_scored_unit_gave(unit, adj) || (adj < 0 && given_anywhere(&apply->scores, adj));
        if (adj < OOMSLICE_SCORES_LEAST)
                return false;
        *wantedp = wanted ? unit->adj : unit->baseline;
        if (*ours)
                return *wantedp != adj || !wanted;
        if (!wanted || adj < 0)
                return false;
        if (unit->strict)
                return adj == unit->baseline && adj != unit->adj;
        return unit->adj > adj || (unit->adj < adj && adj <= unit->baseline);
}

/* Of a young unit, before something is done to it for the first time. */
static int note(struct oomslice_apply *apply, struct oomslice_scored_unit *unit) {
        int r;

        if (!unit->young || unit->noted || apply->undo)
                return 0;
        if (unit->wanted)
                oomslice_scored_unit_had(unit, unit->adj);
        r = oomslice_force_note(apply, unit);
        if (r < 0) {
                unit->old_count = 0;
                return r;
        }
        unit->noted = true;
        return 0;
}

/* One process. 1 if it was changed, 0 if not, or -errno. */
static int apply_process(struct oomslice_apply *apply, struct oomslice_scored_unit *unit, int32_t pid,
                         bool first) {
        struct oomslice_scored_target target;
        struct oomslice_scored_process process = {.pid = pid}, *known;
        bool ours, same;
        int wanted, r;

        r = oomslice_adjust_open(apply->proc, pid, unit->path, &target);
        if (r < 0)
                return r;
        /* It has the very value that the unit is to get, but not from us: it keeps that at the end. */
        same = first && unit->fresh && target.adj == unit->adj && unit->adj != unit->baseline;
        if (!oomslice_apply_wanted(apply, unit, target.adj, &ours, &wanted) && !same) {
                oomslice_adjust_close(&target);
                return 0;
        }
        r = oomslice_adjust_start(&target, &process.start);
        if (r == 0 && (same || (!ours && target.adj != unit->baseline))) {
                process.adj = (int16_t)target.adj;
                r = oomslice_scores_remember(&apply->scores, process);
                if (r == 0)
                        r = oomslice_state_append_process(apply->state, &process);
        }
        if (r == 0 && ours && (!unit->wanted || apply->undo)) {
                known = oomslice_scores_process(&apply->scores, pid, process.start);
                if (known)
                        wanted = known->adj;
        }
        if (r == 0 && !same && wanted != target.adj) {
                r = note(apply, unit);
                if (r == 0)
                        r = oomslice_adjust_write(&target, unit->path, wanted);
                r = r == 0 ? 1 : r;
        }
        oomslice_adjust_close(&target);
        return r;
}

static void apply_group(struct oomslice_apply *apply, struct oomslice_scored_unit *unit, int directory) {
        bool set = unit->group && !apply->undo;
        char now = '0';
        int fd, r = 0;

        if (!set && !unit->group_set)
                return;
        fd = openat(directory, "memory.oom.group", O_RDWR | O_CLOEXEC);
        if (fd < 0) {
                /* No memory controller for this one: then the kernel never kills in it for its own sake. */
                if (errno != ENOENT)
                        complain(apply, unit->path, "memory.oom.group", errno);
                return;
        }
        if (read(fd, &now, 1) < 0)
                r = -errno;
        /* If it was set by somebody else it stays so, also at the end. */
        if (r == 0 && now != (set ? '1' : '0')) {
                r = note(apply, unit);
                if (r == 0 && set && !unit->group_set)
                        r = oomslice_state_append_group(apply->state, unit->id);
                if (r == 0 && pwrite(fd, set ? "1" : "0", 1, 0) < 0)
                        r = -errno;
                if (r == 0)
                        unit->group_set = set;
        } else if (!set)
                unit->group_set = false;
        if (r < 0)
                complain(apply, unit->path, "memory.oom.group", r);
        close(fd);
}

/*
 * Whether a young unit of which nothing is known has an OOMScoreAdjust= of its own: one of its processes has a value that is
 * not usual there. Those that systemd has not yet made into the unit's are left out: they may get one in a moment.
 */
static bool has_own_value(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit,
                          struct pids *pids) {
        size_t kept = 0;
        bool own = false;

        for (size_t i = 0; i < pids->count && !own; i++) {
                struct oomslice_scored_target target;

                if (oomslice_adjust_open(apply->proc, pids->list[i], unit->path, &target) < 0)
                        continue;
                if (unit->looks == 0 || !oomslice_adjust_is_starting(&target)) {
                        pids->list[kept++] = target.pid;
                        own = target.adj != unit->baseline &&
                              !(target.adj < 0 && given_anywhere(&apply->scores, target.adj));
                }
                oomslice_adjust_close(&target);
        }
        pids->count = kept;
        return own;
}

/* One round. Whether a process was changed, which may have forked meanwhile. */
static bool apply_processes(struct oomslice_apply *apply, struct oomslice_scored_unit *unit,
                            const struct pids *pids, bool first) {
        bool changed = false;

        for (size_t i = 0; i < pids->count; i++) {
                int done = apply_process(apply, unit, pids->list[i], first);

                if (done > 0) {
                        apply->hits++;
                        changed = true;
                } else if (done < 0 && done != -ESRCH && first)
                        complain(apply, unit->path, "oom_score_adj", done);
        }
        return changed;
}

bool oomslice_apply_unit(struct oomslice_apply *apply, struct oomslice_scored_unit *unit) {
        struct pids pids = {0};
        bool changed = true, populated = false;
        int directory = unit->kept ? -ENOENT : oomslice_apply_open(apply, unit), r = 0;

        if (directory < 0)
                return false; /* it ended: so did all that was in it */
        if (!unit->strict || unit->noted)
                apply_group(apply, unit, directory);
        for (int round = 0; changed && round < ROUNDS_MAX; round++) {
                int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

                pids.count = pids.cgroups = 0;
                r = copy < 0 ? -errno : list_below(copy, 0, &pids);
                populated = populated || pids.count > 0;
                if (unit->strict && !unit->noted && has_own_value(apply, unit, &pids)) {
                        unit->kept = true;
                        unit->looks = 0;
                        break;
                }
                changed = apply_processes(apply, unit, &pids, round == 0);
                if (r < 0)
                        break;
        }
        if (unit->strict && unit->noted)
                apply_group(apply, unit, directory);
        if (r < 0 && r != -ENODEV && r != -ENOENT)
                complain(apply, unit->path, "cgroup.procs", r);
        free(pids.list);
        close(directory);
        unit->applied = true;
        unit->fresh = unit->young && !unit->noted;
        /* Whoever gets one of these values from now on did not get it from us. */
        if (r == 0 && !unit->wanted)
                unit->old_count = 0;
        return populated && !unit->kept;
}

/* systemd writes memory.oom.group when a property of the unit is set, and when a sibling is started. */
static void apply_group_again(struct oomslice_apply *apply, struct oomslice_scored_unit *unit) {
        int directory = oomslice_apply_open(apply, unit);

        if (directory < 0)
                return;
        apply_group(apply, unit, directory);
        close(directory);
}

void oomslice_apply_groups(struct oomslice_apply *apply) {
        for (size_t i = 0; i < apply->scores.units_count; i++) {
                struct oomslice_scored_unit *unit = &apply->scores.units[i];

                if (unit->applied && unit->group && !unit->kept && (!unit->strict || unit->noted))
                        apply_group_again(apply, unit);
        }
}

void oomslice_apply_all(struct oomslice_apply *apply) {
        if (!apply->undo)
                oomslice_apply_groups(apply);
        for (size_t i = 0; i < apply->scores.units_count; i++)
                if (!apply->scores.units[i].applied || apply->undo)
                        (void)oomslice_apply_unit(apply, &apply->scores.units[i]);
}
