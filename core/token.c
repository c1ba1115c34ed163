/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the agreement between the two threads that kill, so that one shortage costs one victim. No locks: what one
 * thread could be stuck with, the other must not need.
 *
 * - Whoever kills holds the token: one word, taken by compare and exchange.
 * - The deciding thread takes it for the moment of its kill, and not at all in a turn in which the watchdog has acted:
 *   what it chose, it chose by figures from before that. Before it lets go, it says when it killed; the watchdog
 *   looks at that once it has the token, and leaves that victim the time to die. So neither can slip in between the
 *   other's choice and kill.
 * - The watchdog holds it until its victim is dead, or has had its time. It can take it away from the deciding
 *   thread, but then only to kill the same victim.
 * - The watchdog works with descriptors of the plan in force or of the victim that is published, and says so first
 *   ("use"). The deciding thread first takes them out of force and then waits for that to end, before it closes them.
 *   The watchdog copies what it needs for the kill before it kills, so the wait is short. If the watchdog hangs all
 *   the same, both do, and the service manager's watchdog is the third.
 *
 * What remains: a step that is no kill (SIGTERM, freezing) is not announced here, so a unit may be killed by the
 * watchdog while the deciding thread has just asked it to end. And after a restart of the core nobody knows whom its
 * predecessor killed a moment ago; the memory that has come back by then has to say it.
 */
#define _GNU_SOURCE
#include "token.h"

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "moment.h"

enum { NOBODY, DECIDER, WATCHDOG };

static atomic_int holder = NOBODY;
static atomic_bool in_use;
static atomic_uint acts;
static atomic_uint_least64_t last_kill_us;
static unsigned acts_seen; /* the deciding thread's */
static struct oomslice_held published;
static struct oomslice_record *published_record;

void oomslice_token_turn(void) {
        acts_seen = atomic_load(&acts);
}

bool oomslice_token_is_taken(void) {
        return atomic_load(&holder) == WATCHDOG || atomic_load(&acts) != acts_seen;
}

bool oomslice_token_claim(const struct oomslice_held *victim, struct oomslice_record *record) {
        int nobody = NOBODY;

        if (atomic_load(&holder) != NOBODY)
                return false; /* what is published may be being read */
        published = *victim;
        published_record = record;
        if (!atomic_compare_exchange_strong(&holder, &nobody, DECIDER))
                return false;
        if (atomic_load(&acts) == acts_seen)
                return true;
        (void)oomslice_token_yield(false);
        return false;
}

bool oomslice_token_yield(bool killed) {
        int decider = DECIDER;

        if (killed)
                atomic_store(&last_kill_us, oomslice_moment_now());
        if (atomic_compare_exchange_strong(&holder, &decider, NOBODY))
                return true;
        oomslice_token_settle();
        return false;
}

void oomslice_token_settle(void) {
        static const struct timespec pause = {.tv_nsec = 1000000};

        while (atomic_load(&in_use))
                (void)nanosleep(&pause, NULL);
}

void oomslice_token_use(void) {
        atomic_store(&in_use, true);
}

void oomslice_token_unuse(void) {
        atomic_store(&in_use, false);
}

enum oomslice_token_result oomslice_token_take(bool choose, struct oomslice_held *victimp,
                                               struct oomslice_record **recordp) {
        int decider = DECIDER, nobody = NOBODY;

        if (atomic_compare_exchange_strong(&holder, &decider, WATCHDOG)) {
                *victimp = published;
                *recordp = published_record;
                return OOMSLICE_TOKEN_THEIRS;
        }
        if (choose && atomic_compare_exchange_strong(&holder, &nobody, WATCHDOG))
                return OOMSLICE_TOKEN_FREE;
        return OOMSLICE_TOKEN_NONE;
}

void oomslice_token_release(bool acted) {
        if (acted)
                atomic_fetch_add(&acts, 1);
        atomic_store(&holder, NOBODY);
}

uint64_t oomslice_token_last_kill(void) {
        return atomic_load(&last_kill_us);
}
