/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Core and reader as real processes on one ring, killed by SIGKILL wherever they happen to be, again and again. At
 * the end every sequence was stored, in order and each once, and every record that claims to be whole is whole.
 * A third part lets a reader write nonsense all over the ring while the core works.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"
#include "ring.h"

enum { DEATHS = 150 };

static uint64_t seed = 521288629521288629;

/* What a reader has stored: as a database would, in one step and only if it is not there yet. */
struct store {
        uint64_t last; /* highest sequence stored */
};

static void *shared(size_t size) {
        void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        CHECK(map != MAP_FAILED);
        return map;
}

static void fill(struct oomslice_record *record) {
        uint64_t pattern = record->sequence * UINT64_C(0x9e3779b97f4a7c15);

        record->plan_generation = pattern;
        record->candidates_count = OOMSLICE_RECORD_CANDIDATES;
        for (uint32_t i = 0; i < OOMSLICE_RECORD_CANDIDATES; i++)
                record->candidates[i].metric = pattern + i;
        oomslice_ring_set_state(record, OOMSLICE_RECORD_SIGNALLED);
        record->victim_memory_after = pattern;
        record->outcome = OOMSLICE_OUTCOME_FREED;
        oomslice_ring_set_state(record, OOMSLICE_RECORD_FINAL);
}

static void check_whole(const struct oomslice_record *record) {
        uint64_t pattern = record->sequence * UINT64_C(0x9e3779b97f4a7c15);

        CHECK(record->state == OOMSLICE_RECORD_FINAL);
        if (record->outcome == OOMSLICE_OUTCOME_INTERRUPTED)
                return;
        CHECK(record->outcome == OOMSLICE_OUTCOME_FREED);
        CHECK(record->plan_generation == pattern && record->victim_memory_after == pattern);
        for (uint32_t i = 0; i < OOMSLICE_RECORD_CANDIDATES; i++)
                CHECK(record->candidates[i].metric == pattern + i);
}

static int read_one(void *map, struct store *store) {
        const struct oomslice_record *record = oomslice_ring_next(map);

        if (!record)
                return 0;
        check_whole(record);
        if (record->sequence > __atomic_load_n(&store->last, __ATOMIC_RELAXED)) {
                CHECK(record->sequence == store->last + 1);
                __atomic_store_n(&store->last, record->sequence, __ATOMIC_RELAXED);
        } else
                /* Only the one that was stored but not released can come again. */
                CHECK(record->sequence == store->last);
        oomslice_ring_release(map, record->sequence);
        return 1;
}

static void write_for_ever(void *map) {
        for (;;) {
                struct oomslice_record *record = oomslice_ring_take(map);

                if (record)
                        fill(record);
        }
}

static void read_for_ever(void *map, struct store *store) {
        for (;;)
                read_one(map, store);
}

static pid_t start(void *map, struct store *store) {
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid == 0) {
                if (store)
                        read_for_ever(map, store);
                write_for_ever(map);
        }
        return pid;
}

static void kill_somewhere(pid_t pid) {
        usleep(200 + random_below(&seed, 3000));
        CHECK(kill(pid, SIGKILL) == 0);
        CHECK(waitpid(pid, NULL, 0) == pid);
}

static void core_dies(void) {
        struct oomslice_ring_header *map = shared(OOMSLICE_RING_SIZE);
        struct store *store = shared(sizeof(*store));
        uint64_t recovered = 0;

        oomslice_ring_init(map, 1);
        /* On until one has died with a record open: on a busy machine that takes more of them. */
        for (int death = 0; death < DEATHS || (recovered == 0 && death < 50 * DEATHS); death++) {
                pid_t core = start(map, NULL), reader = start(map, store);

                kill_somewhere(core);
                CHECK(oomslice_ring_check(map) == 0);
                recovered += oomslice_ring_recover(map);
                CHECK(oomslice_ring_recover(map) == 0);
                kill_somewhere(reader);
                while (read_one(map, store))
                        continue;
                /* Nothing lost: all that was ever taken is stored. */
                CHECK(store->last == map->head && map->tail == map->head);
        }
        CHECK(store->last > DEATHS);
        /* The test tests something: cores did die with a record open. */
        CHECK(recovered > 0);
        munmap(map, OOMSLICE_RING_SIZE);
        munmap(store, sizeof(*store));
}

static void reader_dies(void) {
        struct oomslice_ring_header *map = shared(OOMSLICE_RING_SIZE);
        struct store *store = shared(sizeof(*store));
        pid_t core;

        oomslice_ring_init(map, 2);
        core = start(map, NULL);
        for (int death = 0; death < DEATHS; death++)
                kill_somewhere(start(map, store));
        kill_somewhere(core);
        oomslice_ring_recover(map);
        while (read_one(map, store))
                continue;
        CHECK(store->last == map->head && map->tail == map->head);
        CHECK(store->last > DEATHS);
        munmap(map, OOMSLICE_RING_SIZE);
        munmap(store, sizeof(*store));
}

/* Head and tail jump, slots change under the core's hands; the sanitizers say if it ever looks outside. */
static void reader_is_hostile(void) {
        static const uint64_t jumps[] = {0, 1, 31, 32, 33, UINT64_MAX - 32, UINT64_MAX - 1, UINT64_MAX};
        struct oomslice_ring_header *map = malloc(OOMSLICE_RING_SIZE);
        uint64_t *words = (uint64_t *)map;

        memset(map, 0, OOMSLICE_RING_SIZE);
        oomslice_ring_init(map, 3);
        for (int round = 0; round < 200000; round++) {
                const struct oomslice_record *next;
                struct oomslice_record *record;

                switch (random_below(&seed, 6)) {
                case 0:
                        map->tail = jumps[random_below(&seed, 8)];
                        break;
                case 1:
                        map->head = jumps[random_below(&seed, 8)];
                        break;
                case 2:
                        map->tail = map->head - random_below(&seed, 40);
                        break;
                case 3:
                        map->tail = random_next(&seed);
                        break;
                case 4:
                        words[random_below(&seed, OOMSLICE_RING_SIZE / 8)] = random_next(&seed);
                        break;
                default:
                        break;
                }
                record = oomslice_ring_take(map);
                if (record) {
                        CHECK((char *)record >= (char *)map + OOMSLICE_RING_HEADER_SIZE);
                        CHECK((char *)record <= (char *)map + OOMSLICE_RING_SIZE - OOMSLICE_RECORD_SIZE);
                        CHECK(record->sequence > 0 && record->sequence == map->head);
                        fill(record);
                }
                CHECK(oomslice_ring_recover(map) <= OOMSLICE_RING_SLOTS);
                next = oomslice_ring_next(map);
                if (next) {
                        CHECK(next->sequence == map->tail + 1 && next->state == OOMSLICE_RECORD_FINAL);
                        oomslice_ring_release(map, next->sequence);
                }
                oomslice_ring_release(map, random_next(&seed));
        }
        free(map);
}

int main(void) {
        core_dies();
        reader_dies();
        reader_is_hostile();
        return 0;
}
