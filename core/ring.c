/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ring: sequence s lives in slot (s - 1) % OOMSLICE_RING_SLOTS, and is taken while tail < s <= head.
 *
 * Promises to the core: the reader is less privileged and can write anywhere in this memory, so nothing read
 * from it is ever used as an index or a size; counters that make no sense look like a full ring, which costs the
 * reader records and the core nothing. Both threads of the core may take slots at the same time. Promises to the reader: a record that is FINAL is complete and stays as
 * it is until it is released. Both may be killed between any two instructions.
 *
 * The counters are plain integers in a mapping that two programs share, hence the compilers' __atomic builtins:
 * same memory model as <stdatomic.h>, without _Atomic in a header that cffi reads.
 */
#include "ring.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "plan.h"

static const char magic[8] = {'O', 'O', 'M', 'S', 'L', 'R', 'N', 'G'};

/* One is enough for two threads, twice; more mean a reader that plays with the counter. */
enum { TAKE_ATTEMPTS = 4 };

enum { AFTER_STATE = offsetof(struct oomslice_record, state) + sizeof(((struct oomslice_record *)0)->state) };

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

_Static_assert(ARRAY_SIZE(((struct oomslice_record *)0)->pids) == OOMSLICE_RECORD_PIDS, "as declared");
_Static_assert(ARRAY_SIZE(((struct oomslice_record *)0)->candidates) == OOMSLICE_RECORD_CANDIDATES,
               "as declared");
_Static_assert(ARRAY_SIZE(((struct oomslice_record *)0)->steps) == OOMSLICE_RECORD_STEPS, "as declared");
_Static_assert((int)OOMSLICE_RECORD_STEPS == (int)OOMSLICE_LADDER_STEPS_MAX, "a whole ladder fits");
_Static_assert(ARRAY_SIZE(((struct oomslice_ring_header *)0)->requests) == OOMSLICE_RING_REQUESTS,
               "as declared");
_Static_assert(ARRAY_SIZE(((struct oomslice_ring_header *)0)->pressed) == OOMSLICE_RING_PRESSED,
               "as declared");
_Static_assert(sizeof(((struct oomslice_request *)0)->text) == OOMSLICE_REQUEST_TEXT, "as declared");
_Static_assert(sizeof(((struct oomslice_record *)0)->domain_name) == OOMSLICE_UNIT_NAME_MAX,
               "a unit name fits");
_Static_assert(sizeof(((struct oomslice_record *)0)->victim_name) == OOMSLICE_UNIT_NAME_MAX,
               "a unit name fits");
_Static_assert(offsetof(struct oomslice_record, sequence) == 0 &&
                       offsetof(struct oomslice_record, state) == sizeof(uint64_t),
               "what is written one by one comes first, and the rest after it");
/* A lock hidden in a library would be lost with the process that held it. */
_Static_assert(__atomic_always_lock_free(sizeof(uint64_t), 0), "64-bit counters are lock-free");

static struct oomslice_record *slot(const void *map, uint64_t sequence) {
        size_t index = (size_t)((sequence - 1) % OOMSLICE_RING_SLOTS);

        return (struct oomslice_record *)((char *)map + OOMSLICE_RING_HEADER_SIZE +
                                          index * OOMSLICE_RECORD_SIZE);
}

/* How many slots are taken; more than there are if the counters make no sense. */
static uint64_t used(uint64_t head, uint64_t tail) {
        return tail <= head ? head - tail : UINT64_MAX;
}

void oomslice_ring_init(void *map, uint64_t ring_id) {
        struct oomslice_ring_header *header = map;

        header->version = OOMSLICE_RING_VERSION;
        header->slots = OOMSLICE_RING_SLOTS;
        header->ring_id = ring_id;
        __atomic_store_n(&header->head, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&header->tail, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&header->dropped, 0, __ATOMIC_RELAXED);
        header->samples_made = header->units_made = 0;
        /* Last, so that a ring whose maker died half way is none. */
        __atomic_thread_fence(__ATOMIC_RELEASE);
        memcpy(header->magic, magic, sizeof(magic));
}

