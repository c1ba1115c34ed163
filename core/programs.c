/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what the core knows of the BPF programs: which maps it shares with them now. They come from oomsliced, which
 * sees when oomslice-bpf.service starts and stops, and are kept like the plan: a successor must be able to say that it
 * lives, whoever else is gone. One that is kept too long is a map of programs that nobody runs any more.
 *
 * Never looks for them itself, and loads nothing.
 */
#define _GNU_SOURCE
#include "programs.h"

#include <errno.h>
#include <unistd.h>

#include "pulse.h"

int oomslice_programs_take(const int *fds, uint32_t fds_count) {
        int r;

        if (fds_count > 1)
                return -EINVAL;
        if (fds_count == 0) {
                oomslice_pulse_drop();
                (void)oomslice_notify_remove("pulse"); /* else a successor has a map without programs */
                return 0;
        }
        r = oomslice_pulse_take(fds[0]);
        if (r == 0)
                (void)oomslice_notify_store("pulse", fds[0]); /* else a successor waits for oomsliced */
        return r;
}

int oomslice_programs_restore(const struct oomslice_inherited *inherited) {
        int r;

        if (inherited->pulse < 0)
                return 0;
        r = oomslice_pulse_take(inherited->pulse);
        close(inherited->pulse);
        return r;
}
