/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reapers' threads: of normal priority, of real-time priority while they have to hurry, and of normal priority
 * again. A machine that grants nobody a real-time priority keeps them as they are.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "program.h"
#include "reaper.h"

/* How many of the other threads have this policy and priority. */
static int count(int policy, int priority) {
        DIR *tasks = opendir("/proc/self/task");
        const struct dirent *entry;
        int found = 0;

        CHECK(tasks);
        while ((entry = readdir(tasks))) {
                struct sched_param has;
                int tid = atoi(entry->d_name);

                if (tid > 0 && tid != getpid() && sched_getparam(tid, &has) == 0)
                        found += sched_getscheduler(tid) == policy && has.sched_priority == priority;
        }
        closedir(tasks);
        return found;
}

int main(void) {
        const struct sched_param first = {.sched_priority = OOMSLICE_REAPER_HURRIED};
        int granted = sched_setscheduler(0, SCHED_FIFO, &first) == 0;

        CHECK(sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0}) == 0);
        CHECK(oomslice_reaper_start() == 0);
        CHECK(count(SCHED_OTHER, 0) == OOMSLICE_REAPER_THREADS);
        for (int i = 0; i < 2; i++) {
                oomslice_reaper_hurry(true);
                CHECK(count(granted ? SCHED_FIFO : SCHED_OTHER, granted ? OOMSLICE_REAPER_HURRIED : 0) ==
                      OOMSLICE_REAPER_THREADS);
                oomslice_reaper_hurry(false);
                CHECK(count(SCHED_OTHER, 0) == OOMSLICE_REAPER_THREADS);
        }
        return 0;
}
