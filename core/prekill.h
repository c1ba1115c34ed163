/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the BPF program prekill tells of whom it killed, and what it is told: layouts that bpf/prekill.bpf.c shares with
 * their readers. The records lie in its ring buffer "facts", begin as all do (fact.h), and are read as fact.h says.
 */
#include <stdint.h>

#include "fact.h"

/* cffi: begin */
enum oomslice_prekill_kind {
        /* Written before the first signal, completed after the last one. */
        OOMSLICE_PREKILL_KILL = 16,
        /* What came of it; has the kill_nsec of its KILL. */
        OOMSLICE_PREKILL_END = 17,
};
enum oomslice_prekill_reason {
        /* Memory and swap are at the limits of the plan, and the core has not answered for too long. */
        OOMSLICE_PREKILL_SILENT = 1,
        /* An allocation found nothing more to reclaim: the kernel's own killer comes next. */
        OOMSLICE_PREKILL_LAST = 2,
        /* The same in a cgroup that is at its memory.max. */
        OOMSLICE_PREKILL_LIMIT = 3,
};
enum oomslice_prekill_end {
        OOMSLICE_PREKILL_EMPTY = 1,    /* no process of the victim is left, or not the one that was killed */
        OOMSLICE_PREKILL_DEADLINE = 2, /* some were, at the deadline: somebody else may be chosen */
};
enum {
        OOMSLICE_PREKILL_PIDS = 64,
        OOMSLICE_PREKILL_MACHINE = 1, /* the id of the root cgroup */
        OOMSLICE_PREKILL_WAITERS = 8, /* copies of the program that waits, see prekill.bpf.c */
};

struct oomslice_prekill_kill {
        struct oomslice_fact fact;
        /* CLOCK_MONOTONIC of the last signal. */
        uint64_t signal_nsec;
        /* Id of the cgroup that is short of memory. */
        uint64_t domain;
        uint64_t victim;
        /* Bytes that were charged to it, memory and swap together. */
        uint64_t usage;
        int32_t priority;
        uint32_t scope;  /* enum oomslice_kill_scope */
        uint32_t flags;  /* enum oomslice_unit_flag; with DRY_RUN nobody was signalled */
        uint32_t reason; /* enum oomslice_prekill_reason */
        /* Of the plan. */
        uint64_t generation;
        /* Bytes, of the machine. */
        uint64_t free;
        uint64_t available;
        uint64_t swap_free;
        uint64_t available_limit;
        uint64_t swap_free_limit;
        /* The question that the core left unanswered, and its last turn before; 0: none. */
        uint64_t asked_nsec;
        uint64_t beat_nsec;
        /* Who may be chosen below the domain. */
        uint32_t eligible;
        /* 1: an administrator's own program said "kill" of it. */
        uint32_t wanted;
        /* Processes that have the signal, from here or from a parent's death, and those that the kernel let nobody signal. */
        uint32_t signalled;
        uint32_t failed;
        /* Whose allocation it was. */
        int32_t asking_pid;
        char asking_task[16];
        uint32_t pids_count; /* how many of the signalled are listed */
        int32_t pids[64];
        /* The way from the root down to the victim, as in oomslice_fact_kill. */
        uint32_t depth;
        uint32_t levels_count;
        struct oomslice_fact_level levels[8];
};
struct oomslice_prekill_ended {
        struct oomslice_fact fact;
        uint64_t victim;
        uint32_t how; /* enum oomslice_prekill_end */
        uint32_t reserved;
        /* Bytes that are charged to the victim now, memory and swap together. */
        uint64_t usage;
        /* Bytes of the machine that are free now. */
        uint64_t free;
};
/* What the program has done since it was loaded: the one element of its map "figures". It begins as
 * oomslice_fact_figures. */
struct oomslice_prekill_figures {
        uint64_t kills;
        uint64_t victims; /* processes */
        uint64_t lost;    /* records that found no room */
        uint64_t dry_runs;
        uint64_t nobody;     /* somebody had to be killed, and nobody may be chosen */
        uint64_t unsure;     /* the values of the plan could not be read in that moment */
        uint64_t asked;      /* questions to the core */
        uint64_t stood_back; /* left to the core, which had answered, or has a victim that is dying */
        uint64_t waits;      /* allocations that were held until memory was back */
        uint64_t busy;       /* signals that had to be tried again */
};
/* The one element of its map "control", written by oomsliced. */
struct oomslice_prekill_control {
        uint64_t off; /* 1: it looks at nothing and does nothing */
};
/* cffi: end */
