/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the memory of who was killed lately, by name: systemd gives a unit that it starts anew a new cgroup, so no
 * id tells that it is the same. Names are kept as hashes; two units taken for one would only shorten a ladder.
 */
#include "restarts.h"

#include <stddef.h>
#include <string.h>

#include "hash.h"

enum { NAMES_MAX = 32, TIMES_MAX = 8 };

#define MINUTE_US UINT64_C(60000000)

static struct {
        uint64_t hash;
        uint64_t times_us[TIMES_MAX];
        uint32_t next;
        uint64_t last_us;
} names[NAMES_MAX];

static uint64_t hash_of(const char *name) {
        return oomslice_hash(OOMSLICE_HASH_START, name, strlen(name));
}

void oomslice_restarts_note(const char *name, uint64_t now_us) {
        uint64_t hash = hash_of(name);
        size_t at = 0;

        for (size_t i = 0; i < NAMES_MAX; i++) {
                if (names[i].hash == hash) {
                        at = i;
                        break;
                }
                if (names[i].last_us < names[at].last_us)
                        at = i;
        }
        if (names[at].hash != hash) {
                names[at].hash = hash;
                names[at].next = 0;
                for (size_t i = 0; i < TIMES_MAX; i++)
                        names[at].times_us[i] = 0;
        }
        names[at].times_us[names[at].next++ % TIMES_MAX] = names[at].last_us = now_us;
}

uint32_t oomslice_restarts_count(const char *name, uint64_t now_us) {
        uint64_t hash = hash_of(name);
        uint32_t count = 0;

        for (size_t i = 0; i < NAMES_MAX; i++)
                for (size_t j = 0; names[i].hash == hash && j < TIMES_MAX; j++)
                        if (names[i].times_us[j] != 0 && now_us - names[i].times_us[j] < MINUTE_US)
                                count++;
        return count;
}
