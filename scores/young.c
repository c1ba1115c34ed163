/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the gap between a table and the machine: units that were started since, while oomsliced makes the next plan, or
 * stands still. How many there may be at a time is bounded, and what is above that waits for the table; half of it is out of
 * the reach of users, who may make as many cgroups as they like.
 *
 * Of a unit that only its slice speaks for nobody knows whether it has an OOMScoreAdjust= of its own. So it is left alone as a
 * whole if its first processes have another value than is usual there (apply.c).
 */
#define _GNU_SOURCE
#include "young.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "looks.h"
#include "watch.h"

enum { DEPTH_MAX = 4, SLICES_MAX = 256 };

/* What is looked for, and where: in the table in force, or in the one that is to be. */
struct search {
        struct oomslice_apply *apply;
        struct oomslice_scores *scores;
        bool next;
};

static void look_into(struct search *search, size_t number);

static bool ends_with(const char *text, const char *end) {
        size_t text_size = strlen(text), end_size = strlen(end);

        return text_size > end_size && strcmp(text + text_size - end_size, end) == 0;
}

/* systemd's units that have a cgroup and, but for helpers, no process. */
static bool is_skipped(const char *name) {
        return name[0] == '.' || strcmp(name, "init.scope") == 0 || ends_with(name, ".mount") ||
               ends_with(name, ".socket") || ends_with(name, ".swap");
}

/* What is usual in one is more than its manager has itself, which nobody knows here before the table does. */
static bool is_manager(const char *name) {
        return strncmp(name, "user@", 5) == 0 && ends_with(name, ".service");
}

static char *path_below(const char *slice_path, const char *name) {
        char *path = NULL;

        return asprintf(&path, "%s/%s", strcmp(slice_path, "/") == 0 ? "" : slice_path, name) < 0 ? NULL
                                                                                                  : path;
}

/* Of the table: whose name it is. */
static const struct oomslice_scored_unit *named(const struct oomslice_scored_unit *units, size_t count,
                                                const char *path) {
        for (size_t i = 0; i < count; i++)
                if (!units[i].young && strcmp(units[i].path, path) == 0)
                        return &units[i];
        return NULL;
}

static struct oomslice_scored_unit *find_slice(const struct oomslice_scores *scores, uint64_t id) {
        for (size_t i = 0; i < scores->slices_count; i++)
                if (scores->slices[i].id == id)
                        return &scores->slices[i];
        return NULL;
}

static size_t count_young(const struct oomslice_scored_unit *units, size_t count) {
        size_t young = 0;

        for (size_t i = 0; i < count; i++)
                young += units[i].young;
        return young;
}

/* Below a user manager more is usual than zero. */
static bool is_room(const struct oomslice_scored_unit *units, size_t count, size_t most, int baseline) {
        return count_young(units, count) < (baseline > 0 ? most / 2 : most);
}

/* Takes over the path. 0 or -errno. */
static int take_unit(struct search *search, struct oomslice_scored_unit *unit, int directory) {
        struct oomslice_scores *scores = search->scores;
        struct oomslice_scored_unit *old =
                search->next ? oomslice_scores_find(&search->apply->scores, unit->id) : NULL;
        int r;

        if (!is_room(scores->units, scores->units_count, OOMSLICE_SCORES_YOUNG_MAX, unit->baseline))
                return -E2BIG;
        /* One that was left alone is judged anew: its slice may hand down something else now. */
        if (old)
                oomslice_scored_unit_succeed(old, unit);
        else if (search->next)
                oomslice_looks_arm(unit);
        unit->fresh = !oomslice_scored_unit_gave(unit, unit->adj);
        if (unit->noted && unit->wanted)
                oomslice_scored_unit_had(unit, unit->adj);
        r = oomslice_scores_insert(scores, unit);
        if (r < 0)
                oomslice_watch_end(search->apply, unit);
        if (r < 0 || search->next)
                return r;
        unit = oomslice_scores_find(scores, unit->id);
        /* First watched, then looked at: nobody comes in between. */
        oomslice_watch_unit(search->apply, unit, directory);
        oomslice_looks_begin(search->apply, unit);
        return 0;
}

static int take_slice(struct search *search, struct oomslice_scored_unit *slice) {
        struct oomslice_scores *scores = search->scores;
        int r;

        if (!is_room(scores->slices, scores->slices_count, SLICES_MAX, slice->baseline))
                return -E2BIG;
        r = oomslice_scores_insert_slice(scores, slice);
        if (r == 0)
                look_into(search, scores->slices_count - 1);
        return r;
}

