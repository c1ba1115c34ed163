/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * What the BPF programs know of a cgroup: the value of the map "slices" (BPF_MAP_TYPE_CGRP_STORAGE, bpf/maps.h), written
 * through a cgroup's descriptor whenever the plan changes, and freed by the kernel with the cgroup. Those inside
 * a unit have no value: they belong to the nearest ancestor that has one. Those that are younger than the plan get one from a
 * program (bpf/young.h).
 */
#include <stdint.h>

/* cffi: begin */
struct oomslice_slice_value {
        /* The effective one, as in the plan: a smaller one is chosen first. */
        int32_t priority;
        /* enum oomslice_unit_flag. Without CANDIDATE: a slice, or a unit that nobody may choose. */
        uint32_t flags;
        /* enum oomslice_kill_scope. */
        uint32_t scope;
        /* CLOCK_MONOTONIC in seconds until which it is nobody to choose: it was killed, and did not die in time. Written by
         * programs; 0: it may be chosen. */
        uint32_t tried_until_s;
        /* Of the plan that it was written for; to be seen, not judged by. */
        uint64_t generation;
};
/* cffi: end */
