/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The units with their values, as text of one line each:
 *
 *   unit ID ADJ BASELINE GROUP PATH    ADJ is a number or "-": none, only what leaked in from elsewhere is put right
 *   keep ID PATH                       never touched, nor is a later unit of that name
 *   slice ID ADJ BASELINE GROUP PATH   what units in it get that are younger than the table; "-": only those that it knows
 *                                      by name
 *
 * and, in the state file only, what has to be known to undo it:
 *
 *   old ID ADJ                         a value that the unit had from us before
 *   group ID                           memory.oom.group was set by us
 *   process PID START ADJ              the value that this process had before, if that is not its unit's baseline
 *
 * ID is that of the cgroup, PATH is below the cgroup root, START the start time as in /proc/PID/stat.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        OOMSLICE_SCORES_UNITS_MAX = 4096,
        OOMSLICE_SCORES_YOUNG_MAX = 1024, /* units that are younger than the table, beside those in it */
        OOMSLICE_SCORES_SLICES_MAX = 4096,
        /* In the state file are also those that have ended since it was written as a whole. */
        OOMSLICE_SCORES_ROOM = OOMSLICE_SCORES_UNITS_MAX + 2 * OOMSLICE_SCORES_YOUNG_MAX,
        OOMSLICE_SCORES_OLD_MAX = 8, /* values that are remembered of one unit */
        OOMSLICE_SCORES_SIZE_MAX = 4 * 1024 * 1024,
        OOMSLICE_SCORES_LEAST =
                -999, /* -1000 is nobody's to give: not even memory.oom.group would take the process */
        OOMSLICE_SCORES_MOST = 1000,
};

struct oomslice_scored_unit {
        uint64_t id;
        char *path;
        bool wanted; /* adj is to be given */
        bool group;  /* memory.oom.group is to be set */
        int16_t adj;
        int16_t baseline; /* what processes of this unit have that nobody gave a value */
        bool kept;        /* it has a value of its own, or is not ours to touch */
        bool young;       /* it is not in the table, which is older (young.h) */
        bool strict;      /* and nothing is known of it: only who has the baseline gets a value */
        /* From here on what we did. */
        bool applied;
        bool fresh; /* its processes never had `adj` from us: who has it, has it from elsewhere */
        bool noted; /* of a young one: it is in the state file, because something was done to it */
        bool group_set;
        uint8_t depth; /* of a young slice: how many young ones it is in, itself included */
        uint8_t old_count;
        int16_t old[OOMSLICE_SCORES_OLD_MAX]; /* the newest last */
        int watch;        /* of cgroup.events, a slice's of its directory; -1 if there is none */
        uint8_t looks;    /* how often it is going to be looked at again (looks.h) */
        uint64_t look_at; /* when, in milliseconds */
};

struct oomslice_scored_process {
        int32_t pid;
        int16_t adj; /* its own */
        uint64_t start;
};

struct oomslice_scores {
        struct oomslice_scored_unit *units; /* by id */
        size_t units_count;
        struct oomslice_scored_unit *slices; /* that hand a value down, in no order */
        size_t slices_count, slices_room;
        struct oomslice_scored_process *processes;
        size_t processes_count, processes_room;
};

/* Replaces what is in *scoresp. 0; -errno; or the number of the first line that is wrong, with nothing replaced. */
int oomslice_scores_parse(struct oomslice_scores *scoresp, const char *text, size_t size);
void oomslice_scores_free(struct oomslice_scores *scores);
struct oomslice_scored_unit *oomslice_scores_find(const struct oomslice_scores *scores, uint64_t id);
/* Takes over the unit with its path. What was found before is elsewhere then. 0, or -errno with nothing taken: -EEXIST, -E2BIG. */
int oomslice_scores_insert(struct oomslice_scores *scores, const struct oomslice_scored_unit *unit);
int oomslice_scores_insert_slice(struct oomslice_scores *scores, const struct oomslice_scored_unit *slice);
void oomslice_scores_remove(struct oomslice_scores *scores, size_t index);
void oomslice_scores_remove_slice(struct oomslice_scores *scores, size_t index);
/* The value that a process had before it got one of ours, or NULL. */
struct oomslice_scored_process *oomslice_scores_process(const struct oomslice_scores *scores, int32_t pid,
                                                        uint64_t start);
/* Notes it. 0 or -ENOMEM. */
int oomslice_scores_remember(struct oomslice_scores *scores, struct oomslice_scored_process process);
/* Notes that the unit's processes may have this value from us. */
void oomslice_scored_unit_had(struct oomslice_scored_unit *unit, int16_t adj);
bool oomslice_scored_unit_gave(const struct oomslice_scored_unit *unit, int adj);
/* What was done to the unit is known to the same one in another table, and its watch is that one's. */
void oomslice_scored_unit_succeed(struct oomslice_scored_unit *from, struct oomslice_scored_unit *to);
