/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns a reader's view of a BPF ring buffer (kernel/bpf/ringbuf.c): the position up to which everything was released,
 * which lies in memory shared with the kernel and so outlives any reader, and the one up to which this reader has
 * looked. What was looked at and not released comes again, to this reader or the next.
 */
#define _GNU_SOURCE
#include "bpfring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

int oomslice_bpfring_map(struct oomslice_bpfring *ring, int fd, uint32_t size) {
        void *consumer, *producer;
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        int r;

        if (size == 0 || (size & (size - 1)) != 0)
                return -EINVAL;
        consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (consumer == MAP_FAILED)
                return -errno;
        /* The data are mapped twice in a row, so that no record is torn at the end. */
        producer = mmap(NULL, page + 2 * (size_t)size, PROT_READ, MAP_SHARED, fd, (off_t)page);
        if (producer == MAP_FAILED) {
                r = -errno;
                munmap(consumer, page);
                return r;
        }
        *ring = (struct oomslice_bpfring){
                .consumer = consumer,
                .producer = producer,
                .data = (const unsigned char *)producer + page,
                .mask = size - 1,
                .page = page,
        };
        oomslice_bpfring_rewind(ring);
        return 0;
}

void oomslice_bpfring_unmap(struct oomslice_bpfring *ring) {
        munmap(ring->consumer, ring->page);
        munmap((void *)ring->producer, ring->page + 2 * (ring->mask + 1));
}

int oomslice_bpfring_next(struct oomslice_bpfring *ring, const void **recordp, uint32_t *sizep) {
        for (;;) {
                const unsigned char *header;
                uint64_t produced, step;
                uint32_t length;

                produced = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
                if (ring->position >= produced)
                        return 0;
                header = ring->data + (ring->position & ring->mask);
                length = __atomic_load_n((const uint32_t *)header, __ATOMIC_ACQUIRE);
                if (length & BPF_RINGBUF_BUSY_BIT)
                        return 0;
                step = (length & ~(uint32_t)BPF_RINGBUF_DISCARD_BIT) + BPF_RINGBUF_HDR_SZ;
                step = (step + 7) & ~(uint64_t)7;
                if (step > ring->mask + 1 || ring->position + step > produced)
                        return -EBADMSG;
                ring->position += step;
                if (length & BPF_RINGBUF_DISCARD_BIT)
                        continue;
                *recordp = header + BPF_RINGBUF_HDR_SZ;
                *sizep = length;
                return 1;
        }
}

void oomslice_bpfring_rewind(struct oomslice_bpfring *ring) {
        ring->position = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
}

void oomslice_bpfring_release(struct oomslice_bpfring *ring, uint64_t position) {
        __atomic_store_n(ring->consumer, position, __ATOMIC_RELEASE);
}
