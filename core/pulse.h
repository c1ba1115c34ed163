/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/*
 * How the BPF programs and the core know of each other: the one element of the map "pulse" (BPF_MAP_TYPE_ARRAY that can be
 * mapped, bpf/maps.h). At rest nobody writes it. A program that sees memory run short asks (bpf/ask.h); the core, woken by
 * that, answers with its next turn. Who asked and had no answer in time knows that the core is stuck, and acts by itself.
 */
#include <stdint.h>

/* cffi: begin */
struct oomslice_pulse {
        /* CLOCK_MONOTONIC of the first question that has no answer yet; 0: there is none. Written by programs when
         * beat_nsec is younger than it, or it is 0. */
        uint64_t asked_nsec;
        /* CLOCK_MONOTONIC of when the core last looked at the memory, written when the turn that did so has come to its
         * end: what was asked before has its answer. Only with a plan in force. Written by the core only. */
        uint64_t beat_nsec;
        /* CLOCK_MONOTONIC until which the core has a victim that is dying, and programs leave it that time; 0: none;
         * UINT64_MAX: the core was told to do nothing, and so are they. */
        uint64_t busy_until_nsec;
        /* Bytes: the limits of the plan in force, by the core. Free swap and MemAvailable at or below both: it would kill.
         * What MemAvailable counts and nobody can have (withheld.h) is added here, since programs do not know of it. */
        uint64_t available_min;
        uint64_t swap_free_min;
        /* Of the newest plan whose values are all in "slices", by oomsliced; 0: there is none, and no program acts. */
        uint64_t generation;
        /* CLOCK_MONOTONIC before which signs are of no use to the core, by the core: it looks by itself, or has just
         * looked. Not for who has to know whether the core lives. */
        uint64_t quiet_until_nsec;
        /* Bytes: above it MemAvailable is nothing to look at, by the core, with the same added; 0: no plan. */
        uint64_t available_watch;
        /* CLOCK_MONOTONIC of the last record that woke the core, by programs (bpf/ask.h). A question alone wakes nobody;
         * while it is open the next sign is sent whatever quiet_until_nsec says. */
        uint64_t signalled_nsec;
        /* CLOCK_MONOTONIC until which a program has a victim of the machine that is dying, and the core chooses nobody for it:
         * two would die where one is enough. 0: none. Written by programs. */
        uint64_t killed_until_nsec;
};
/* cffi: end */

#ifndef __bpf__
#include <stdbool.h>

struct oomslice_machine;

/* Before the core is armed: a page to write to when there is no map. `dry_run`: nobody may be killed, by whomever. 0 or
 * -errno. */
int oomslice_pulse_init(bool dry_run);
/* Takes the map; the descriptor stays the caller's. Never while a victim is dying. 0; -EBADMSG: it is no such map; other
 * -errno: it cannot be mapped. What was there before stays in both cases. */
int oomslice_pulse_take(int fd);
/* There are no programs any more. */
void oomslice_pulse_drop(void);
bool oomslice_pulse_is_there(void);
/* A plan has come into force. */
void oomslice_pulse_plan(const struct oomslice_machine *machine);
/* A victim was sent the signal and has that long. The next turn's end says anew what is. */
void oomslice_pulse_busy(uint64_t until_us);
/* The same by the watchdog, whose victims the deciding thread does not know; 0: it is over. */
void oomslice_pulse_watchdog_busy(uint64_t until_us);
/* Signs are of no use before; UINT64_MAX: for now. */
void oomslice_pulse_quiet(uint64_t until_us);
/* Until when a program's victim has time to die; 0: there is none. Never more than so far ahead as such a victim may have. */
uint64_t oomslice_pulse_killed_until(uint64_t now_us);
/* The end of a turn that looked at the memory at `looked_nsec` (0: it could not, or there is no plan). `busy_until_us`:
 * until when a victim has time to die, 0: none. `withheld`: bytes of MemAvailable that nobody can have. */
void oomslice_pulse_turn(uint64_t looked_nsec, uint64_t busy_until_us, uint64_t withheld);
#endif
