/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The plan in force, and the one that is being taken. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "held.h"
#include "plan.h"

struct oomslice_force_domain {
        int trigger_fd;    /* -1: no trigger, or it could not be armed */
        int figures_fd;    /* memory.pressure for reading, -1: none */
        uint64_t total_us; /* stalled before the trigger was made; UINT64_MAX: no longer of interest */
};

struct oomslice_force {
        uint32_t tag; /* of this taking; events of another are stale */
        struct oomslice_plan plan;
        int fd; /* of the plan's memfd */
        void *map;
        size_t size;
        struct oomslice_held *held; /* one per unit */
        uint16_t *order;            /* unit indices by cgroup id */
        bool *inherited;            /* held[i] is shared with the plan before, while both exist */
        uint32_t added;             /* units whose descriptor has come */
        int sign_fd;                /* -1: none */
        struct oomslice_force_domain thrash;
        int plain_sign_fd; /* the sign again, by other means of the kernel; -1: none */
        struct oomslice_force_domain domains[OOMSLICE_PLAN_DOMAINS_MAX];
};

/* `proc_fd`: /proc, for the machine's pressure file. Sets up the tables; once, before anything else here. */
void oomslice_force_init(int epoll_fd, int proc_fd);
/* The plan in force or NULL. */
const struct oomslice_force *oomslice_force_get(void);

/*
 * Taking a plan: begin, add until every unit has its descriptor, commit. All return enum oomslice_plan_result or
 * -errno with *detailp as in plan.h; any failure drops what was begun and leaves the plan in force untouched.
 * begin takes over `plan_fd` whatever it returns; the descriptors given to add stay the caller's, and one of -1
 * stands for a cgroup that is gone.
 */
int oomslice_force_begin(int plan_fd, bool newer_only, uint32_t *detailp);
int oomslice_force_add(uint32_t first, const int *fds, uint32_t count, uint32_t *detailp);
int oomslice_force_commit(uint32_t *detailp);
void oomslice_force_abort(void);
/* The same in one go for a plan that was stored: every cgroup is opened by its id below `root_fd`. */
int oomslice_force_restore(int plan_fd, int root_fd, uint32_t *detailp);

/* Locks the tables of the plan in force, if it was taken before oomslice_lock_all(). */
void oomslice_force_lock(void);

/* Index of the unit with this cgroup id, or -1. */
int32_t oomslice_force_find(const struct oomslice_force *force, uint64_t cgroup_id);
/* True if the plan's candidates have memory figures. */
bool oomslice_force_has_memory(const struct oomslice_force *force);
/*
 * A trigger has fired: false if the stalls since it was made are less than what it is set to, so it is for those before.
 * Call it for each firing.
 */
bool oomslice_force_is_stalled(uint32_t domain);
bool oomslice_force_is_thrashing(void);
/* The trigger of this domain is dead (its cgroup is removed): closes it. */
void oomslice_force_drop_trigger(uint32_t domain);
