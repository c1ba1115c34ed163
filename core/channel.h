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
 *   -> ACT (cgroup_id, step, amount, text, user) <- ACT_REPLY (status; size: sequence of the decision's record)
 *   -> RELEASE (cgroup_id)                      <- RELEASE_REPLY (status)
 *   -> PROGRAMS + maps: none, or pulse and signs <- PROGRAMS_REPLY (status)
 * An error in BEGIN or DESCRIPTORS is answered with PLAN_REPLY at once; the plan in force stays, and what was still
 * on its way for the refused one is passed over: every BEGIN gets exactly one PLAN_REPLY. That has the generation
 * of its BEGIN; any other reply has the generation of the plan in force, 0 for none. While a victim is dying the
 * core reads no message: answers then come after machine.death_deadline_us at the latest.
 */
#include <stdbool.h>
#include <stdint.h>

/* cffi: begin */
enum oomslice_channel_limit {
        OOMSLICE_CHANNEL_VERSION = 3,
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
        OOMSLICE_MESSAGE_ACT = 9, /* one step upon one unit, because somebody asks for it */
        OOMSLICE_MESSAGE_ACT_REPLY = 10,
        OOMSLICE_MESSAGE_RELEASE = 11, /* what steps did to this cgroup is undone */
        OOMSLICE_MESSAGE_RELEASE_REPLY = 12,
        OOMSLICE_MESSAGE_PROGRAMS =
                13, /* the maps of the BPF programs that are loaded; none: no program is */
        OOMSLICE_MESSAGE_PROGRAMS_REPLY = 14,
};

enum oomslice_core_feature {
        OOMSLICE_FEATURE_LOCKED = 1,   /* mlockall succeeded */
        OOMSLICE_FEATURE_REALTIME = 2, /* the deciding thread is SCHED_FIFO */
        OOMSLICE_FEATURE_CGROUP_KILL = 4,
        OOMSLICE_FEATURE_MRELEASE = 8,
        OOMSLICE_FEATURE_PSI_MACHINE = 16, /* machine triggers are armed */
        OOMSLICE_FEATURE_PSI_DOMAINS = 32, /* every domain's trigger is armed */
        OOMSLICE_FEATURE_MEMORY = 64,      /* memory controller figures are there */
        OOMSLICE_FEATURE_FAULTS = 128,     /* page faults are counted: an early sign of growth */
        OOMSLICE_FEATURE_PULSE = 256,      /* BPF programs can see whether it lives, and wake it */
};

struct oomslice_core_state {
        uint32_t features;
        uint32_t units;
        uint32_t domains;
        uint32_t watching; /* 1 while the timer runs */
        uint64_t wakeups;  /* returns of epoll_wait since start */
        uint64_t decisions;
        uint64_t dropped;
        uint64_t locked_bytes; /* without the reserve */
        uint64_t available;
        uint64_t reserve_bytes; /* held now */
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
        /* Of ACT and RELEASE. */
        uint64_t cgroup_id;
        uint64_t amount; /* as in struct oomslice_plan_step */
        uint32_t step;   /* enum oomslice_step_kind */
        uint32_t user;   /* who asks, for the record */
        char text[256];  /* path or unit, NUL-terminated */
};
/* cffi: end */

/* What the channel needs of the program around it. */
struct oomslice_channel_hooks {
        void (*state)(struct oomslice_core_state *statep); /* fills in all of it */
        void (*plan_taken)(int plan_fd);                   /* a plan has just come into force */
        /* Somebody asks for a step, or for the end of what steps did: 0 or -errno. */
        int (*act)(const struct oomslice_message *asked, uint64_t *sequencep);
        int (*release)(uint64_t cgroup_id);
        /* The maps that the programs have now, in the order of PROGRAMS; they stay the caller's. 0 or -errno. */
        int (*programs)(const int *fds, uint32_t fds_count);
};

/* `listen_fd` is non-blocking and listens; `ring_fd` and `event_fd` go out with HELLO_REPLY. 0 or -errno. */
int oomslice_channel_init(int epoll_fd, int listen_fd, int ring_fd, int event_fd,
                          const struct oomslice_channel_hooks *hooks);
/* Makes a listening socket for a core that systemd did not start. Returns it or -errno. */
int oomslice_channel_listen(const char *path);
/* OOMSLICE_EVENT_LISTEN: takes the new client in place of the old one. */
void oomslice_channel_accept(void);
/* True if the extended part is connected. */
bool oomslice_channel_has_client(void);
/* OOMSLICE_EVENT_CLIENT: reads and answers one message; `events` as epoll gave them. */
void oomslice_channel_receive(uint32_t events);
/* Reads no messages until it is called with 0 again. */
void oomslice_channel_hold(int hold);
