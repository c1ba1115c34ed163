/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the descriptor of /proc/meminfo and the watch. Every wakeup, whatever it was for, reads the file (6 us);
 * so the watch starts at the first event of any kind that comes in a shortage, not only at its own trigger.
 * A file that cannot be read decides nothing: stale figures must not kill.
 */
#define _GNU_SOURCE
#include "machine.h"

#include "decide.h"
#include "force.h"
#include "meminfo.h"
#include "moment.h"
#include "probe.h"
#include "reserve.h"
#include "trail.h"
#include "undo.h"
#include "watch.h"
#include "withheld.h"
#include "zram.h"

/* The sign's window is half a second by default; ten at the most, and then it is coarse. */
#define SIGN_LASTS_US UINT64_C(2000000)

static int meminfo = -1;
static struct oomslice_watch watch;
static struct oomslice_meminfo info;
static bool readable;
static bool is_short;
static uint64_t next_us = OOMSLICE_MOMENT_NEVER;
static uint64_t sign_us; /* when memory last made somebody wait; 0: never */

void oomslice_machine_init(int meminfo_fd) {
        meminfo = meminfo_fd;
}

/*
 * memory.high makes the kernel swap a throttled unit out. Where that gains nothing it takes as much memory from everybody:
 * there the unit keeps what it has in memory, and only waits.
 */
static void look_at_zram(const struct oomslice_machine *machine, uint64_t now_us) {
        bool is_throttling = oomslice_undo_is_pending(OOMSLICE_UNDO_SWAP);

        if (info.swap_total == 0 || (info.available > machine->available_watch && !is_throttling))
                return;
        info.swap_free -= oomslice_zram_look(&info, now_us);
        if (is_throttling && oomslice_zram_is_vain())
                oomslice_undo_apply_pending(OOMSLICE_UNDO_SWAP);
}

void oomslice_machine_read(uint64_t now_us) {
        const struct oomslice_force *force = oomslice_force_get();
        bool was_active = watch.active;

        readable = oomslice_meminfo_read(meminfo, &info) == 0;
        is_short = false;
        if (!force || !readable) {
                /* Tried again while it matters: the file was readable when the watch began. */
                next_us = watch.active ? now_us + UINT64_C(100000) : OOMSLICE_MOMENT_NEVER;
                return;
        }
        info.available -= oomslice_withheld_look(force, &info, now_us);
        look_at_zram(&force->plan.header->machine, now_us);
        is_short = oomslice_watch_update(&watch, &force->plan.header->machine, &info, now_us);
        if (was_active && !watch.active)
                oomslice_decide_machine_calm();
        /* Not a hair's breadth above the limit, where it would be said again and again. */
        if (oomslice_watch_margin(&force->plan.header->machine, &info) >
            force->plan.header->machine.available_min / 4)
                oomslice_decide_machine_enough();
}

static struct oomslice_cause cause(uint32_t trigger, uint64_t now_us) {
        return (struct oomslice_cause){.trigger = trigger, .trigger_us = now_us, .meminfo = info};
}

/* The next look comes sooner the less there is, but not before domain 0 could act upon it. */
static void set_next(const struct oomslice_machine *machine, uint64_t now_us) {
        uint64_t ready = oomslice_decide_machine_ready();

        next_us = OOMSLICE_MOMENT_NEVER;
        /* While a victim is awaited, that has its own looks, and each of them is followed by one here. */
        if (!watch.active || ready == OOMSLICE_MOMENT_NEVER)
                return;
        next_us = now_us + oomslice_probe_pause(machine, &info, watch.fall,
                                                oomslice_watch_pause(machine, &info, watch.fall));
        if (is_short && ready > next_us)
                next_us = ready;
}

void oomslice_machine_sign(uint64_t now_us) {
        sign_us = now_us;
}

void oomslice_machine_look(uint64_t now_us, bool thrashing) {
        const struct oomslice_force *force = oomslice_force_get();
        bool waited = sign_us != 0 && now_us - sign_us < SIGN_LASTS_US;
        const struct oomslice_machine *machine;
        struct oomslice_cause why;
        uint32_t trigger;

        if (!force || !readable)
                return;
        machine = &force->plan.header->machine;
        trigger = oomslice_watch_judge(machine, &info, thrashing, waited);
        if (trigger == OOMSLICE_TRIGGER_AVAILABLE)
                oomslice_reserve_open();
        if (trigger != 0) {
                why = cause(trigger, now_us);
                oomslice_decide(0, &why);
        }
        if (watch.active && !is_short)
                oomslice_probe_look(force, &info, now_us);
        oomslice_trail_look(force, &info, watch.active, is_short, now_us);
        set_next(machine, now_us);
}

void oomslice_machine_pressure(uint32_t domain, uint64_t now_us) {
        const struct oomslice_plan *plan = &oomslice_force_get()->plan;
        struct oomslice_cause why = cause(OOMSLICE_TRIGGER_PRESSURE, now_us);

        /* Where the machine has memory, others can do nothing for whoever stalls: it is at a limit of its own. */
        if ((plan->domains[domain].flags & OOMSLICE_DOMAIN_LOWER) &&
            (!readable || info.available > plan->header->machine.available_thrash))
                return;
        oomslice_decide(domain, &why);
}

uint64_t oomslice_machine_next(void) {
        return next_us;
}

bool oomslice_machine_watching(void) {
        return watch.active;
}

uint64_t oomslice_machine_margin(void) {
        const struct oomslice_force *force = oomslice_force_get();
        uint64_t limit;

        if (!force || !readable)
                return UINT64_MAX;
        limit = force->plan.header->machine.available_min;
        return info.available > limit ? info.available - limit : 0;
}

bool oomslice_machine_has_looked(void) {
        return oomslice_force_get() && readable;
}

const struct oomslice_meminfo *oomslice_machine_meminfo(void) {
        return &info;
}

uint64_t oomslice_machine_available(void) {
        return info.available;
}
