/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * The one socket between the two processes: AF_UNIX SOCK_SEQPACKET at /run/oomslice/core.sock. oomsliced
 * connects, the core answers; every packet is one struct oomslice_message. A newer connection replaces the older.
 *
 *   -> HELLO                                    <- HELLO_REPLY + descriptors: ring memfd, eventfd [, plan memfd in force]
 *   -> PLAN_BEGIN + plan memfd
 *   -> PLAN_DESCRIPTORS (first, count) + up to OOMSLICE_CHANNEL_DESCRIPTORS cgroup directories, in unit order
 *   -> PLAN_COMMIT                              <- PLAN_REPLY (status, detail)
 *   -> STATE                                    <- STATE_REPLY
 * An error in BEGIN or DESCRIPTORS is answered with PLAN_REPLY at once; the plan in force stays.
 */
#include <stdint.h>

/* cffi: begin */
enum oomslice_channel_limit {
        OOMSLICE_CHANNEL_VERSION = 1,
        OOMSLICE_CHANNEL_DESCRIPTORS = 240, /* the kernel's SCM_MAX_FD is 253 */
};

enum oomslice_message_type {
        OOMSLICE_MESSAGE_HELLO = 1,
        OOMSLICE_MESSAGE_HELLO_REPLY = 2,
        OOMSLICE_MESSAGE_PLAN_BEGIN = 3,
        OOMSLICE_MESSAGE_PLAN_DESCRIPTORS = 4,
        OOMSLICE_MESSAGE_PLAN_COMMIT = 5,
        OOMSLICE_MESSAGE_PLAN_REPLY = 6,
        OOMSLICE_MESSAGE_STATE = 7,
        OOMSLICE_MESSAGE_STATE_REPLY = 8,
};

enum oomslice_core_feature {
        OOMSLICE_FEATURE_LOCKED = 1,   /* mlockall succeeded */
        OOMSLICE_FEATURE_REALTIME = 2, /* the deciding thread is SCHED_FIFO */
        OOMSLICE_FEATURE_CGROUP_KILL = 4,
        OOMSLICE_FEATURE_MRELEASE = 8,
        OOMSLICE_FEATURE_PSI_MACHINE = 16, /* machine triggers are armed */
        OOMSLICE_FEATURE_PSI_DOMAINS = 32, /* every domain's trigger is armed */
        OOMSLICE_FEATURE_MEMORY = 64,      /* memory controller figures are there */
};

struct oomslice_core_state {
        uint32_t features;
        uint32_t units;
        uint32_t domains;
        uint32_t watching; /* 1 while the timer runs */
        uint64_t wakeups;  /* returns of epoll_wait since start */
        uint64_t decisions;
        uint64_t dropped;
        uint64_t locked_bytes;
        uint64_t available;
};

struct oomslice_message {
        uint32_t type;
        uint32_t version;
        uint64_t generation;
        uint32_t first;
        uint32_t count;
        int32_t status; /* enum oomslice_plan_result or -errno */
        uint32_t detail;
        uint64_t size;
        struct oomslice_core_state state;
};
/* cffi: end */
