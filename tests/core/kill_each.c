/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Kills the cgroup whose directory is given, without cgroup.kill, or tells it to end. For test_core_kill.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "reaper.h"
#include "victim.h"

int main(int count, char **arguments) {
        static struct oomslice_processes processes;
        struct oomslice_held held;
        int directory, r;

        if (count != 3 || oomslice_reaper_start() < 0)
                return 2;
        directory = open(arguments[1], O_RDONLY | O_DIRECTORY);
        if (oomslice_held_open(&held, directory, true) < 0)
                return 2;
        close(held.kill);
        held.kill = -1;
        /* "end": who is only asked to; "go on": what nobody dies of. */
        if (strcmp(arguments[2], "end") == 0 || strcmp(arguments[2], "go on") == 0) {
                r = oomslice_victim_tell(&held, &processes, arguments[2][0] == 'e' ? SIGTERM : SIGCONT);
                printf("told %d\n", r);
                return 0;
        }
        /* "join": this program is itself in the cgroup, which it then must not touch. */
        if (strcmp(arguments[2], "join") == 0) {
                int procs = openat(held.directory, "cgroup.procs", O_WRONLY);

                if (write(procs, "0", 1) != 1)
                        return 2;
        }
        r = oomslice_victim_check(&held, &processes);
        printf("check %d processes %u\n", r, processes.total);
        r = oomslice_victim_kill(&held, &processes, 1);
        printf("kill %d processes %u\n", r, processes.total);
        return 0;
}
