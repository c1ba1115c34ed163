/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the dry run: what a decision does is done once before it has to be, by the same functions and in the threads that
 * will do it, on a record that nobody reads. Signals are tried with number 0, upon the core itself: the kernel goes all
 * the way and sends nothing.
 *
 * Why, if everything is locked after it: that is for what is mapped. This is for what is not, and would be made when
 * there is no memory: buffers behind open files come with their first read, names of files and the clock's page (vvar,
 * which cannot be locked) with their first use. Whatever comes of it here is of no interest, and nothing fails by it.
 */
#define _GNU_SOURCE
#include "rehearse.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "hands.h"
#include "kill.h"
#include "killing.h"
#include "machine.h"
#include "mark.h"
#include "moment.h"
#include "number.h"
#include "processes.h"
#include "psi.h"
#include "reaper.h"
#include "record.h"
#include "restarts.h"
#include "sample.h"
#include "victim.h"
#include "watchdog.h"

enum {
        CANDIDATES = 4,
        LOOKS = 10, /* for a hand, which may have had both jobs and remember only the last */
        LOOK_NS = 1000000,
};

static bool never_tried(uint64_t cgroup_id, void *context) {
        (void)cgroup_id, (void)context;
        return false;
}

static void write_down(const struct oomslice_sample *sample, bool chosen,
                       const struct oomslice_processes *processes) {
        struct oomslice_record nowhere = {0};

        oomslice_record_set_candidates(&nowhere, sample, chosen);
        oomslice_record_set_processes(&nowhere, processes);
}

/*
 * The last check, on the root's own processes. Not on cgroups below: they are opened anew each time, and in a shortage,
 * in which a successor may start, that could take long.
 */
static void check(int root_fd, struct oomslice_processes *processes) {
        struct oomslice_held held;

        oomslice_held_init(&held);
        held.procs = openat(root_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        (void)oomslice_victim_check(&held, processes);
        if (held.procs >= 0)
                close(held.procs);
}

static void choose(const struct oomslice_processes *processes) {
        struct oomslice_candidate candidates[CANDIDATES] = {0};
        struct oomslice_sample sample = {.candidates = candidates, .count = CANDIDATES};

        for (uint32_t i = 0; i < CANDIDATES; i++)
                candidates[i] = (struct oomslice_candidate){
                        .cgroup_id = CANDIDATES - i,
                        .state = OOMSLICE_CANDIDATE_POPULATED | OOMSLICE_CANDIDATE_BELOW,
                };
        sample.eligible = oomslice_select(candidates, CANDIDATES);
        write_down(&sample, false, processes);
}

static void signal_and_reap(void) {
        int fd = oomslice_pidfd_open(getpid());

        if (fd >= 0) {
                (void)oomslice_pidfd_send_signal(fd, 0);
                close(fd);
        }
        /* Nobody: who is not dying would be tried for a while, and that is when a first victim may need them. */
        for (int i = 0; i < OOMSLICE_REAPER_THREADS; i++)
                oomslice_reaper_push(-1, 0);
}

static void await_hands(const uint32_t jobs[static OOMSLICE_HANDS_COUNT]) {
        const struct timespec pause = {.tv_nsec = LOOK_NS};
        int error;

        for (int i = 0; i < OOMSLICE_HANDS_COUNT; i++)
                for (int looks = 0; jobs[i] != 0 && looks < LOOKS && !oomslice_hands_done(jobs[i], &error);
                     looks++)
                        (void)nanosleep(&pause, NULL);
}

/* Into memory that ends with its last descriptor. */
static void write_and_mark(void) {
        int fd = memfd_create("oomslice-rehearsal", MFD_CLOEXEC);
        uint32_t jobs[OOMSLICE_HANDS_COUNT];

        if (fd < 0)
                return;
        for (int i = 0; i < OOMSLICE_HANDS_COUNT; i++)
                jobs[i] = oomslice_hands_write(fd, "0", 1);
        await_hands(jobs);
        (void)oomslice_mark_before(fd);
        close(fd);
}

void oomslice_rehearse(int root_fd) {
        struct oomslice_processes processes = {};
        char text[OOMSLICE_NUMBER_SIZE];

        oomslice_machine_read(oomslice_moment_now());
        check(root_fd, &processes);
        choose(&processes);
        (void)oomslice_killing_size(getpid());
        (void)oomslice_number_format(text, UINT64_MAX);
        signal_and_reap();
        write_and_mark();
        oomslice_watchdog_rehearse();
}

void oomslice_rehearse_plan(const struct oomslice_force *force) {
        struct oomslice_sample *sample = oomslice_sample_take(force, 0, never_tried, NULL);
        struct oomslice_psi_trigger_figures figures;
        struct oomslice_processes processes = {};

        for (uint32_t i = 0; i < force->plan.header->domains_count; i++)
                if (force->domains[i].figures_fd >= 0)
                        (void)oomslice_psi_read(force->domains[i].figures_fd, &figures);
        if (sample->eligible > 0) {
                (void)oomslice_victim_check(oomslice_sample_held(sample, &sample->candidates[0]), &processes);
                (void)oomslice_restarts_count(oomslice_sample_name(sample, &sample->candidates[0]),
                                              oomslice_moment_now());
                write_down(sample, true, &processes);
        }
        oomslice_sample_end(sample);
}
