/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
#include <stdbool.h>

/* Says whom the programs in the kernel would choose now below a cgroup, and how long that takes if it is to run `runs` times.
 * The exit status of the command. */
int oomslice_choose(const char *pins, const char *cgroup, bool json, unsigned long runs);
