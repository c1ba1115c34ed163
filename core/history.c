/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The history: entry n, counted from 0, is at n modulo the number of places, and is there once the count says so. The
 * place of the next entry may be half written, so a reader takes one entry less than there are places, and leaves out
 * what the count has run over while it copied. As in ring.c the reader can write here, so the count is only ever used
 * modulo the number of places.
 */
#include "history.h"

#include <stddef.h>
#include <string.h>

/* What both kinds of entries begin with. */
struct entry {
        uint64_t at_us;
};

_Static_assert(offsetof(struct oomslice_history_sample, at_us) == 0, "an entry");
_Static_assert(offsetof(struct oomslice_history_unit, at_us) == 0, "an entry");

/* One of the two rings. */
struct kind {
        size_t offset, size; /* in the map; of an entry */
        uint64_t places;
        size_t made; /* offset of the count in the header */
};

static const struct kind samples_kind = {
        .offset = OOMSLICE_HISTORY_OFFSET,
        .size = sizeof(struct oomslice_history_sample),
        .places = OOMSLICE_HISTORY_SAMPLES,
        .made = offsetof(struct oomslice_ring_header, samples_made),
};

static const struct kind units_kind = {
        .offset = OOMSLICE_HISTORY_OFFSET + OOMSLICE_HISTORY_SAMPLES * sizeof(struct oomslice_history_sample),
        .size = sizeof(struct oomslice_history_unit),
        .places = OOMSLICE_HISTORY_UNITS,
        .made = offsetof(struct oomslice_ring_header, units_made),
};

static uint64_t *count_of(const void *map, const struct kind *kind) {
        return (uint64_t *)((char *)map + kind->made);
}

static char *place_of(const void *map, const struct kind *kind, uint64_t number) {
        return (char *)map + kind->offset + (size_t)(number % kind->places) * kind->size;
}

static void add(void *map, const struct kind *kind, const void *entry) {
        uint64_t made = __atomic_load_n(count_of(map, kind), __ATOMIC_RELAXED);

        memcpy(place_of(map, kind, made), entry, kind->size);
        /* Release: whoever sees the count sees the entry. */
        __atomic_store_n(count_of(map, kind), made + 1, __ATOMIC_RELEASE);
}

static uint32_t copy(const void *map, const struct kind *kind, uint64_t since_us, char *out) {
        uint64_t made = __atomic_load_n(count_of(map, kind), __ATOMIC_ACQUIRE), now;
        uint64_t number = made >= kind->places ? made - kind->places + 1 : 0, first, lost;
        uint32_t copied = 0;

        while (number < made && ((const struct entry *)(void *)place_of(map, kind, number))->at_us < since_us)
                number++;
        for (first = number; number < made; number++, copied++)
                memcpy(out + copied * kind->size, place_of(map, kind, number), kind->size);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        now = __atomic_load_n(count_of(map, kind), __ATOMIC_ACQUIRE);
        if (now < first + kind->places)
                return copied;
        lost = now - first - kind->places + 1;
        if (lost >= copied)
                return 0;
        memmove(out, out + lost * kind->size, (copied - lost) * kind->size);
        return copied - (uint32_t)lost;
}

void oomslice_history_add_sample(void *map, const struct oomslice_history_sample *sample) {
        add(map, &samples_kind, sample);
}

void oomslice_history_add_unit(void *map, const struct oomslice_history_unit *unit) {
        add(map, &units_kind, unit);
}

uint32_t oomslice_history_samples(const void *map, uint64_t since_us,
                                  struct oomslice_history_sample *samples) {
        return copy(map, &samples_kind, since_us, (char *)samples);
}

uint32_t oomslice_history_units(const void *map, uint64_t since_us, struct oomslice_history_unit *units) {
        return copy(map, &units_kind, since_us, (char *)units);
}
