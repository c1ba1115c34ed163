/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns how a source is packed into the 64 bits that epoll keeps for it: 8 bits of kind, 24 of tag, 32 of index.
 * No pointer is ever stored there, so an event that outlives its source leads nowhere.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>

#include "event.h"

int oomslice_event_set(int epoll_fd, int fd, uint32_t events, struct oomslice_event event) {
        struct epoll_event e = {
                .events = events,
                .data.u64 = (uint64_t)event.kind << 56 | (uint64_t)(event.tag & 0xffffff) << 32 | event.index,
        };

        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0)
                return 0;
        if (errno == EEXIST && epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e) == 0)
                return 0;
        return -errno;
}

struct oomslice_event oomslice_event_unpack(uint64_t data) {
        return (struct oomslice_event){
                .kind = (uint32_t)(data >> 56),
                .tag = (uint32_t)(data >> 32) & 0xffffff,
                .index = (uint32_t)data,
        };
}
