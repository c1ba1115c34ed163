/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The watch over MemAvailable that runs only while memory is short. */
#include <stdbool.h>
#include <stdint.h>

#include "meminfo.h"
#include "plan.h"

/* cffi: begin */
struct oomslice_watch {
        bool active;
        uint64_t last_us; /* when `last` was read; 0: never */
        struct oomslice_meminfo last;
        uint64_t fall; /* bytes per second by which the margin shrinks, decayed maximum */
};

/* Bytes that are left until the machine's limits are both reached; 0: they are. */
uint64_t oomslice_watch_margin(const struct oomslice_machine *machine, const struct oomslice_meminfo *info);
/* How long one may look away from a margin that shrinks by `fall` bytes per second. Pure; microseconds. */
uint64_t oomslice_watch_interval(uint64_t margin, uint64_t fall);
/* How long one may look away, so that neither the limits nor the place where ladders begin is missed. As above. */
uint64_t oomslice_watch_pause(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                              uint64_t fall);
/* Takes a new reading: starts or ends the watch and measures the fall. Returns true if the machine is short. */
bool oomslice_watch_update(struct oomslice_watch *watch, const struct oomslice_machine *machine,
                           const struct oomslice_meminfo *info, uint64_t now_us);
/*
 * Why domain 0 is short of memory: enum oomslice_trigger, or 0 if it is not. `thrashing`: the machine's stall trigger
 * has fired. `waited`: somebody had to wait for memory lately. Pure: the library's replay() runs this same code.
 */
uint32_t oomslice_watch_judge(const struct oomslice_machine *machine, const struct oomslice_meminfo *info,
                              bool thrashing, bool waited);
/* cffi: end */

/*
 * Down to which MemAvailable and free swap together nobody else pays for what a dead victim has left behind, if there was
 * `left` of them when it was dead. Pure; bytes.
 */
uint64_t oomslice_watch_floor(const struct oomslice_machine *machine, uint64_t left);
