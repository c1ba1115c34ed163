/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the order of a kill: a place to wait in, the signal, and only then what may take its time.
 * With KillScope=process the sizes of the unit's processes are read first, through the descriptor of /proc: an
 * open by name below it, as bounded as the search for units that are younger than the plan.
 */
#define _GNU_SOURCE
#include "killing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "kill.h"
#include "mark.h"
#include "moment.h"
#include "number.h"
#include "pulse.h"
#include "reaper.h"
#include "record.h"
#include "reserve.h"
#include "restarts.h"
#include "token.h"
#include "victim.h"

static int proc = -1;

void oomslice_killing_init(int proc_fd) {
        proc = proc_fd;
}

uint64_t oomslice_killing_size(int32_t pid) {
        static char text[4096];
        char path[OOMSLICE_NUMBER_SIZE + sizeof("/status")];
        uint64_t anonymous = 0, swap = 0;
        ssize_t n;
        int fd;

        memcpy(path + oomslice_number_format(path, (uint64_t)pid), "/status", sizeof("/status"));
        fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return 0;
        n = oomslice_file_read(fd, text, sizeof(text));
        close(fd);
        if (n < 0)
                return 0;
        (void)oomslice_file_parse_field(text, "RssAnon:", &anonymous);
        (void)oomslice_file_parse_field(text, "VmSwap:", &swap);
        return anonymous + swap;
}

/* The list is read again while the pidfd is held: a number that was given to somebody else is then no member. */
int oomslice_killing_open_largest(const struct oomslice_held *held, struct oomslice_processes *processes,
                                  uint64_t *bytesp) {
        static struct oomslice_processes again;
        uint64_t largest = 0;
        int32_t pid = 0;
        int fd, r;

        r = oomslice_victim_list(held, processes);
        if (r < 0)
                return r;
        if (processes->total < 2)
                return -ENODATA;
        for (uint32_t i = 0; proc >= 0 && i < processes->count; i++) {
                uint64_t size = oomslice_killing_size(processes->pids[i]);

                if (size > largest) {
                        largest = size;
                        pid = processes->pids[i];
                }
        }
        if (pid == 0)
                return -ENODATA;
        fd = oomslice_pidfd_open(pid);
        if (fd < 0)
                return fd;
        again.total = again.count = 0;
        (void)oomslice_processes_list(held->procs, &again);
        oomslice_processes_list_below(held->directory, &again);
        if (!oomslice_processes_has(&again, pid)) {
                close(fd);
                return -ESRCH;
        }
        *processes = (struct oomslice_processes){.total = 1, .count = 1, .pids = {pid}};
        if (bytesp)
                *bytesp = largest * 1024;
        return fd;
}

/* A pidfd of the one process out of several, or -errno: it has to be the whole unit. */
static int pick_one(const struct oomslice_killing *killing, struct oomslice_processes *processes,
                    uint64_t *bytesp) {
        if (killing->pidfd >= 0)
                return fcntl(killing->pidfd, F_DUPFD_CLOEXEC, 0);
        return oomslice_killing_open_largest(killing->held, processes, bytesp);
}

/* Takes over `fd`. */
static bool kill_one(int fd, uint64_t bytes, struct oomslice_action *action) {
        if (oomslice_pidfd_send_signal(fd, SIGKILL) < 0) {
                close(fd);
                return false;
        }
        oomslice_action_of_process(action, fd, bytes);
        oomslice_reaper_push(fd, action->serial);
        return true;
}

int oomslice_killing_do(const struct oomslice_killing *killing, struct oomslice_record *record) {
        struct oomslice_processes *processes = killing->processes;
        struct oomslice_action *action;
        uint64_t now, bytes = 0;
        int r, error, fd = -1;
        bool one, marked;

        if (killing->check == OOMSLICE_VICTIM_GONE)
                return OOMSLICE_KILLING_GONE;
        if (killing->check == OOMSLICE_VICTIM_REFUSED)
                return OOMSLICE_KILLING_REFUSED;
        error = killing->check < 0
                        ? killing->check
                        : 0; /* a list of processes that could not be read is no reason to spare them */

        action = oomslice_action_new(killing->domain_id, killing->victim_id, killing->held,
                                     killing->reclaimable);
        if (!action)
                return -EBUSY; /* 64 victims are dying: their memory is what to wait for */
        record->victim_memory_before = action->after;
        record->kill_scope = killing->scope;

        if (killing->scope == OOMSLICE_SCOPE_PROCESS)
                fd = pick_one(killing, processes, &bytes);
        /* Of one process of several systemd would take the end of the unit for it. */
        marked = killing->mark && fd < 0 && oomslice_mark_before(killing->held->directory);
        if (killing->mark && fd < 0 && !marked)
                record->flags |= OOMSLICE_RECORD_UNMARKED;
        if (!oomslice_token_claim(killing->held, record)) {
                if (fd >= 0)
                        close(fd);
                oomslice_action_free(action);
                return -EBUSY; /* the watchdog acts or has acted: its victim's memory is what to wait for */
        }
        one = fd >= 0 && kill_one(fd, bytes, action);
        r = one ? (int)OOMSLICE_VICTIM_KILLED
                : oomslice_victim_kill(killing->held, processes, action->serial);
        /* Stuck for so long that the watchdog has killed it meanwhile: whether it is dead will be seen. */
        if (!oomslice_token_yield(r == OOMSLICE_VICTIM_KILLED) && r < 0)
                r = OOMSLICE_VICTIM_KILLED;
        now = oomslice_moment_now();
        /* Before anything else: programs in the kernel give it time to die, too. */
        if (r == OOMSLICE_VICTIM_KILLED)
                oomslice_pulse_busy(now + killing->deadline_us);
        /* What they need to end, they now have: page tables to take apart, files to write back. */
        oomslice_reserve_give();
        if (r != OOMSLICE_VICTIM_KILLED) {
                oomslice_action_free(action);
                return r == OOMSLICE_VICTIM_GONE ? (int)OOMSLICE_KILLING_GONE : r;
        }
        record->signal_us = now;
        record->error = -error;
        oomslice_ring_set_state(record, OOMSLICE_RECORD_SIGNALLED);
        oomslice_action_start(action, record, killing, now);
        oomslice_restarts_note(killing->victim_name, now);
        if (!one)
                oomslice_victim_reap(killing->held, processes, action->serial);
        if (marked)
                oomslice_mark_after(killing->held->directory, processes->total);
        oomslice_record_set_processes(record, processes);
        return OOMSLICE_KILLING_SENT;
}
