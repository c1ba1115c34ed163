/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The plan: who may be chosen, in which order, and when. Made by the extended part while memory is
 * plentiful, handed over as one sealed memfd, checked once and never changed afterwards.
 *
 * Layout of the memfd: header, units[units_count], domains[domains_count], steps[steps_count], names[names_size].
 * Byte order and alignment are the machine's: a plan never leaves it.
 * Lines between the cffi markers are also read by cffi_build.py; they hold no preprocessor lines.
 */
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
enum oomslice_plan_limit {
        OOMSLICE_PLAN_VERSION = 4,
        OOMSLICE_PLAN_UNITS_MAX = 4096,
        OOMSLICE_PLAN_DOMAINS_MAX = 64,
        OOMSLICE_PLAN_STEPS_MAX = 4096,      /* of all ladders together; equal ladders are there once */
        OOMSLICE_LADDER_STEPS_MAX = 12,      /* of one ladder */
        OOMSLICE_PLAN_SIZE_MAX = 1048576,    /* bytes */
        OOMSLICE_UNIT_NAME_MAX = 256,        /* bytes with the final NUL, as in systemd */
        OOMSLICE_PLAN_TIME_MAX_S = 31536000, /* longest deadline or cooldown, in seconds: a year */
        OOMSLICE_PRIORITY_MIN = -1000,
        OOMSLICE_PRIORITY_MAX = 1000,
        OOMSLICE_PSI_WINDOW_MIN_US = 500000, /* the kernel's limits of a trigger's window */
        OOMSLICE_PSI_WINDOW_MAX_US = 10000000,
        OOMSLICE_PLAN_NO_TEXT = -1,
};

enum oomslice_unit_flag {
        OOMSLICE_UNIT_CANDIDATE = 1,    /* holds processes of its own and no other unit of the plan */
        OOMSLICE_UNIT_PROTECTED = 2,    /* Protect=yes, its own or an ancestor's */
        OOMSLICE_UNIT_SELF = 4,         /* init.scope, oomslice's own units, dbus, journald */
        OOMSLICE_UNIT_LEFT_TO_OOMD = 8, /* marked for systemd-oomd while that runs */
        OOMSLICE_UNIT_DRY_RUN = 16,     /* decide and record, do nothing */
        OOMSLICE_UNIT_TAKEN = 32,       /* below a candidate with KillScope=subtree, and dies with it */
};

enum oomslice_domain_flag {
        OOMSLICE_DOMAIN_DRY_RUN = 1,
        /* Its shortage is paid for by others, those with a smaller priority than its unit has (PressureVictims=). */
        OOMSLICE_DOMAIN_LOWER = 2,
};

enum oomslice_rank_by {
        OOMSLICE_RANK_MEMORY = 0,  /* bytes a kill gives back: memory.current - file pages + swap */
        OOMSLICE_RANK_SWAP = 1,    /* bytes of swap */
        OOMSLICE_RANK_GROWTH = 2,  /* bytes grown since the shortage was first seen */
        OOMSLICE_RANK_REFAULT = 3, /* pages refaulted since the shortage was first seen */
};

/* What one kill takes. */
enum oomslice_kill_scope {
        OOMSLICE_SCOPE_UNIT = 0,    /* all processes of the unit, those in cgroups below its own too */
        OOMSLICE_SCOPE_SUBTREE = 1, /* a slice as one thing, with every unit below it */
        OOMSLICE_SCOPE_PROCESS = 2, /* the largest process of the unit */
};

