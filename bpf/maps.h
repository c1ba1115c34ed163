/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The maps that several carriers share. Whoever is loaded first makes them, below DIR/shared; the others find them there
 * (reuse.c, which knows them by these names).
 */
#include "pulse.h"
#include "slicevalue.h"

/* BPF_MAP_TYPE_CGRP_STORAGE, which the headers of Linux before 6.2 do not have. */
enum { CGROUP_STORAGE = 32 };

struct {
        __uint(type, CGROUP_STORAGE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __type(key, int);
        __type(value, struct oomslice_slice_value);
} slices SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct oomslice_pulse);
} pulse SEC(".maps");

/* Read by the core: struct oomslice_sign. As small as can be (the size of a page, or libbpf makes it that). */
struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 4096);
} signs SEC(".maps");
