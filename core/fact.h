/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the BPF program observe tells of the kernel's own OOM killer: the layout of its records, which
 * bpf/observe.bpf.c includes, and how they are read from the pinned ring buffer. Nothing is written twice.
 */
#include <stdint.h>

/* cffi: begin */
enum oomslice_fact_kind {
        /* The kernel begins to kill: for whom, and where the one is that it chose. */
        OOMSLICE_FACT_KILL = 1,
        /* One process of it. Those with the same kill_nsec belong together. */
        OOMSLICE_FACT_VICTIM = 2,
        /* All of it was told, and counted in memory.events. */
        OOMSLICE_FACT_END = 3,
};
enum {
        OOMSLICE_FACT_LEVELS = 8,
        OOMSLICE_FACT_NAME_MAX = 120,
        OOMSLICE_FACT_TASK_MAX = 16,
};
/* What all have first. */
struct oomslice_fact {
        uint32_t kind;
        uint32_t reserved;
        /* CLOCK_MONOTONIC of the KILL: names it, for this boot. */
        uint64_t kill_nsec;
        /* CLOCK_MONOTONIC of this record. */
        uint64_t nsec;
};
/* One cgroup on the way from the root down to that of the victim. */
struct oomslice_fact_level {
        uint64_t id;
        /* Ends with a NUL; longer ones are cut. */
        char name[120];
};
struct oomslice_fact_kill {
        struct oomslice_fact fact;
        /* Id of the cgroup whose limit was reached, 0 for the machine. */
        uint64_t limited;
        /* The kernel's score of the victim, in pages. */
        int64_t points;
        /* Pages that the score is out of. */
        uint64_t total_pages;
        /* enum oom_constraint of the kernel: 0 machine, 1 cpuset, 2 memory policy, 3 cgroup. */
        uint32_t constraint;
        int32_t pid;
        /* Id of the victim's cgroup, and how deep below the root that is. */
        uint64_t cgroup;
        uint32_t depth;
        /* How many of levels are filled: those below the root, from above, the last of them left out if there are more. */
        uint32_t levels_count;
        struct oomslice_fact_level levels[8];
};
struct oomslice_fact_victim {
        struct oomslice_fact fact;
        int32_t pid;
        uint32_t uid;
        int32_t score_adjustment;
        uint32_t reserved;
        /* Pages, to the accuracy of the kernel's counters. */
        uint64_t anonymous;
        uint64_t file;
        uint64_t shared;
        char task[16];
};
struct oomslice_fact_end {
        struct oomslice_fact fact;
        /* Processes, those included for which the ring had no room. */
        uint32_t victims;
        uint32_t lost;
};
/* What the program has done since it was loaded: the one element of its map "figures". */
struct oomslice_fact_figures {
        uint64_t kills;
        uint64_t victims;
        uint64_t lost;
};

struct oomslice_facts;
/* Maps the pinned ring buffer that `fd` is; the descriptor stays the caller's. Reads go on where whoever read it before
 * has released. NULL with errno set: EINVAL: not a ring buffer. */
struct oomslice_facts *oomslice_facts_new(int fd);
void oomslice_facts_free(struct oomslice_facts *facts);
/* The next record and its size, without giving it back. 1; 0: there is no more for now; -EBADMSG: what is there cannot
 * be records. What it points to holds until it is released. */
int oomslice_facts_next(struct oomslice_facts *facts, const void **recordp, uint32_t *sizep);
/* From the first one that was not released on again. */
void oomslice_facts_rewind(struct oomslice_facts *facts);
/* Gives the room of all records before `position` back to the kernel: one that oomslice_facts_position has said. */
void oomslice_facts_release(struct oomslice_facts *facts, uint64_t position);
/* Where the record after the last one returned begins. */
uint64_t oomslice_facts_position(const struct oomslice_facts *facts);
/* As oomslice_facts_new, of any file with the layout of a ring buffer of `size` bytes. */
struct oomslice_facts *oomslice_facts_map(int fd, uint32_t size);
/* cffi: end */
