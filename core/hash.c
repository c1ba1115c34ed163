/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the one hash there is: against damage and for names, not against anybody. */
#include "hash.h"

uint64_t oomslice_hash(uint64_t hash, const void *data, size_t size) {
        const unsigned char *bytes = data;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
        return hash;
}
