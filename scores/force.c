/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the change from one table to the next, and the end. What was done is known by unit: whoever is in both tables goes on,
 * whoever is in the first only is as before.
 */
#define _GNU_SOURCE
#include "force.h"

#include "state.h"
#include "watch.h"
#include "young.h"

static void succeed(struct oomslice_scores *before, struct oomslice_scores *next) {
        for (size_t i = 0; i < next->units_count; i++) {
                struct oomslice_scored_unit *unit = &next->units[i];
                struct oomslice_scored_unit *old = oomslice_scores_find(before, unit->id);

                if (unit->kept)
                        continue;
                if (old)
                        oomslice_scored_unit_succeed(old, unit);
                if (unit->wanted) {
                        unit->fresh = !oomslice_scored_unit_gave(unit, unit->adj);
                        oomslice_scored_unit_had(unit, unit->adj);
                }
        }
}

/* They are to be as they were: what they gave is still known now. */
static void give_back(struct oomslice_apply *apply, const struct oomslice_scores *next) {
        for (size_t i = 0; i < apply->scores.units_count; i++) {
                struct oomslice_scored_unit *unit = &apply->scores.units[i];
                const struct oomslice_scored_unit *later = oomslice_scores_find(next, unit->id);

                if ((later && !later->kept) || !(unit->old_count || unit->group_set))
                        continue;
                unit->wanted = unit->group = false;
                (void)oomslice_apply_unit(apply, unit);
        }
}

/* Those that have a successor have handed theirs on. */
static void end_watches(const struct oomslice_apply *apply, struct oomslice_scores *scores) {
        for (size_t i = 0; i < scores->units_count; i++)
                oomslice_watch_end(apply, &scores->units[i]);
        for (size_t i = 0; i < scores->slices_count; i++)
                oomslice_watch_end(apply, &scores->slices[i]);
}

static int write_state(struct oomslice_apply *apply) {
        oomslice_state_forget(apply->proc, &apply->scores);
        apply->noted = 0;
        return oomslice_state_write(apply->state_path, &apply->scores, &apply->state);
}

int oomslice_force_replace(struct oomslice_apply *apply, struct oomslice_scores *next) {
        struct oomslice_scores *before = &apply->scores;
        int r;

        succeed(before, next);
        oomslice_young_find(apply, next);
        give_back(apply, next);
        end_watches(apply, before);
        next->processes = before->processes;
        next->processes_count = before->processes_count;
        next->processes_room = before->processes_room;
        before->processes = NULL;
        oomslice_scores_free(before);
        apply->scores = *next;
        *next = (struct oomslice_scores){0};
        r = write_state(apply);
        if (r < 0)
                return r;
        /* First watched, then looked at: nobody comes in between. */
        oomslice_watch_all(apply);
        oomslice_apply_all(apply);
        return 0;
}

void oomslice_force_undo(struct oomslice_apply *apply) {
        uint64_t missed = apply->missed;

        end_watches(apply, &apply->scores);
        apply->undo = true;
        oomslice_apply_all(apply);
        apply->undo = false;
        if (apply->missed == missed)
                oomslice_state_remove(apply->state_path, &apply->state);
}

int oomslice_force_note(struct oomslice_apply *apply, const struct oomslice_scored_unit *unit) {
        /* Most of those before have ended. */
        if (apply->noted >= OOMSLICE_SCORES_YOUNG_MAX) {
                int r = write_state(apply);

                if (r < 0)
                        return r;
        }
        apply->noted++;
        return oomslice_state_append_unit(apply->state, unit);
}