/* The steps of a ladder. The first six are carried out by the core itself, the rest by the extended part. */
enum oomslice_step_kind {
        OOMSLICE_STEP_KILL = 1,       /* SIGKILL, by KillScope= */
        OOMSLICE_STEP_TERMINATE = 2,  /* SIGTERM to every process; a kill follows in any case */
        OOMSLICE_STEP_FREEZE = 3,     /* cgroup.freeze; undone */
        OOMSLICE_STEP_THROTTLE = 4,   /* memory.high at `amount` percent of what it has; undone */
        OOMSLICE_STEP_RECLAIM = 5,    /* memory.reclaim of `amount` bytes, 0: an eighth of what it has */
        OOMSLICE_STEP_WARN = 6,       /* told of it, over the bus and by its memory pressure protocol */
        OOMSLICE_STEP_PURGE = 7,      /* files below `text`, on a tmpfs, oldest first */
        OOMSLICE_STEP_CHECKPOINT = 8, /* to disk, below `text`, or the default directory; then it is gone */
        OOMSLICE_STEP_START = 9,      /* the unit `text` */
};

enum oomslice_psi_kind {
        OOMSLICE_PSI_NONE = 0,
        OOMSLICE_PSI_SOME = 1,
        OOMSLICE_PSI_FULL = 2,
};

/* "act when PSI stalled `stall_us` within `window_us`"; kind NONE: no such trigger */
struct oomslice_psi_trigger {
        uint32_t kind;
        uint32_t stall_us;
        uint32_t window_us;
        uint32_t reserved;
};

/* Limits of the whole machine. All sizes in bytes. */
struct oomslice_machine {
        uint64_t available_min;             /* act when MemAvailable <= this and free swap <= swap_free_min */
        uint64_t available_watch;           /* from here down MemAvailable is watched by timer */
        uint64_t swap_free_min;             /* a machine without swap is always at this limit */
        uint64_t available_thrash;          /* act when `thrash` fires and MemAvailable <= this */
        struct oomslice_psi_trigger sign;   /* first sign of shortage: starts the watch, never acts */
        struct oomslice_psi_trigger thrash; /* stall that is a shortage whatever swap is left */
        uint64_t death_deadline_us;         /* how long a victim has to give its memory back */
        uint64_t available_ladder; /* ladders are climbed when MemAvailable <= this and free swap <= */
        uint64_t swap_free_ladder; /* this; 0 and 0: only by thrash and by triggers of domains */
        uint64_t reserve;          /* kept locked, and given back to the kernel at a decision */
        uint64_t mark_kills;       /* 1: systemd is told of kills, see mark.h */
};

struct oomslice_plan_header {
        char magic[8]; /* "OOMSLPLN" */
        uint32_t version;
        uint32_t header_size;
        uint64_t size;     /* of the whole plan, names included */
        uint64_t checksum; /* FNV-1a, 64 bits, over the whole plan with this field zero */
        uint64_t generation;
        uint64_t made_realtime_us;
        uint32_t units_count;
        uint32_t domains_count;
        uint32_t names_size;
        uint32_t steps_count;
        struct oomslice_machine machine;
};

/* Unit 0 is the root slice. A parent comes before its children. */
struct oomslice_plan_unit {
        uint64_t cgroup_id;         /* inode of the cgroup directory */
        uint64_t baseline_memory;   /* RANK_MEMORY bytes when the plan was made */
        uint64_t baseline_refaults; /* workingset_refault_anon + _file, pages, when the plan was made */
        int32_t parent;             /* index of the nearest ancestor in the plan; -1 for unit 0 only */
        int32_t priority;           /* effective, -1000 to 1000 */
        uint32_t flags;             /* enum oomslice_unit_flag */
        uint32_t name_offset;       /* NUL-terminated in names */
        uint32_t steps_first;       /* its ladder: steps[steps_first] and so on */
        uint16_t steps_count;       /* 0: kill, at once */
        uint16_t kill_scope;        /* enum oomslice_kill_scope */
};

/* One step of a ladder. Delays never fall from step to step; KILL is the last of its ladder. */
struct oomslice_plan_step {
        uint64_t delay_us; /* from the trigger */
        uint64_t amount;   /* RECLAIM: bytes, THROTTLE: percent, 1 to 100; else 0 */
        uint32_t kind;     /* enum oomslice_step_kind */
        int32_t text;      /* offset in names of a path or unit, NUL-terminated; or OOMSLICE_PLAN_NO_TEXT */
};