int oomslice_ring_check(const void *map) {
        const struct oomslice_ring_header *header = map;
        uint64_t tail = __atomic_load_n(&header->tail, __ATOMIC_ACQUIRE);
        uint64_t head = __atomic_load_n(&header->head, __ATOMIC_ACQUIRE);

        if (memcmp(header->magic, magic, sizeof(magic)) != 0 || header->version != OOMSLICE_RING_VERSION ||
            header->slots != OOMSLICE_RING_SLOTS || used(head, tail) > OOMSLICE_RING_SLOTS)
                return -EBADMSG;
        return 0;
}

struct oomslice_record *oomslice_ring_take(void *map) {
        struct oomslice_ring_header *header = map;
        uint64_t head = __atomic_load_n(&header->head, __ATOMIC_RELAXED);
        struct oomslice_record *record;

        for (int i = 0; i < TAKE_ATTEMPTS; i++) {
                /* Acquire: the reader is done with the slot before it is cleared here. */
                uint64_t tail = __atomic_load_n(&header->tail, __ATOMIC_ACQUIRE);

                /* Sequences never begin anew: the one after the last of all would be 0. */
                if (used(head, tail) >= OOMSLICE_RING_SLOTS || head == UINT64_MAX)
                        break;
                /* First the slot is ours, then it is cleared: the reader knows it by its sequence. */
                if (!__atomic_compare_exchange_n(&header->head, &head, head + 1, 0, __ATOMIC_ACQ_REL,
                                                 __ATOMIC_RELAXED))
                        continue;
                record = slot(map, head + 1);
                __atomic_store_n(&record->state, OOMSLICE_RECORD_CHOSEN, __ATOMIC_RELAXED);
                memset((char *)record + AFTER_STATE, 0, sizeof(*record) - AFTER_STATE);
                /* Release: whoever sees the sequence sees that the record is not FINAL any more. */
                __atomic_store_n(&record->sequence, head + 1, __ATOMIC_RELEASE);
                return record;
        }
        __atomic_fetch_add(&header->dropped, 1, __ATOMIC_RELAXED);
        return NULL;
}

void oomslice_ring_set_state(struct oomslice_record *record, uint32_t state) {
        __atomic_store_n(&record->state, state, __ATOMIC_RELEASE);
}

uint32_t oomslice_ring_recover(void *map) {
        struct oomslice_ring_header *header = map;
        uint64_t head = __atomic_load_n(&header->head, __ATOMIC_ACQUIRE);
        uint64_t tail = __atomic_load_n(&header->tail, __ATOMIC_ACQUIRE);
        uint32_t recovered = 0;

        for (int i = 0; i < OOMSLICE_RING_REQUESTS; i++)
                __atomic_store_n(&header->requests[i].serial, 0, __ATOMIC_RELEASE); /* asked by the dead */
        if (used(head, tail) > OOMSLICE_RING_SLOTS)
                return 0;
        for (uint64_t i = 1; i <= used(head, tail); i++) {
                struct oomslice_record *record = slot(map, tail + i);

                if (record->sequence != tail + i) {
                        /* Died between the two steps of taking it. */
                        memset(record, 0, sizeof(*record));
                        record->sequence = tail + i;
                } else if (__atomic_load_n(&record->state, __ATOMIC_ACQUIRE) == OOMSLICE_RECORD_FINAL)
                        continue;
                record->outcome = OOMSLICE_OUTCOME_INTERRUPTED;
                oomslice_ring_set_state(record, OOMSLICE_RECORD_FINAL);
                recovered++;
        }
        return recovered;
}

const struct oomslice_record *oomslice_ring_next(const void *map) {
        const struct oomslice_ring_header *header = map;
        uint64_t tail = __atomic_load_n(&header->tail, __ATOMIC_RELAXED); /* the reader is the only writer */
        uint64_t head = __atomic_load_n(&header->head, __ATOMIC_ACQUIRE);
        const struct oomslice_record *record;

        if (head == tail || used(head, tail) > OOMSLICE_RING_SLOTS)
                return NULL;
        record = slot(map, tail + 1);
        /* In this order: the slot may still hold a record of 32 decisions ago, which is FINAL and is not cleared yet.
         * Acquire: the whole record is there once FINAL is. */
        if (__atomic_load_n(&record->sequence, __ATOMIC_ACQUIRE) != tail + 1 ||
            __atomic_load_n(&record->state, __ATOMIC_ACQUIRE) != OOMSLICE_RECORD_FINAL)
                return NULL;
        return record;
}

