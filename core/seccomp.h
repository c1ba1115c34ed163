/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the core may still ask of the kernel once it is armed. */

/* From now on, for all threads, only the list in seccomp.c; anything else fails with EPERM. 0 or -errno; -ENOTSUP:
 * not on this architecture, or a build that needs more than the core does. */
int oomslice_seccomp_install(void);
