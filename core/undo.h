/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What was done to units and has to be undone: frozen cgroups, lowered limits. It is written down before it is
 * done, in a small file that outlives this process, so that nothing is ever left standing still.
 */
#include <stdbool.h>
#include <stdint.h>

enum oomslice_undo_limit {
        OOMSLICE_UNDO_MAX = 48,  /* a throttle takes two */
        OOMSLICE_UNDO_SWAP = 64, /* a kind that is no step: memory.swap.max, which goes with a throttle */
};

/* One thing that was done. */
struct oomslice_undo {
        uint64_t cgroup_id;
        uint64_t domain_id;
        uint64_t ring_id, sequence; /* of the decision */
        uint64_t old_value;         /* of a limit: as it was, UINT64_MAX: max */
        uint64_t new_value;         /* of a limit: what was written, or may come to be */
        uint64_t begin_us;
        uint64_t undone_us; /* 0: not yet */
        uint32_t kind;      /* OOMSLICE_STEP_FREEZE, THROTTLE or OOMSLICE_UNDO_SWAP; 0: the place is free */
        int32_t error;      /* errno of undoing it */
};

/* Maps the file, made if it is not there. `root_fd`: the cgroup tree, to find cgroups by id. 0 or -errno; without
 * the file nothing is written down, and steps that would have to be are unavailable. */
int oomslice_undo_open(const char *path, int root_fd);
/* Undoes what a predecessor has left. For the start, and for the end of the service. */
void oomslice_undo_predecessor(void);
/* Writes down what is about to be done. `fd`, which is copied, takes it back. 0 or -errno: then it must not be done. */
int oomslice_undo_add(const struct oomslice_undo *entry, int fd);
/* It was not done after all. */
void oomslice_undo_forget(uint64_t cgroup_id, uint32_t kind);
bool oomslice_undo_has(uint64_t cgroup_id, uint32_t kind);
/* True if an entry of this kind was only written down so far: what it stands for may still have to be done. */
bool oomslice_undo_is_pending(uint32_t kind);
/* Writes `new_value` of all those. Only for limits whose writing does not reclaim. */
void oomslice_undo_apply_pending(uint32_t kind);
/* Pressure in this domain: what was done there stays for as long as `calm_us` after it. */
void oomslice_undo_pressure(uint64_t domain_id, uint64_t now_us, uint64_t calm_us);
/* Undoes what was done to this cgroup, now. */
void oomslice_undo_unit(uint64_t cgroup_id, uint64_t now_us);
/* Undoes, newest first, whatever is due, and has it recorded. */
void oomslice_undo_poll(uint64_t now_us);
/* When the next is due; OOMSLICE_MOMENT_NEVER if there is none. */
uint64_t oomslice_undo_next(void);
/* Undoes everything: the core ends. */
void oomslice_undo_all(uint64_t now_us);
