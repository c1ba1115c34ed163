/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what the core knows of the BPF programs: which maps it shares with them now. They come from oomsliced, which
 * sees when oomslice-bpf.service starts and stops, and are kept like the plan: a successor must be able to say that it
 * lives, and be woken, whoever else is gone. Those that are kept too long are of programs that nobody runs any more.
 *
 * Never looks for them itself, and loads nothing.
 */
#define _GNU_SOURCE
#include "programs.h"

#include <errno.h>
#include <unistd.h>

#include "pulse.h"
#include "signs.h"

static void drop(void) {
        oomslice_signs_drop();
        oomslice_pulse_drop();
}

/* Both or none: a program that asks must be heard by whom it is answered. */
static int take(int pulse_fd, int signs_fd) {
        int r;

        r = oomslice_pulse_take(pulse_fd);
        if (r < 0)
                return r;
        r = oomslice_signs_take(signs_fd);
        if (r < 0)
                drop();
        return r;
}

int oomslice_programs_take(const int *fds, uint32_t fds_count) {
        int r = 0;

        if (fds_count != 0 && fds_count != 2)
                return -EINVAL;
        if (fds_count == 2)
                r = take(fds[0], fds[1]);
        else
                drop();
        if (fds_count == 2 && r == 0) {
                /* Else, if the manager hangs, a successor waits for oomsliced. */
                (void)oomslice_notify_store("pulse", fds[0]);
                (void)oomslice_notify_store("signs", fds[1]);
        } else if (!oomslice_pulse_is_there()) {
                /* Else a successor has maps without programs. */
                (void)oomslice_notify_remove("pulse");
                (void)oomslice_notify_remove("signs");
        }
        return r;
}

int oomslice_programs_restore(const struct oomslice_inherited *inherited) {
        int r = 0;

        if (inherited->pulse >= 0 && inherited->signs >= 0)
                r = take(inherited->pulse, inherited->signs);
        if (inherited->pulse >= 0)
                close(inherited->pulse);
        if (inherited->signs >= 0)
                close(inherited->signs);
        return r;
}
