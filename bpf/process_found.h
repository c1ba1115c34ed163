/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What is found of a unit's processes (process.h). */
#include <stdint.h>

struct oomslice_process {
        uint64_t pages; /* in memory and in swap */
        int32_t pid;    /* of the largest, as the first namespace has it; 0: there is none */
        uint32_t processes;
        uint32_t marked; /* those that the kernel has as its victims already */
        uint32_t reserved;
};
