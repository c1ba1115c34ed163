/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The command line. */
#include <stdbool.h>

struct oomslice_options {
        const char *socket;      /* where to listen if systemd handed over no socket */
        const char *cgroup_root; /* a directory of the cgroup v2 mount */
        const char *proc_root;
        const char *sys_root;
        const char *undo; /* what was done to units and has to be undone is written down here */
        bool dry_run;
        bool release; /* only undo what a core that has ended left behind */
};

/* 0: go on; 1: all is said and done (--help, --version); -EINVAL: a mistake, which has been said. */
int oomslice_options_parse(int count, char **arguments, struct oomslice_options *optionsp);
/* Writes a line to standard error: "oomslice-core: WHAT: reason of error". For the start only. */
void oomslice_options_complain(const char *what, int error);
