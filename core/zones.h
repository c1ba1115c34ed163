/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The kernel's watermarks, from /proc/zoneinfo: sums over all zones, bytes. */
#include <stdint.h>

struct oomslice_zones {
        uint64_t boost; /* what the watermarks are raised by for now */
        uint64_t low;   /* the watermarks without that */
        uint64_t high;
};

/* 0, -errno of the read, or -EBADMSG if nothing in it is a zone; *zonesp then is untouched. For the deciding thread. */
int oomslice_zones_read(int fd, struct oomslice_zones *zonesp);