/* Domain 0 is the machine (unit 0); its trigger is an extra one from -.slice, usually NONE. */
struct oomslice_plan_domain {
        int32_t unit;
        uint32_t rank_by; /* enum oomslice_rank_by: orders this domain's candidates inside one priority */
        uint32_t flags;   /* enum oomslice_domain_flag */
        uint32_t reserved;
        uint64_t cooldown_us;
        struct oomslice_psi_trigger trigger;
};

/* Documented outcomes of checking and taking a plan; 0 is success, negative is -errno. */
enum oomslice_plan_result {
        OOMSLICE_PLAN_OK = 0,
        OOMSLICE_PLAN_E_SEALS = 1, /* not a memfd sealed against write, grow, shrink and seal */
        OOMSLICE_PLAN_E_SIZE = 2,  /* too small, too large, or not the size it says */
        OOMSLICE_PLAN_E_MAGIC = 3,
        OOMSLICE_PLAN_E_VERSION = 4,
        OOMSLICE_PLAN_E_CHECKSUM = 5,
        OOMSLICE_PLAN_E_BOUNDS = 6, /* a count, priority, flag, enum or limit out of range; detail: index */
        OOMSLICE_PLAN_E_PARENT = 7, /* parent not before the child; detail: unit index */
        OOMSLICE_PLAN_E_NAME = 8,   /* name empty, unterminated or outside; detail: unit index */
        OOMSLICE_PLAN_E_DOMAIN = 9, /* detail: domain index */
        OOMSLICE_PLAN_E_GENERATION = 10,  /* not newer than the plan in force, or 0 */
        OOMSLICE_PLAN_E_DESCRIPTORS = 11, /* not one cgroup descriptor per unit */
        OOMSLICE_PLAN_E_CGROUP = 12, /* descriptor is no cgroup v2 directory of that id; detail: unit index */
        OOMSLICE_PLAN_E_SEQUENCE = 13, /* messages out of order */
        OOMSLICE_PLAN_E_LADDER = 14,   /* a step, or a unit's range of steps; detail: unit index */
};

struct oomslice_plan {
        const struct oomslice_plan_header *header;
        const struct oomslice_plan_unit *units;
        const struct oomslice_plan_domain *domains;
        const struct oomslice_plan_step *steps;
        const char *names;
};

/* Fills in magic, version, sizes and checksum of a buffer whose counts, units, domains and names are set. */
int oomslice_plan_finish(void *data, size_t size);
/* Checks everything that does not need a descriptor. Returns enum oomslice_plan_result; *detailp names the index. */
int oomslice_plan_check(const void *data, size_t size, struct oomslice_plan *planp, uint32_t *detailp);
/* Checks seals and size of a memfd. Returns enum oomslice_plan_result or -errno; *sizep is its size in bytes. */
int oomslice_plan_check_seals(int fd, size_t *sizep);
/* True if `unit` is `ancestor` or below it. */
int oomslice_plan_is_below(const struct oomslice_plan *plan, int32_t unit, int32_t ancestor);
/* True if a unit of this priority that is in `unit`, or is it, may be chosen for the domain. */
int oomslice_plan_pays_for(const struct oomslice_plan *plan, const struct oomslice_plan_domain *domain,
                           int32_t unit, int32_t priority);
const char *oomslice_plan_name(const struct oomslice_plan *plan, int32_t unit);
/* The text of a step, "" if it has none. */
const char *oomslice_plan_step_text(const struct oomslice_plan *plan, const struct oomslice_plan_step *step);
const char *oomslice_plan_result_text(int result);
/* True for steps (enum oomslice_step_kind) that the unit does not survive; a ladder that begins with one is no gentle one. */
int oomslice_plan_is_harsh(uint32_t kind);
/* cffi: end */
