/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns a reader's view of a BPF ring buffer (kernel/bpf/ringbuf.c): the position up to which everything was released,
 * which lies in memory shared with the kernel and so outlives any reader, and the one up to which this reader has
 * looked. What was looked at and not released comes again, to this reader or the next.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fact.h"
#include "pinned.h"

struct oomslice_facts {
        uint64_t *consumer;
        const uint64_t *producer;
        const unsigned char *data;
        uint64_t mask;
        uint64_t position;
        size_t page;
};

struct oomslice_facts *oomslice_facts_new(int fd) {
        uint32_t type, entries;
        int r;

        r = oomslice_pinned_info(fd, &type, &entries);
        if (r < 0) {
                errno = -r;
                return NULL;
        }
        if (type != BPF_MAP_TYPE_RINGBUF) {
                errno = EINVAL;
                return NULL;
        }
        return oomslice_facts_map(fd, entries);
}

struct oomslice_facts *oomslice_facts_map(int fd, uint32_t size) {
        struct oomslice_facts *facts;
        void *consumer, *producer;
        size_t page = (size_t)sysconf(_SC_PAGESIZE);

        if (size == 0 || (size & (size - 1)) != 0) {
                errno = EINVAL;
                return NULL;
        }
        facts = calloc(1, sizeof(*facts));
        if (!facts)
                return NULL;
        consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (consumer == MAP_FAILED)
                goto fail;
        /* The data are mapped twice in a row, so that no record is torn at the end. */
        producer = mmap(NULL, page + 2 * (size_t)size, PROT_READ, MAP_SHARED, fd, (off_t)page);
        if (producer == MAP_FAILED) {
                munmap(consumer, page);
                goto fail;
        }
        facts->consumer = consumer;
        facts->producer = producer;
        facts->data = (const unsigned char *)producer + page;
        facts->mask = size - 1;
        facts->page = page;
        oomslice_facts_rewind(facts);
        return facts;
fail:
        free(facts);
        return NULL;
}

void oomslice_facts_free(struct oomslice_facts *facts) {
        if (!facts)
                return;
        munmap(facts->consumer, facts->page);
        munmap((void *)facts->producer, facts->page + 2 * (facts->mask + 1));
        free(facts);
}

int oomslice_facts_next(struct oomslice_facts *facts, const void **recordp, uint32_t *sizep) {
        for (;;) {
                const unsigned char *header;
                uint64_t produced, step;
                uint32_t length;

                produced = __atomic_load_n(facts->producer, __ATOMIC_ACQUIRE);
                if (facts->position >= produced)
                        return 0;
                header = facts->data + (facts->position & facts->mask);
                length = __atomic_load_n((const uint32_t *)header, __ATOMIC_ACQUIRE);
                if (length & BPF_RINGBUF_BUSY_BIT)
                        return 0;
                step = (length & ~(uint32_t)BPF_RINGBUF_DISCARD_BIT) + BPF_RINGBUF_HDR_SZ;
                step = (step + 7) & ~(uint64_t)7;
                if (step > facts->mask + 1 || facts->position + step > produced)
                        return -EBADMSG;
                facts->position += step;
                if (length & BPF_RINGBUF_DISCARD_BIT)
                        continue;
                *recordp = header + BPF_RINGBUF_HDR_SZ;
                *sizep = length;
                return 1;
        }
}

void oomslice_facts_rewind(struct oomslice_facts *facts) {
        facts->position = __atomic_load_n(facts->consumer, __ATOMIC_ACQUIRE);
}

void oomslice_facts_release(struct oomslice_facts *facts, uint64_t position) {
        __atomic_store_n(facts->consumer, position, __ATOMIC_RELEASE);
}

uint64_t oomslice_facts_position(const struct oomslice_facts *facts) {
        return facts->position;
}
