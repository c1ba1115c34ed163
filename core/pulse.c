/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the core's side of the pulse: the page of the map that it shares with the BPF programs, into which it writes what
 * they have to know. To write is all: no system call, and nothing in there decides what the core does.
 *
 * The page lies at one address from the start to the end. Without programs it is memory of our own; a map that comes is
 * mapped over it, in one call, so whoever writes, of whichever thread, never has to ask whether it is there. A page
 * of such a map is in place when it is mapped (remap_vmalloc_range()), so it is never faulted in, locked or not.
 */
#define _GNU_SOURCE
#include "pulse.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pinned.h"
#include "plan.h"

#define NSEC UINT64_C(1000)
#define KILLED_US UINT64_C(2000000) /* programs give a victim one second */

static struct oomslice_pulse *pulse;
static size_t page;
static uint32_t map_id; /* 0: our own memory */
static atomic_uint_least64_t watchdog_busy_us;
static bool acts = true; /* false: dry run */
static uint64_t quiet_until_us;
static struct oomslice_machine limits; /* for a map that comes later than the plan */

static void set(uint64_t *field, uint64_t value) {
        __atomic_store_n(field, value, __ATOMIC_RELEASE);
}

/* What does not end stays that. */
static uint64_t to_nsec(uint64_t us) {
        return us > UINT64_MAX / NSEC ? UINT64_MAX : us * NSEC;
}

/* Memory of our own, at `address` or anywhere. */
static void *map_own(void *address) {
        return mmap(address, page, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | (address ? MAP_FIXED : 0), -1, 0);
}

static void write_plan(uint64_t withheld) {
        set(&pulse->available_min, limits.available_min + withheld);
        set(&pulse->swap_free_min, limits.swap_free_min);
        set(&pulse->available_watch,
            withheld + (limits.available_watch > limits.available_ladder ? limits.available_watch
                                                                         : limits.available_ladder));
}

int oomslice_pulse_init(bool dry_run) {
        void *own;

        page = (size_t)sysconf(_SC_PAGESIZE);
        own = map_own(NULL);
        if (own == MAP_FAILED)
                return -errno;
        pulse = own;
        acts = !dry_run;
        return 0;
}

int oomslice_pulse_take(int fd) {
        struct oomslice_pinned_map map;
        void *trial;
        int r;

        r = oomslice_pinned_map(fd, &map);
        if (r < 0)
                return r == -EINVAL ? -EBADMSG : r;
        if (map.type != BPF_MAP_TYPE_ARRAY || !(map.flags & BPF_F_MMAPABLE) || map.entries != 1 ||
            map.value_size != sizeof(*pulse))
                return -EBADMSG;
        if (map.id == map_id)
                return 0;
        /* A failure over the page would leave a hole there; so first elsewhere. */
        trial = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (trial == MAP_FAILED)
                return -errno;
        (void)munmap(trial, page);
        if (mmap(pulse, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
                r = -errno;
                oomslice_pulse_drop();
                return r;
        }
        map_id = map.id;
        set(&pulse->busy_until_nsec, acts ? 0 : UINT64_MAX);
        set(&pulse->quiet_until_nsec, to_nsec(quiet_until_us));
        write_plan(0); /* until the end of this turn */
        return 0;
}

void oomslice_pulse_drop(void) {
        map_id = 0;
        /* The page was there a moment ago. If it cannot be had again the next write would end the core anyway: better here,
         * where nobody is dying, and the next one begins without a map. */
        if (map_own(pulse) == MAP_FAILED)
                _exit(1);
}

bool oomslice_pulse_is_there(void) {
        return map_id != 0;
}

void oomslice_pulse_plan(const struct oomslice_machine *machine) {
        limits = *machine;
        write_plan(0);
}

void oomslice_pulse_busy(uint64_t until_us) {
        set(&pulse->busy_until_nsec, acts ? to_nsec(until_us) : UINT64_MAX);
}

void oomslice_pulse_watchdog_busy(uint64_t until_us) {
        atomic_store(&watchdog_busy_us, until_us);
        oomslice_pulse_busy(until_us);
}

void oomslice_pulse_quiet(uint64_t until_us) {
        quiet_until_us = until_us;
        set(&pulse->quiet_until_nsec, to_nsec(until_us));
}

uint64_t oomslice_pulse_killed_until(uint64_t now_us) {
        uint64_t until_us = __atomic_load_n(&pulse->killed_until_nsec, __ATOMIC_ACQUIRE) / NSEC;

        /* Others write this: whatever it is, it does not hold the core up for longer. */
        return until_us > now_us && until_us <= now_us + KILLED_US ? until_us : 0;
}

void oomslice_pulse_turn(uint64_t looked_nsec, uint64_t busy_until_us, uint64_t withheld) {
        uint64_t others_us = atomic_load(&watchdog_busy_us);

        if (map_id == 0)
                return;
        /* First this: a program that finds its answer must also find why it is to wait. */
        oomslice_pulse_busy(busy_until_us > others_us ? busy_until_us : others_us);
        if (looked_nsec == 0)
                return;
        write_plan(withheld);
        set(&pulse->beat_nsec, looked_nsec);
}
