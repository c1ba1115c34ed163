/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the second pair of eyes. The deciding thread sets a timer when its turn begins and stops it at the end, so at
 * rest nothing runs; if the timer does run out, a thread of higher priority wakes, looks at the memory for itself,
 * and acts by the plan in force if the machine is short of it, or if the deciding thread has not come back from a kill.
 *
 * Half a second: a decision among 4096 candidates is made in 0.2 s. Whatever takes longer is a large plan that is
 * taken, or a thread that is stuck in the kernel. Waking up for nothing costs a look; in a shortage nobody may be
 * busy with anything else for so long.
 *
 * It uses nothing that the deciding thread could hold: its own meminfo, table and stack, and the choice of rough.c,
 * which waits for nobody. The priorities are as strict, but the figures are rough and units younger than the plan are
 * not seen, so an equal choice is not promised. Whoever is chosen dies as a whole, also with KillScope=process.
 *
 * The write to cgroup.kill is left to a third thread, the hand, for it may not return; then, or if it fails, pidfds
 * do it. They have to be allocated, and a fork may escape a round, so they come second here as well.
 */
#define _GNU_SOURCE
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "file.h"
#include "force.h"
#include "lock.h"
#include "meminfo.h"
#include "moment.h"
#include "pulse.h"
#include "record.h"
#include "reserve.h"
#include "rough.h"
#include "thread.h"
#include "token.h"
#include "victim.h"
#include "watch.h"
#include "withheld.h"
#include "zram.h"

/* Sanitizers need more. */
#ifndef OOMSLICE_WATCHDOG_STACK
#define OOMSLICE_WATCHDOG_STACK 28672
#define OOMSLICE_HAND_STACK 16384
#else
#define OOMSLICE_HAND_STACK OOMSLICE_WATCHDOG_STACK
#endif

enum {
        PATIENCE_MS = 500,
        WRITE_MS = 200, /* how long the write to cgroup.kill may take */
        LOOK_MS = 10,
};

static _Alignas(OOMSLICE_LOCK_PAGE) char stack[OOMSLICE_WATCHDOG_STACK];
static _Alignas(OOMSLICE_LOCK_PAGE) char hand_stack[OOMSLICE_HAND_STACK];
static pthread_t threads[2];
static int threads_count;
static int meminfo = -1, timer = -1;
static bool dry_run_all;
static atomic_uint_least64_t turn_us; /* since when the deciding thread is awake; 0: it sleeps */
static uint64_t acted_us;             /* when an act ended */
static atomic_bool rehearses;         /* the next time that the timer runs out is for a dry run */

/* The hand: `job` is a descriptor of a cgroup.kill, which it closes. */
static int hand_wake = -1, hand_done = -1;
static atomic_int hand_job = -1, hand_result;
static atomic_bool hand_busy;

struct act {
        struct oomslice_held held;      /* our own copies */
        struct oomslice_record *record; /* NULL: the deciding thread's, which is not ours to complete */
        uint64_t cgroup_id;
        uint64_t deadline_us; /* microseconds that the victim has */
};

