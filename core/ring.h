/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * Decisions on their way out: one ring of fixed size in a memfd that core and extended part both map.
 * One writer (the core, with both of its deciding threads), one reader (oomsliced). A slot is taken and filled before the kill, completed after
 * it, and never touched again until the reader has stored it; so whoever dies, nothing is lost or doubled.
 * A full ring drops the newest decision's record (never the act) and counts it.
 */
#include <stdint.h>

/* cffi: begin */
enum oomslice_ring_limit {
        OOMSLICE_RING_VERSION = 5,
        OOMSLICE_RING_SLOTS = 32,
        OOMSLICE_RING_HEADER_SIZE = 4096,
        OOMSLICE_RECORD_SIZE = 8192,
        OOMSLICE_RECORD_PIDS = 64,
        OOMSLICE_RECORD_CANDIDATES = 224,
        OOMSLICE_RECORD_STEPS = 12,
        OOMSLICE_RING_REQUESTS = 6,
        OOMSLICE_REQUEST_TEXT = 256,
        OOMSLICE_RING_PRESSED = 32,
        OOMSLICE_HISTORY_SAMPLES = 2560,
        OOMSLICE_HISTORY_UNITS = 2560,
        OOMSLICE_HISTORY_OFFSET = 266240, /* header + slots */
        OOMSLICE_RING_SIZE = 430080,      /* and the history, see history.h */
};

enum oomslice_trigger {
        OOMSLICE_TRIGGER_AVAILABLE = 1, /* MemAvailable and free swap at their limits */
        OOMSLICE_TRIGGER_THRASH = 2,    /* machine stall with little MemAvailable */
        OOMSLICE_TRIGGER_PRESSURE = 3,  /* a domain's PressureTrigger= */
        OOMSLICE_TRIGGER_KERNEL =
                4,                  /* the kernel's own killer acted (made by oomsliced, never in the ring) */
        OOMSLICE_TRIGGER_LOW = 5,   /* memory low, not yet at its limits: ladders are climbed */
        OOMSLICE_TRIGGER_CALM = 6,  /* no decision: what steps of an earlier one did is undone */
        OOMSLICE_TRIGGER_ASKED = 7, /* no shortage: somebody has asked for one step upon one unit */
};

enum oomslice_record_state {
        OOMSLICE_RECORD_EMPTY = 0,
        OOMSLICE_RECORD_CHOSEN = 1,    /* written before the kill */
        OOMSLICE_RECORD_SIGNALLED = 2, /* kill sent, memory not back yet */
        OOMSLICE_RECORD_FINAL = 3,     /* complete: the reader may store it */
};

enum oomslice_outcome {
        OOMSLICE_OUTCOME_PENDING = 0,
        OOMSLICE_OUTCOME_FREED = 1,        /* dead and memory back */
        OOMSLICE_OUTCOME_DEADLINE = 2,     /* signal sent, memory not back by the deadline */
        OOMSLICE_OUTCOME_DRY_RUN = 3,      /* nothing done, on request */
        OOMSLICE_OUTCOME_NO_CANDIDATE = 4, /* nobody may be chosen */
        OOMSLICE_OUTCOME_FAILED = 5,       /* kill failed, error says how */
        OOMSLICE_OUTCOME_GONE = 6,         /* victim's cgroup was gone before the kill */
        OOMSLICE_OUTCOME_INTERRUPTED = 7,  /* the core died before it saw the outcome */
        OOMSLICE_OUTCOME_REFUSED = 8,  /* last check before the kill found a process that is never touched */
        OOMSLICE_OUTCOME_RELIEVED = 9, /* the pressure was gone before the ladder came to its end */
        OOMSLICE_OUTCOME_HELD = 10,    /* the ladder ends in a victim that stands still */
        OOMSLICE_OUTCOME_KEPT = 11,    /* all dead, and the memory is still charged: files on a tmpfs */
        OOMSLICE_OUTCOME_UNDONE = 12,  /* of trigger CALM: all is as it was before */
        OOMSLICE_OUTCOME_DONE = 13,    /* of trigger ASKED: the step was done */
};

