/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* The memfd that holds the ring. */

/* Maps a ring that a predecessor left, finishing what it left open. 0, or -errno: no ring of ours, or broken. */
int oomslice_ringfd_recover(int fd, void **mapp);
/* Makes a new one. Returns the memfd or -errno. */
int oomslice_ringfd_new(void **mapp);
