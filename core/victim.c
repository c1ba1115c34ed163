/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the moment of the kill. cgroup.kill comes first where there is one: it is a write to an open descriptor,
 * allocates nothing, takes the whole subtree at once and races with no fork. A pidfd has to be allocated and may
 * have to wait for memory, so pidfds come after it. Only kernels before 5.14 are killed by pidfds alone.
 */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "file.h"
#include "kill.h"
#include "reaper.h"

enum { ROUNDS = 256, SIGNALLED_MAX = 1024 };

int oomslice_victim_check(const struct oomslice_held *held, struct oomslice_processes *processesp) {
        int r;

        processesp->skip = processesp->total = processesp->count = 0;
        if (held->procs < 0)
                return OOMSLICE_VICTIM_GONE;
        r = oomslice_processes_list(held->procs, processesp);
        /* EOPNOTSUPP: the unit's own cgroup is threaded; its processes are listed elsewhere. */
        if (r < 0 && r != -EOPNOTSUPP)
                return r == -ENODEV ? (int)OOMSLICE_VICTIM_GONE : r;
        return oomslice_processes_untouchable(processesp) ? OOMSLICE_VICTIM_REFUSED : OOMSLICE_VICTIM_KILLED;
}

/* Who has the signal. Those beyond get it again, which does whom it kills no harm. */
struct signalled {
        uint32_t count;
        int32_t pids[SIGNALLED_MAX];
};

static bool has(const struct signalled *signalled, int32_t pid) {
        for (uint32_t i = 0; i < signalled->count; i++)
                if (signalled->pids[i] == pid)
                        return true;
        return false;
}

static void note(struct signalled *signalled, int32_t pid) {
        if (signalled->count < SIGNALLED_MAX)
                signalled->pids[signalled->count++] = pid;
}

/*
 * One round of a signal by pidfds. A pid may have been reused between the list and pidfd_open; so the list is read
 * again while the pidfd is held: who is in it then, under a pid whose process has not died, is a member. Who is not has
 * died, or is behind the second list's first since others before him have: *unsurep says that there were such.
 */
static int signal_round(const struct oomslice_held *held, const struct oomslice_processes *before,
                        struct signalled *known, int signal, uint32_t serial, bool *unsurep) {
        struct oomslice_processes now = {.skip = before->skip};
        int pidfds[OOMSLICE_PROCESSES_MAX], killed = 0, error = 0;

        for (uint32_t i = 0; i < before->count; i++)
                pidfds[i] = has(known, before->pids[i]) ? -ESRCH : oomslice_pidfd_open(before->pids[i]);
        (void)oomslice_processes_list(held->procs, &now);
        oomslice_processes_list_below(held->directory, &now);
        for (uint32_t i = 0; i < before->count; i++) {
                int r = pidfds[i];

                if (r >= 0 && !oomslice_processes_has(&now, before->pids[i])) {
                        r = -ESRCH;
                        *unsurep = true;
                }
                if (r >= 0)
                        r = oomslice_pidfd_send_signal(pidfds[i], signal);
                if (r == 0) {
                        note(known, before->pids[i]);
                        killed++;
                }
                if (r == 0 && serial != 0) {
                        oomslice_reaper_push(pidfds[i], serial);
                        continue;
                }
                if (r != 0 && r != -ESRCH)
                        error = r;
                if (pidfds[i] >= 0)
                        close(pidfds[i]);
        }
        return killed > 0 ? killed : error;
}

/*
 * Rounds until nobody new appears: a process may fork until its own signal reaches it. Where there are more than a list
 * holds, those behind are come to also while those in front, who have the signal, have not got a processor to die on.
 * Whoever is not killed is told once, so for them it ends when no more can be remembered. Returns how many, or -errno.
 */
static int signal_each(const struct oomslice_held *held, struct oomslice_processes *processes, int signal,
                       uint32_t serial) {
        struct oomslice_processes round = {}; /* not static: two threads may come here */
        struct signalled known = {};
        uint32_t first_total = 0;
        bool anybody = false;
        int count = 0, r = 0;

        for (int i = 0; i < ROUNDS; i++) {
                round.total = round.count = 0;
                r = oomslice_processes_list(held->procs, &round);
                if (r < 0 && r != -EOPNOTSUPP)
                        break;
                oomslice_processes_list_below(held->directory, &round);
                if (oomslice_processes_untouchable(&round))
                        return count > 0 ? count : -EPERM;
                if (i == 0)
                        *processes = round;
                if (round.skip == 0) {
                        first_total = round.total;
                        anybody = false;
                }
                r = signal_round(held, &round, &known, signal, serial, &anybody);
                if (r > 0)
                        count += r;
                anybody = anybody || r > 0;
                if (round.total > round.skip + OOMSLICE_PROCESSES_MAX)
                        round.skip += OOMSLICE_PROCESSES_MAX;
                else if (signal != SIGKILL && known.count == SIGNALLED_MAX)
                        break;
                else if (anybody || round.total < first_total)
                        round.skip = 0; /* those who ended meanwhile have moved others to the front */
                else
                        break;
        }
        return count > 0 ? count : r;
}

int oomslice_victim_kill_each(const struct oomslice_held *held, struct oomslice_processes *processes,
                              uint32_t serial) {
        int r = signal_each(held, processes, SIGKILL, serial);

        if (r > 0)
                return OOMSLICE_VICTIM_KILLED;
        return r == -ENODEV || r == 0 ? (int)OOMSLICE_VICTIM_GONE : r;
}

int oomslice_victim_list(const struct oomslice_held *held, struct oomslice_processes *processes) {
        int r;

        processes->skip = processes->total = processes->count = 0;
        if (held->procs < 0)
                return -ENOENT;
        r = oomslice_processes_list(held->procs, processes);
        if (r < 0 && r != -EOPNOTSUPP)
                return r;
        oomslice_processes_list_below(held->directory, processes);
        return oomslice_processes_untouchable(processes) ? -EPERM : 0;
}

int oomslice_victim_tell(const struct oomslice_held *held, struct oomslice_processes *processes, int signal) {
        processes->skip = processes->total = processes->count = 0;
        return held->procs < 0 ? -ENOENT : signal_each(held, processes, signal, 0);
}

int oomslice_victim_kill(const struct oomslice_held *held, struct oomslice_processes *processes,
                         uint32_t serial) {
        if (held->kill < 0)
                return oomslice_victim_kill_each(held, processes, serial);
        /* The kernel takes the file's position for no matter, so the descriptor can be written again and again. */
        if (oomslice_file_pwrite(held->kill, "1", 1) == 1)
                return OOMSLICE_VICTIM_KILLED;
        if (errno == ENODEV)
                return OOMSLICE_VICTIM_GONE;
        /* EOPNOTSUPP: a threaded cgroup, whose processes can still be told one by one. */
        return errno == EOPNOTSUPP ? oomslice_victim_kill_each(held, processes, serial) : -errno;
}

void oomslice_victim_reap(const struct oomslice_held *held, struct oomslice_processes *processes,
                          uint32_t serial) {
        /* Killed one by one: that has listed and handed over all. */
        if (held->kill < 0)
                return;
        oomslice_processes_list_below(held->directory, processes);
        for (uint32_t i = 0; i < processes->count; i++) {
                int pidfd = oomslice_pidfd_open(processes->pids[i]);

                /* A pid that was reused meanwhile does no harm: process_mrelease refuses whoever is not dying. */
                if (pidfd >= 0)
                        oomslice_reaper_push(pidfd, serial);
        }
}