enum oomslice_step_result {
        OOMSLICE_RESULT_PENDING = 0,
        OOMSLICE_RESULT_DONE = 1,
        OOMSLICE_RESULT_FAILED = 2,      /* error says how */
        OOMSLICE_RESULT_LATE = 3,        /* not finished by the time of the next step */
        OOMSLICE_RESULT_UNAVAILABLE = 4, /* kernel or extended part is not there for it */
        OOMSLICE_RESULT_NEEDLESS = 5,    /* it is so already, or there is nothing to act upon */
        OOMSLICE_RESULT_DRY_RUN = 6,
};

enum oomslice_record_flag {
        OOMSLICE_RECORD_RESTARTING =
                1,                    /* the victim came back again and again: its ladder is a kill at once */
        OOMSLICE_RECORD_WATCHDOG = 2, /* the deciding thread was stuck: the other one acted */
        OOMSLICE_RECORD_UNMARKED = 4, /* systemd could not be told before the kill */
};

/* Sizes: memory and swap of the victim; of RECLAIM and THROTTLE, which may fill swap, its memory alone. */
struct oomslice_record_step {
        uint32_t kind;   /* enum oomslice_step_kind */
        uint32_t result; /* enum oomslice_step_result */
        int32_t error;   /* errno, 0 if none */
        uint32_t reserved;
        uint64_t amount; /* bytes of RECLAIM, or that memory.high was set to by THROTTLE (else its percent) */
        uint64_t begin_us;
        uint64_t end_us;
        uint64_t memory_before;
        uint64_t memory_after;
};

struct oomslice_record_candidate {
        uint64_t cgroup_id;
        uint64_t metric;
        int32_t priority;
        uint32_t verdict; /* enum oomslice_verdict */
};

/* Times are CLOCK_MONOTONIC microseconds, 0 if it did not happen. Sizes are bytes. */
struct oomslice_record {
        uint64_t sequence; /* from 1, never reused in one ring */
        uint32_t state;
        uint32_t outcome;
        uint64_t plan_generation;
        uint64_t trigger_realtime_us;
        uint64_t trigger_us;
        uint64_t decision_us;
        uint64_t signal_us;
        uint64_t death_us;
        uint64_t memory_back_us;
        uint32_t trigger;
        uint32_t rank_by;
        struct oomslice_psi_trigger_figures {
                uint32_t kind;
                uint32_t stall_us;
                uint32_t window_us;
                uint32_t some_avg10; /* hundredths of a percent */
                uint32_t full_avg10;
                uint32_t reserved;
                uint64_t some_total_us;
                uint64_t full_total_us;
        } pressure; /* of the domain */
        uint64_t mem_total;
        uint64_t mem_available;
        uint64_t swap_total;
        uint64_t swap_free;
        uint64_t mem_available_limit;
        uint64_t swap_free_limit;
        uint64_t mem_available_after;
        uint64_t domain_cgroup_id;
        uint64_t victim_cgroup_id;
        uint64_t victim_memory_before; /* memory.current + memory.swap.current */
        uint64_t victim_memory_after;
        uint64_t victim_metric;
        int32_t victim_priority;
        int32_t error;            /* errno of the syscall that failed, 0 if none */
        uint32_t processes_total; /* how many processes the victim had */
        uint32_t pids_count;      /* how many of them are listed */
        uint32_t reaped_count;    /* process_mrelease that succeeded */
        uint32_t candidates_total;
        uint32_t candidates_count; /* how many are listed, best ranked first */
        uint32_t flags;            /* enum oomslice_record_flag */
        uint32_t kill_scope;       /* enum oomslice_kill_scope */
        uint32_t steps_count;      /* steps that were begun, in order */
        uint64_t undoes_ring;      /* of trigger CALM: the decision whose steps are undone */
        uint64_t undoes_sequence;
        uint32_t asked_user; /* of trigger ASKED: who asked */
        uint32_t reserved;
        struct oomslice_record_step steps[12];
        int32_t pids[64];
        char domain_name[256];
        char victim_name[256];
        struct oomslice_record_candidate candidates[224];
};

