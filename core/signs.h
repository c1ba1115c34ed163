/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The reader of the ring buffer "signs": how BPF programs wake the core before pressure figures can. */
#include <stdbool.h>
#include <stdint.h>

void oomslice_signs_init(int epoll_fd);
/* Takes the ring; the descriptor stays the caller's. 0; -EBADMSG: it is no ring buffer; other -errno: it cannot be mapped or
 * waited for. What was there before stays in both cases. */
int oomslice_signs_take(int fd);
/* There are no programs any more. */
void oomslice_signs_drop(void);
/* OOMSLICE_EVENT_SIGNS: takes what has come. */
void oomslice_signs_fired(void);
/* The end of a turn, as for oomslice_faults_turn(): says from when on signs are of use again. */
void oomslice_signs_turn(uint64_t margin, bool watching, uint64_t now_us);