void oomslice_ring_release(void *map, uint64_t sequence) {
        struct oomslice_ring_header *header = map;
        const struct oomslice_record *record = oomslice_ring_next(map);

        /* Only the one that next() gives: a second release of it, or a skip ahead, changes nothing. */
        if (!record || record->sequence != sequence)
                return;
        /* Release: the record was read before the core may clear it. */
        __atomic_store_n(&header->tail, sequence, __ATOMIC_RELEASE);
}

static struct oomslice_request *find_request(const void *map, uint64_t serial) {
        struct oomslice_ring_header *header = (struct oomslice_ring_header *)map;

        for (int i = 0; i < OOMSLICE_RING_REQUESTS; i++)
                if (__atomic_load_n(&header->requests[i].serial, __ATOMIC_ACQUIRE) == serial)
                        return &header->requests[i];
        return NULL;
}

uint64_t oomslice_ring_ask(void *map, const struct oomslice_request *request) {
        struct oomslice_ring_header *header = map;
        struct oomslice_request *place = find_request(map, 0);
        uint64_t serial;

        if (!place)
                return 0;
        serial = ++header->requests_made;
        *place = *request;
        place->serial = 0;
        place->taken = place->answered = 0;
        /* Release: whoever sees the serial sees the request. */
        __atomic_store_n(&place->serial, serial, __ATOMIC_RELEASE);
        return serial;
}

int oomslice_ring_answered(const void *map, uint64_t serial, uint32_t *resultp, int32_t *errorp) {
        const struct oomslice_request *request = serial == 0 ? NULL : find_request(map, serial);

        if (!request || __atomic_load_n(&request->answered, __ATOMIC_ACQUIRE) != serial)
                return 0;
        *resultp = request->result;
        *errorp = request->error;
        if (*resultp == OOMSLICE_RESULT_PENDING || *resultp > OOMSLICE_RESULT_DRY_RUN)
                *resultp = OOMSLICE_RESULT_FAILED;
        if (*errorp < 0 || *errorp > 4095)
                *errorp = EBADMSG;
        return 1;
}

void oomslice_ring_forget(void *map, uint64_t serial) {
        struct oomslice_request *request = serial == 0 ? NULL : find_request(map, serial);

        if (request)
                __atomic_store_n(&request->serial, 0, __ATOMIC_RELEASE);
}

int oomslice_ring_take_request(void *map, struct oomslice_request *requestp) {
        struct oomslice_ring_header *header = map;
        struct oomslice_request *oldest = NULL;
        uint64_t oldest_serial = 0;

        for (int i = 0; i < OOMSLICE_RING_REQUESTS; i++) {
                struct oomslice_request *request = &header->requests[i];
                uint64_t serial = __atomic_load_n(&request->serial, __ATOMIC_ACQUIRE);

                if (serial == 0 || request->taken == serial || (oldest && serial > oldest_serial))
                        continue;
                oldest = request;
                oldest_serial = serial;
        }
        if (!oldest)
                return 0;
        *requestp = *oldest;
        /* The core may have forgotten it and filled the place anew during the copy. */
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&oldest->serial, __ATOMIC_ACQUIRE) != oldest_serial)
                return 0;
        requestp->serial = oldest_serial;
        requestp->victim[sizeof(requestp->victim) - 1] = requestp->text[sizeof(requestp->text) - 1] = '\0';
        oldest->taken = oldest_serial;
        return 1;
}

void oomslice_ring_answer(void *map, uint64_t serial, uint32_t result, int32_t error) {
        struct oomslice_request *request = serial == 0 ? NULL : find_request(map, serial);

        if (!request)
                return;
        request->result = result;
        request->error = error;
        __atomic_store_n(&request->answered, serial, __ATOMIC_RELEASE);
}
