/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Which of the two threads acts: the deciding one, or the watchdog in its place. */
#include <stdbool.h>
#include <stdint.h>

#include "held.h"
#include "ring.h"

/* For the deciding thread. */

/* A turn begins. */
void oomslice_token_turn(void);
/* True if the watchdog acts, or has acted since the turn began: what this turn knows is then out of date. */
bool oomslice_token_is_taken(void);
/* Right before the kill of `victim`, which is what the watchdog kills if this thread does not come back from it.
 * False: the watchdog acts or has acted, and nobody is to be killed. */
bool oomslice_token_claim(const struct oomslice_held *victim, struct oomslice_record *record);
/* Right after it. False: the watchdog had to do it, too. The victim's descriptors may be closed from now on. */
bool oomslice_token_yield(bool killed);
/* Returns when descriptors that were in force until now are no longer in use. */
void oomslice_token_settle(void);

/* For the watchdog. */

enum oomslice_token_result {
        OOMSLICE_TOKEN_NONE = 0,  /* not now */
        OOMSLICE_TOKEN_FREE = 1,  /* it is ours, and so is the choice */
        OOMSLICE_TOKEN_THEIRS = 2 /* the deciding thread is in the middle of a kill: it is for us to finish */
};

/* From now on no descriptor is closed that is in force; until unuse, which must not be long in coming. */
void oomslice_token_use(void);
void oomslice_token_unuse(void);
/* `choose`: also if the deciding thread has chosen nobody. THEIRS: *victimp and *recordp are what it has published. */
enum oomslice_token_result oomslice_token_take(bool choose, struct oomslice_held *victimp,
                                               struct oomslice_record **recordp);
void oomslice_token_release(bool acted);
/* When the deciding thread has killed somebody last; 0 for never. */
uint64_t oomslice_token_last_kill(void);
