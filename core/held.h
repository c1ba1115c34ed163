/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the core holds open of one cgroup, so that nothing has to be opened when memory is gone. */
#include <stdbool.h>
#include <stdint.h>

/* Descriptors, -1 if not there. `directory` -1: the cgroup is gone. */
struct oomslice_held {
        int32_t directory;
        int32_t kill;     /* cgroup.kill, write-only */
        int32_t procs;    /* cgroup.procs */
        int32_t events;   /* cgroup.events */
        int32_t current;  /* memory.current */
        int32_t stat;     /* memory.stat */
        int32_t swap;     /* memory.swap.current */
        int32_t freeze;   /* cgroup.freeze; this one and the next three only where a ladder needs them */
        int32_t high;     /* memory.high */
        int32_t swap_max; /* memory.swap.max, for whoever gets a memory.high */
        int32_t reclaim;  /* memory.reclaim, write-only */
        int32_t min;      /* memory.min, of cgroups right below the root */
};

/* Which files are opened besides the directory. */
enum oomslice_held_files {
        OOMSLICE_HELD_CANDIDATE = 1, /* what a choice and a kill need */
        OOMSLICE_HELD_FREEZE = 2,
        OOMSLICE_HELD_HIGH = 4, /* and what goes with it */
        OOMSLICE_HELD_RECLAIM = 8,
        OOMSLICE_HELD_MIN = 16, /* memory.min and what it is held against */
        OOMSLICE_HELD_ALL = 31,
};

struct oomslice_usage {
        uint64_t current;  /* bytes: memory.current */
        uint64_t swap;     /* bytes: memory.swap.current */
        uint64_t memory;   /* bytes a kill gives back: current - file pages on the LRU + swap */
        uint64_t refaults; /* pages, anonymous and file */
        uint64_t file;     /* bytes: page cache on the LRU lists */
        uint64_t shared;   /* bytes: shmem, which outlives a kill where it is files of a tmpfs */
};

void oomslice_held_init(struct oomslice_held *held);
/* Opens what there is below `directory_fd`, which stays the caller's: the directory itself, and `files` of it (enum
 * oomslice_held_files). 0 or -errno; a file that does not exist stays -1 and is no error. */
int oomslice_held_open(struct oomslice_held *held, int directory_fd, uint32_t files);
/* The files that a step of a ladder writes (enum oomslice_held_files), 0: none. */
uint32_t oomslice_held_files_of_step(uint32_t kind);
/* Opens those of `files` that are not open yet; what cannot be opened stays -1. */
void oomslice_held_open_more(struct oomslice_held *held, uint32_t files);
/* Copies of all descriptors; what cannot be copied is -1. */
void oomslice_held_copy(struct oomslice_held *copy, const struct oomslice_held *held);
void oomslice_held_close(struct oomslice_held *held);
/* True if no file was missing when it was opened: it can be kept for a later plan. */
bool oomslice_held_is_complete(const struct oomslice_held *held, uint32_t files);
/* Reads each file once so that the kernel's buffers for it exist. */
void oomslice_held_prefault(const struct oomslice_held *held);
/* 1 populated, 0 empty, -errno (ENODEV: removed). */
int oomslice_held_populated(int events_fd);
/* 1: all of it stands still, 0: not yet, or not at all; -errno. */
int oomslice_held_frozen(int events_fd);
/* memory.current and memory.swap.current only. 0 or -errno; without the memory controller all is 0. */
int oomslice_held_usage_rough(const struct oomslice_held *held, struct oomslice_usage *usagep);
/* All figures. 0 or -errno. */
int oomslice_held_usage(const struct oomslice_held *held, struct oomslice_usage *usagep);