static void visit(struct search *search, size_t above, int parent, const char *name) {
        const struct oomslice_scores *scores = search->scores;
        const struct oomslice_scored_unit *slice = &scores->slices[above], *unit, *like;
        struct oomslice_scored_unit young = {.watch = -1, .young = true, .depth = slice->depth};
        bool is_slice = ends_with(name, ".slice");
        struct stat status;
        int directory, r = 0;

        if (is_skipped(name))
                return;
        directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (directory < 0)
                return;
        young.path = path_below(slice->path, name);
        if (!young.path || fstat(directory, &status) < 0 || oomslice_scores_find(scores, status.st_ino) ||
            find_slice(scores, status.st_ino))
                goto end;
        young.id = status.st_ino;
        unit = named(scores->units, scores->units_count, young.path);
        like = unit ? unit : named(scores->slices, scores->slices_count, young.path);
        if (like)
                is_slice = !unit;
        else
                like = slice->wanted && !is_manager(name) && (!is_slice || slice->depth < DEPTH_MAX) ? slice
                                                                                                     : NULL;
        if (!like || like->kept)
                goto end;
        young.wanted = like->wanted;
        young.adj = like->adj;
        young.baseline = like->baseline;
        young.group = like->group;
        young.strict = like == slice;
        young.depth += young.strict && is_slice;
        r = is_slice ? take_slice(search, &young) : take_unit(search, &young, directory);
        if (r < 0) {
                search->apply->missed++;
                (void)snprintf(search->apply->error, sizeof(search->apply->error),
                               "%.120s: units younger than the table: %s", slice->path, strerrordesc_np(-r));
        } else
                young.path = NULL; /* taken over */
end:
        free(young.path);
        close(directory);
}

/* First watched, then read: nobody comes in between. */
static void look_into(struct search *search, size_t number) {
        struct oomslice_scored_unit *slice = &search->scores->slices[number], *old;
        int directory = oomslice_apply_open(search->apply, slice);
        const struct dirent *entry;
        DIR *stream;

        if (directory < 0)
                return;
        old = search->next ? find_slice(&search->apply->scores, slice->id) : NULL;
        if (old)
                oomslice_scored_unit_succeed(old, slice);
        oomslice_watch_slice(search->apply, slice, directory);
        stream = fdopendir(directory);
        if (!stream) {
                close(directory);
                return;
        }
        while ((entry = readdir(stream)))
                if (entry->d_type == DT_DIR)
                        visit(search, number, dirfd(stream), entry->d_name);
        (void)closedir(stream);
}

void oomslice_young_appeared(struct oomslice_apply *apply, size_t slice, const char *name) {
        struct search search = {.apply = apply, .scores = &apply->scores};
        int directory = oomslice_apply_open(apply, &apply->scores.slices[slice]);

        if (directory < 0)
                return;
        visit(&search, slice, directory, name);
        close(directory);
}

static bool has_ended(const struct oomslice_apply *apply, const struct oomslice_scored_unit *unit) {
        int directory = oomslice_apply_open(apply, unit);

        if (directory >= 0)
                close(directory);
        return directory == -ENOENT || directory == -ENODEV;
}

/* Those of the table stay: whoever comes by that name has what they had. `path` NULL: all that have ended. */
static void drop_ended(struct oomslice_apply *apply, const char *path) {
        struct oomslice_scores *scores = &apply->scores;

        for (size_t i = scores->units_count; i-- > 0;) {
                struct oomslice_scored_unit *unit = &scores->units[i];

                if ((path && strcmp(unit->path, path) != 0) || !has_ended(apply, unit))
                        continue;
                oomslice_watch_end(apply, unit);
                unit->looks = 0;
                if (unit->young)
                        oomslice_scores_remove(scores, i);
        }
        for (size_t i = scores->slices_count; i-- > 0;) {
                struct oomslice_scored_unit *slice = &scores->slices[i];

                if ((path && strcmp(slice->path, path) != 0) || !has_ended(apply, slice))
                        continue;
                oomslice_watch_end(apply, slice);
                if (slice->young)
                        oomslice_scores_remove_slice(scores, i);
        }
}

void oomslice_young_ended(struct oomslice_apply *apply, const char *slice_path, const char *name) {
        char *path = path_below(slice_path, name);

        if (path)
                drop_ended(apply, path);
        free(path);
}

static void look_everywhere(struct search *search) {
        /* Those that are found on the way are looked into when they are. */
        size_t count = search->scores->slices_count;

        for (size_t i = 0; i < count; i++)
                look_into(search, i);
}

void oomslice_young_find(struct oomslice_apply *apply, struct oomslice_scores *next) {
        struct search search = {.apply = apply, .scores = next, .next = true};

        look_everywhere(&search);
}

void oomslice_young_look_around(struct oomslice_apply *apply) {
        struct search search = {.apply = apply, .scores = &apply->scores};

        drop_ended(apply, NULL);
        look_everywhere(&search);
}
