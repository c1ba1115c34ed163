/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Locked memory that is kept for the worst moment, and given back to the kernel when that has come. */
#include <stdbool.h>
#include <stdint.h>

/* `meminfo_fd`: /proc/meminfo, opened for this alone. Starts the thread that takes the memory. 0 or -errno. */
int oomslice_reserve_start(int meminfo_fd);
/* Finds the addresses for it, after oomslice_lock_all(). 0 or -errno; without them there is no reserve. */
int oomslice_reserve_arm(void);
/* How large it is to be, and that it is not taken with less than `available_watch` left: bytes, from the plan. */
void oomslice_reserve_plan(uint64_t size, uint64_t available_watch);
/* A decision begins: a first piece goes, once in a shortage. Never waits. */
void oomslice_reserve_open(void);
/* The signal is out: all of it goes. Never waits. */
void oomslice_reserve_give(void);
/* The end of a turn. It is taken (again) when all has been `calm` for some seconds. */
void oomslice_reserve_turn(uint64_t now_us, bool calm);
/* Bytes held now. */
uint64_t oomslice_reserve_held(void);
/* Bytes that the kernel counts as locked because of it, held or not. */
uint64_t oomslice_reserve_locked(void);
