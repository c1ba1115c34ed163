/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A step that somebody asks for, and the end of what steps did: without any shortage, by name of the one unit. */
#include <stdint.h>

#include "channel.h"
#include "meminfo.h"

/* Begins a step of OOMSLICE_MESSAGE_ACT. 0 and the sequence of its record, or -errno: -ESRCH no such unit in the plan,
 * or nobody in it; -EPERM it is never touched; -EISDIR it holds other units; -EBUSY it is being acted upon; -ENOBUFS it
 * could not be recorded; -EINVAL no such step. */
int oomslice_asked_act(const struct oomslice_message *asked, const struct oomslice_meminfo *meminfo,
                       uint64_t *sequencep);
/* Undoes what steps did to this cgroup, now. 0, or -ENODATA if there is nothing. */
int oomslice_asked_release(uint64_t cgroup_id);
