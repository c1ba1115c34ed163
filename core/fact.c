/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns a reader of facts for the Python module: a ring buffer (bpfring.c) on the heap, and the check that what was pinned
 * is one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>

#include "bpfring.h"
#include "fact.h"
#include "pinned.h"

struct oomslice_facts {
        struct oomslice_bpfring ring;
};

struct oomslice_facts *oomslice_facts_new(int fd) {
        struct oomslice_pinned_map map;
        int r = oomslice_pinned_map(fd, &map);

        if (r < 0) {
                errno = -r;
                return NULL;
        }
        if (map.type != BPF_MAP_TYPE_RINGBUF) {
                errno = EINVAL;
                return NULL;
        }
        return oomslice_facts_map(fd, map.entries);
}

struct oomslice_facts *oomslice_facts_map(int fd, uint32_t size) {
        struct oomslice_facts *facts;
        int r;

        facts = calloc(1, sizeof(*facts));
        if (!facts)
                return NULL;
        r = oomslice_bpfring_map(&facts->ring, fd, size);
        if (r < 0) {
                free(facts);
                errno = -r;
                return NULL;
        }
        return facts;
}

void oomslice_facts_free(struct oomslice_facts *facts) {
        if (!facts)
                return;
        oomslice_bpfring_unmap(&facts->ring);
        free(facts);
}

int oomslice_facts_next(struct oomslice_facts *facts, const void **recordp, uint32_t *sizep) {
        return oomslice_bpfring_next(&facts->ring, recordp, sizep);
}

void oomslice_facts_rewind(struct oomslice_facts *facts) {
        oomslice_bpfring_rewind(&facts->ring);
}

void oomslice_facts_release(struct oomslice_facts *facts, uint64_t position) {
        oomslice_bpfring_release(&facts->ring, position);
}

uint64_t oomslice_facts_position(const struct oomslice_facts *facts) {
        return facts->ring.position;
}
