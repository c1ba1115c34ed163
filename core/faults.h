/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The early sign: page faults are counted, and a number of them in which memory could have become short wakes the core.
 * Without faults nothing wakes.
 */
#include <stdbool.h>
#include <stdint.h>

/*
 * Counts on every processor that is online, silently at first. `sys_fd`: /sys. Before any thread is started, which all
 * inherit that SIGIO is blocked. 0, or -errno where the kernel refuses; then nothing of this is there.
 */
int oomslice_faults_open(int epoll_fd, int sys_fd);
/* OOMSLICE_EVENT_FAULTS. */
void oomslice_faults_fired(void);
/*
 * The end of a turn. `margin`: bytes above the limit of MemAvailable, UINT64_MAX without a plan; `watching`: a timer looks
 * at it anyway.
 */
void oomslice_faults_turn(uint64_t margin, bool watching, uint64_t now_us);
/* When the next turn has to come; OOMSLICE_MOMENT_NEVER while there are few faults. */
uint64_t oomslice_faults_next(void);

/* How many faults on one processor are worth a look. Pure; a power of two. */
uint64_t oomslice_faults_period(uint64_t margin, uint32_t processors, uint64_t fault_bytes);
/* How long nobody has to look, however many faults there are. Pure; microseconds. */
uint64_t oomslice_faults_pause(uint64_t margin, uint32_t processors);
/* What one fault may bring, from the text of transparent_hugepage/enabled and the size of a huge page. Pure; bytes. */
uint64_t oomslice_faults_bytes(const char *enabled, uint64_t huge_bytes);
/* Calls back for each processor of a list like "0-3,8"; the number of them, or -EBADMSG or the call's error. Pure. */
int oomslice_faults_processors(const char *list, int (*each)(int processor));
