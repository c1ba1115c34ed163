/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The service manager: what it handed us, what it is told, and what it keeps for our successor. */
#include <stdbool.h>
#include <stdint.h>

enum { OOMSLICE_NOTIFY_PLANS_MAX = 4 };

/* Descriptors received at start; -1 if not there. */
struct oomslice_inherited {
        int socket; /* "core.sock" or "core": listening */
        int ring;   /* "ring", from the store */
        int pulse;  /* "pulse" and "signs", from the store: maps, if BPF programs were loaded */
        int signs;
        int plans
                [OOMSLICE_NOTIFY_PLANS_MAX]; /* "plan": normally one; two if the core died between store and removal */
        uint32_t plans_count;
};

/* Reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES; closes what it does not know. */
void oomslice_notify_inherit(struct oomslice_inherited *inheritedp);
/* Sends a state line ("READY=1") without ever blocking. 0, -errno, or 0 if nobody wants to know. */
int oomslice_notify(const char *state);
/*
 * The end of a turn. While the machine is `restless` the manager expects turns, and ends this process if none comes;
 * else it expects nothing, so that nobody has to wake.
 */
void oomslice_notify_turn(bool restless, uint64_t now_us);
/* When the next turn has to come because of that; OOMSLICE_MOMENT_NEVER at rest. */
uint64_t oomslice_notify_next(void);
/* Puts a descriptor into the store under `name`; what was there under it before is removed. 0 or -errno. */
int oomslice_notify_store(const char *name, int fd);
/* What is in the store under `name` goes. 0 or -errno. */
int oomslice_notify_remove(const char *name);
