/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What epoll tells us: which kind of source, of which plan, and which one of that kind. */
#include <stdint.h>

enum oomslice_event_kind {
        OOMSLICE_EVENT_SIGNAL = 1,
        OOMSLICE_EVENT_TIMER = 2,
        OOMSLICE_EVENT_LISTEN = 3,
        OOMSLICE_EVENT_CLIENT = 4,
        OOMSLICE_EVENT_SIGN = 5,   /* machine.sign */
        OOMSLICE_EVENT_THRASH = 6, /* machine.thrash */
        OOMSLICE_EVENT_DOMAIN = 7, /* trigger of a domain; index: the domain's */
        OOMSLICE_EVENT_VICTIM = 8, /* cgroup.events of a victim */
        OOMSLICE_EVENT_FAULTS = 9, /* so many page faults that memory is worth a look */
        OOMSLICE_EVENT_SIGNS = 10, /* a BPF program says that it is */
};

struct oomslice_event {
        uint32_t kind;
        uint32_t tag; /* of the plan in force when it was registered: a stale event is told by it */
        uint32_t index;
};

/* Adds the descriptor, or changes what it stands for if it is there already. 0 or -errno. */
int oomslice_event_set(int epoll_fd, int fd, uint32_t events, struct oomslice_event event);
struct oomslice_event oomslice_event_unpack(uint64_t data);
