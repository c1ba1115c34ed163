/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* FNV-1a, 64 bits. */
#include <stddef.h>
#include <stdint.h>

#define OOMSLICE_HASH_START UINT64_C(0xcbf29ce484222325)

/* The hash of what gave `hash` before (OOMSLICE_HASH_START: of nothing), followed by this. */
uint64_t oomslice_hash(uint64_t hash, const void *data, size_t size);