struct oomslice_ring_header {
        char magic[8]; /* "OOMSLRNG" */
        uint32_t version;
        uint32_t slots;
        uint64_t ring_id;       /* random: with the sequence it names a decision for ever */
        uint64_t head;          /* sequence of the newest slot taken; written by the core */
        uint64_t tail;          /* sequence up to which the reader has stored; written by the reader */
        uint64_t dropped;       /* records lost because the ring was full */
        uint64_t requests_made; /* serial of the newest request */
        uint64_t pressed[32];   /* cgroup ids of the domains that are short of memory now; 0: none */
        struct oomslice_request {
                /* Written by the core, `serial` last. */
                uint64_t serial;      /* 0: the place is free */
                uint64_t sequence;    /* of the record */
                uint64_t deadline_us; /* the core goes on without it from then on */
                uint64_t cgroup_id;
                uint64_t amount;
                uint32_t kind; /* enum oomslice_step_kind */
                uint32_t step; /* index in the record's steps */
                char victim[256];
                char text[256];
                /* Written by the reader, `answered` last. */
                uint64_t taken;    /* serial of the request that is worked on */
                uint64_t answered; /* serial of the request that is answered */
                uint32_t result;   /* enum oomslice_step_result */
                int32_t error;
        } requests[6];
        uint64_t samples_made; /* entries of the history ever written; written by the core */
        uint64_t units_made;
};

/* Makes an empty ring in `map` (OOMSLICE_RING_SIZE zeroed bytes). */
void oomslice_ring_init(void *map, uint64_t ring_id);
/* 0 if `map` holds a ring of this version with sane counters, else -EBADMSG. */
int oomslice_ring_check(const void *map);
/* Core: takes the next slot, zeroed but for its sequence and state CHOSEN; NULL if the ring is full (counted). */
struct oomslice_record *oomslice_ring_take(void *map);
/* Core: publishes. */
void oomslice_ring_set_state(struct oomslice_record *record, uint32_t state);
/* Core, after a restart: finishes what its predecessor left open, as INTERRUPTED. Returns how many. */
uint32_t oomslice_ring_recover(void *map);
/*
 * Core: asks the extended part for a step, with all but `serial` filled in. Returns the request's serial, or 0 if all
 * places are taken. Nobody answers for certain.
 */
uint64_t oomslice_ring_ask(void *map, const struct oomslice_request *request);
/* Core: true if this request is answered; *resultp and *errorp then say how, in range whatever the reader wrote. */
int oomslice_ring_answered(const void *map, uint64_t serial, uint32_t *resultp, int32_t *errorp);
/* Core: the request is no longer of interest, and its place is free. */
void oomslice_ring_forget(void *map, uint64_t serial);
/* Reader: copies the oldest request nobody has taken, and takes it. 1 if there was one, else 0. */
int oomslice_ring_take_request(void *map, struct oomslice_request *request);
/* Reader: answers a request it has taken; nothing happens if the core has forgotten it. */
void oomslice_ring_answer(void *map, uint64_t serial, uint32_t result, int32_t error);
/* Reader: the oldest record that is FINAL and not yet released, or NULL. */
const struct oomslice_record *oomslice_ring_next(const void *map);
/* Reader: releases it, once it is stored. */
void oomslice_ring_release(void *map, uint64_t sequence);
/* cffi: end */

_Static_assert(sizeof(struct oomslice_record) <= OOMSLICE_RECORD_SIZE, "a record fits its slot");
_Static_assert(sizeof(struct oomslice_ring_header) <= OOMSLICE_RING_HEADER_SIZE, "the header fits its page");
_Static_assert(OOMSLICE_HISTORY_OFFSET ==
                       OOMSLICE_RING_HEADER_SIZE + OOMSLICE_RING_SLOTS * OOMSLICE_RECORD_SIZE,
               "header and slots");
