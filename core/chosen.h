/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What a choice inside the kernel comes to (bpf/choice.h), as BPF programs leave it and as their readers see it. */
#include <stdint.h>

enum oomslice_chosen_result {
        OOMSLICE_CHOSEN_NOBODY = 0, /* nobody below the domain may be chosen */
        OOMSLICE_CHOSEN_ONE = 1,
        OOMSLICE_CHOSEN_NO_PLAN = 2,   /* the values are not all there yet: nothing was looked at */
        OOMSLICE_CHOSEN_NO_DOMAIN = 3, /* there is no such cgroup, or it cannot be reached from here */
        OOMSLICE_CHOSEN_UNSURE =
                4, /* values could not be read in this moment: whatever was found is not used */
};

struct oomslice_chosen {
        uint64_t cgroup_id; /* of the choice, 0: there is none */
        uint64_t usage;     /* bytes charged to it and all below it, memory and swap together */
        int32_t priority;
        uint32_t flags;  /* enum oomslice_unit_flag: whoever acts leaves DRY_RUN alone */
        uint32_t scope;  /* enum oomslice_kill_scope */
        uint32_t wanted; /* 1: an administrator's policy said "kill" of it */
        uint32_t result; /* enum oomslice_chosen_result */
        /* Of the domain: cgroups that were passed, those with a value in "slices", those who may be chosen, and those of them
         * whom an administrator's policy left out. */
        uint32_t cgroups;
        uint32_t units;
        uint32_t eligible;
        uint32_t skipped;
        uint32_t level; /* how deep below the root the choice is */
        uint32_t depth; /* of use while it is made only */
        uint32_t reserved;
};