static void *hand_run(void *unused) {
        uint64_t count;
        const uint64_t one = 1;

        (void)unused;
        for (;;) {
                int fd;

                if (read(hand_wake, &count, sizeof(count)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return NULL;
                }
                fd = atomic_load(&hand_job);
                atomic_store(&hand_result, oomslice_file_pwrite(fd, "1", 1) == 1 ? 0 : -errno);
                close(fd);
                atomic_store(&hand_busy, false);
                (void)!write(hand_done, &one, sizeof(one));
        }
}

/* Has the hand write to cgroup.kill. 0, -errno of the write, -ETIME: it has not returned. Takes over `fd`. */
static int hand_kill(int fd) {
        struct pollfd done = {.fd = hand_done, .events = POLLIN};
        const uint64_t one = 1;
        uint64_t count;

        if (threads_count < 2 || atomic_load(&hand_busy)) {
                close(fd);
                return -EBUSY;
        }
        (void)!read(hand_done, &count, sizeof(count)); /* an answer that came too late for an earlier one */
        atomic_store(&hand_job, fd);
        atomic_store(&hand_busy, true);
        (void)!write(hand_wake, &one, sizeof(one));
        return poll(&done, 1, WRITE_MS) == 1 ? atomic_load(&hand_result) : -ETIME;
}

/* The plan's choice, written down. False: nobody, or nobody for real. */
static bool choose(const struct oomslice_force *force, const struct oomslice_meminfo *info, struct act *act) {
        static struct oomslice_record nowhere;
        const struct oomslice_cause cause = {OOMSLICE_TRIGGER_AVAILABLE, oomslice_moment_now(), *info};
        struct oomslice_sample sample;

        oomslice_rough_take(force, &sample);
        if (sample.eligible == 0 || (sample.candidates[0].flags & OOMSLICE_UNIT_DRY_RUN) ||
            (sample.domain->flags & OOMSLICE_DOMAIN_DRY_RUN))
                return false;
        act->cgroup_id = sample.candidates[0].cgroup_id;
        act->record = oomslice_record_new_bare(force, 0, &cause, &nowhere);
        act->record->flags |= OOMSLICE_RECORD_WATCHDOG;
        act->record->victim_memory_before = sample.candidates[0].memory;
        oomslice_record_set_candidates(act->record, &sample, true);
        oomslice_rough_copy(&act->held, &force->held[sample.candidates[0].unit]);
        return true;
}

/* What nobody can have is what the deciding thread has seen of that last. */
static int read_meminfo(struct oomslice_meminfo *infop) {
        uint64_t withheld = oomslice_withheld_last(), lost = oomslice_zram_last();
        int r = oomslice_meminfo_read(meminfo, infop);

        if (r == 0) {
                infop->available -= withheld < infop->available ? withheld : infop->available;
                infop->swap_free -= lost < infop->swap_free ? lost : infop->swap_free;
        }
        return r;
}

/* What is to be done, if anything; with the token if so. */
static bool prepare(struct act *act) {
        const struct oomslice_force *force = oomslice_force_get();
        struct oomslice_record *record;
        struct oomslice_meminfo info;
        struct oomslice_held victim;
        uint64_t last;
        bool is_short;

        if (!force || dry_run_all)
                return false;
        is_short =
                read_meminfo(&info) == 0 && oomslice_watch_margin(&force->plan.header->machine, &info) == 0;
        act->deadline_us = force->plan.header->machine.death_deadline_us;
        switch (oomslice_token_take(is_short, &victim, &record)) {
        case OOMSLICE_TOKEN_THEIRS:
                if (record)
                        record->flags |= OOMSLICE_RECORD_WATCHDOG;
                oomslice_rough_copy(&act->held, &victim);
                return true;
        case OOMSLICE_TOKEN_FREE:
                last = oomslice_token_last_kill();
                if ((last == 0 || oomslice_moment_now() - last >= act->deadline_us) &&
                    choose(force, &info, act))
                        return true;
                oomslice_token_release(false);
                return false;
        default:
                return false;
        }
}

/* KILLED, GONE, REFUSED or -errno. */
static int kill_victim(struct act *act, struct oomslice_processes *processes) {
        int fd = act->held.kill, r;

        act->held.kill = -1;
        r = oomslice_victim_check(&act->held, processes);
        if (r == OOMSLICE_VICTIM_GONE || r == OOMSLICE_VICTIM_REFUSED) {
                if (fd >= 0)
                        close(fd);
                return r;
        }
        if (fd >= 0) {
                r = hand_kill(fd);
                if (r == 0)
                        return OOMSLICE_VICTIM_KILLED;
                if (r == -ENODEV)
                        return OOMSLICE_VICTIM_GONE;
        }
        return oomslice_victim_kill_each(&act->held, processes, 0);
}

/* Waits until it is dead, or has had its time. */
static bool await_death(const struct act *act) {
        static const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
        uint64_t start = oomslice_moment_now();

        do {
                int populated = oomslice_held_populated(act->held.events);

                if (populated == 0 || populated == -ENODEV)
                        return true;
                (void)nanosleep(&pause, NULL);
        } while (oomslice_moment_now() - start < act->deadline_us);
        return false;
}

static void complete(const struct act *act, bool dead) {
        struct oomslice_record *record = act->record;
        struct oomslice_usage usage = {0};
        struct oomslice_meminfo info;

        (void)oomslice_held_usage_rough(&act->held, &usage);
        record->victim_memory_after = usage.memory;
        if (read_meminfo(&info) == 0)
                record->mem_available_after = info.available;
        /* Who is dead has given back what was his alone; what the cgroup keeps is cache, which anybody can have. */
        if (dead)
                record->death_us = record->memory_back_us = oomslice_moment_now();
        oomslice_record_finish(record, dead ? OOMSLICE_OUTCOME_FREED : OOMSLICE_OUTCOME_DEADLINE, 0);
}

static void carry_out(struct act *act) {
        struct oomslice_processes processes = {};
        bool dead;
        int r;

        r = kill_victim(act, &processes);
        /* Not before: it takes the lock of the address space, in which the deciding thread may be stuck. */
        oomslice_reserve_give();
        if (r != OOMSLICE_VICTIM_KILLED) {
                if (r != OOMSLICE_VICTIM_GONE)
                        oomslice_rough_set_vain(act->cgroup_id);
                if (act->record)
                        oomslice_record_finish(act->record,
                                               r == OOMSLICE_VICTIM_GONE      ? OOMSLICE_OUTCOME_GONE
                                               : r == OOMSLICE_VICTIM_REFUSED ? OOMSLICE_OUTCOME_REFUSED
                                                                              : OOMSLICE_OUTCOME_FAILED,
                                               r < 0 ? r : 0);
                return;
        }
        oomslice_pulse_watchdog_busy(oomslice_moment_now() + act->deadline_us);
        if (act->record) {
                act->record->signal_us = oomslice_moment_now();
                oomslice_record_set_processes(act->record, &processes);
                oomslice_ring_set_state(act->record, OOMSLICE_RECORD_SIGNALLED);
        }
        dead = await_death(act);
        oomslice_pulse_watchdog_busy(0);
        if (!dead)
                oomslice_rough_set_vain(act->cgroup_id);
        if (act->record)
                complete(act, dead);
}

static bool is_overdue(void) {
        uint64_t since = atomic_load(&turn_us);

        /* The next turn may have begun since the timer ran out: it has its own half a second. So has the memory of the
         * last victim, to be seen in MemAvailable. */
        if (since == 0)
                return false;
        if (acted_us > since)
                since = acted_us;
        return oomslice_moment_now() - since >= PATIENCE_MS * UINT64_C(1000);
}

/* The hand last: with its answer all is done. What it is given to write to is an eventfd, which refuses. */
static void rehearse(void) {
        const struct oomslice_force *force;
        struct oomslice_meminfo info;
        struct oomslice_sample sample;
        struct oomslice_held copies;

        (void)read_meminfo(&info);
        oomslice_token_use();
        force = oomslice_force_get();
        if (force) {
                oomslice_rough_take(force, &sample);
                oomslice_rough_copy(&copies, &force->held[sample.candidates[0].unit]);
                oomslice_held_close(&copies);
        }
        oomslice_token_unuse();
        (void)hand_kill(fcntl(hand_wake, F_DUPFD_CLOEXEC, 0));
}

static void *run(void *unused) {
        uint64_t expirations;

        (void)unused;
        (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* as for the deciding thread, see main.c */
        for (;;) {
                struct act act = {0};
                bool acts;

                if (read(timer, &expirations, sizeof(expirations)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return NULL;
                }
                if (atomic_exchange(&rehearses, false)) {
                        rehearse();
                        continue;
                }
                if (!is_overdue())
                        continue;
                oomslice_token_use();
                acts = prepare(&act);
                oomslice_token_unuse();
                if (!acts)
                        continue;
                carry_out(&act);
                oomslice_held_close(&act.held);
                acted_us = oomslice_moment_now();
                oomslice_token_release(true);
        }
}

static int start_thread(void *(*function)(void *), char *start, size_t size) {
        int r = oomslice_thread_start(&threads[threads_count], start, size, function, NULL);

        if (r == 0)
                threads_count++;
        return r;
}

int oomslice_watchdog_start(int meminfo_fd, bool dry_run) {
        int r;

        meminfo = meminfo_fd;
        dry_run_all = dry_run;
        oomslice_rough_init();
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        hand_wake = eventfd(0, EFD_CLOEXEC);
        hand_done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (meminfo < 0 || timer < 0 || hand_wake < 0 || hand_done < 0)
                return -errno;
        r = start_thread(run, stack, sizeof(stack));
        return r < 0 ? r : start_thread(hand_run, hand_stack, sizeof(hand_stack));
}

int oomslice_watchdog_arm(int priority) {
        const struct sched_param parameters = {.sched_priority = priority};
        int r = 0;

        for (int i = 0; i < threads_count && r == 0; i++)
                r = pthread_setschedparam(threads[i], SCHED_FIFO, &parameters);
        return -r;
}

static void set_timer(long milliseconds) {
        const struct timespec period = {.tv_nsec = milliseconds * 1000000};
        const struct itimerspec when = {.it_interval = period, .it_value = period};

        /* Fails only without a timer: then nobody watches, which was said at the start. */
        (void)timerfd_settime(timer, 0, &when, NULL);
}

void oomslice_watchdog_rehearse(void) {
        struct pollfd done = {.fd = hand_done, .events = POLLIN};

        if (threads_count < 2)
                return;
        atomic_store(&rehearses, true);
        set_timer(1);
        (void)poll(&done, 1, PATIENCE_MS);
        set_timer(0);
}

void oomslice_watchdog_turn_begin(uint64_t now_us) {
        oomslice_token_turn();
        atomic_store(&turn_us, now_us);
        set_timer(PATIENCE_MS);
}

void oomslice_watchdog_turn_end(void) {
        atomic_store(&turn_us, 0);
        set_timer(0);
}
