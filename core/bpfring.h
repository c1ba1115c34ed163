/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A reader's view of a BPF ring buffer. */
#include <stddef.h>
#include <stdint.h>

struct oomslice_bpfring {
        uint64_t *consumer;
        const uint64_t *producer;
        const unsigned char *data;
        uint64_t mask;
        uint64_t position; /* where the record after the last one returned begins */
        size_t page;
};

/* Maps a ring buffer of `size` bytes of data, or any file with that layout. 0 or -errno. */
int oomslice_bpfring_map(struct oomslice_bpfring *ring, int fd, uint32_t size);
void oomslice_bpfring_unmap(struct oomslice_bpfring *ring);
/* The next record and its size. 1; 0: there is no more for now; -EBADMSG: what is there cannot be records. */
int oomslice_bpfring_next(struct oomslice_bpfring *ring, const void **recordp, uint32_t *sizep);
/* From the first one that was not released on again. */
void oomslice_bpfring_rewind(struct oomslice_bpfring *ring);
/* Gives the room of all records before `position` back to the kernel. */
void oomslice_bpfring_release(struct oomslice_bpfring *ring, uint64_t position);
