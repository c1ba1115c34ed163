/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Identity of a cgroup, and the two ways to get hold of one: by path elsewhere, by id here. */
#include <stdint.h>

/* cffi: begin */
/* Writes 1 to cgroup.kill: SIGKILL to every process in the cgroup and below. 0 or -errno; ENOENT: kernel < 5.14
 * or a root cgroup; ENODEV: removed. */
int oomslice_cgroup_kill(int cgroup_fd);
/* The id of a cgroup v2 directory (its inode). 0 or -errno; ENOTSUP: not on cgroup v2; ENOTDIR: a file of one. */
int oomslice_cgroup_id(int cgroup_fd, uint64_t *idp);
/* Opens the cgroup with this id; `root_fd` is any directory of the cgroup2 mount. Returns a descriptor of the
 * directory or -errno; ESTALE: there is no such cgroup (ids are never reused while the machine is up); EPERM:
 * needs CAP_DAC_READ_SEARCH. */
int oomslice_cgroup_open_by_id(int root_fd, uint64_t id);
/* cffi: end */
