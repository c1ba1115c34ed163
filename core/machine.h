/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The machine's own shortage, domain 0: looked at by timer, but only while memory is short. */
#include <stdbool.h>
#include <stdint.h>

#include "meminfo.h"

/* `meminfo_fd`: /proc/meminfo. */
void oomslice_machine_init(int meminfo_fd);
/* Reads what is left. Called once after every wakeup, before anything is decided. */
void oomslice_machine_read(uint64_t now_us);
/* The first sign of shortage has fired. */
void oomslice_machine_sign(uint64_t now_us);
/* Decides domain 0 if the machine is short, or if `thrashing` (its trigger has fired) with little available. */
void oomslice_machine_look(uint64_t now_us, bool thrashing);
/* Decides the domain with what was read last. */
void oomslice_machine_pressure(uint32_t domain, uint64_t now_us);
/* When the next look is due; OOMSLICE_MOMENT_NEVER without shortage. */
uint64_t oomslice_machine_next(void);
bool oomslice_machine_watching(void);
/* Bytes of MemAvailable above its limit, as read last; UINT64_MAX without a plan. */
uint64_t oomslice_machine_margin(void);
/* MemAvailable as read last, less what nobody can have (withheld.h). Bytes. */
uint64_t oomslice_machine_available(void);
/* True if there is a plan and what was read last can be decided by. */
bool oomslice_machine_has_looked(void);
/* All that was read last. */
const struct oomslice_meminfo *oomslice_machine_meminfo(void);
