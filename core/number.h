/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A number as the kernel's files want it, without printf. */
#include <stddef.h>
#include <stdint.h>

enum { OOMSLICE_NUMBER_SIZE = 24 };

/* Writes `value` in decimal, UINT64_MAX as "max", and a NUL. Returns the length without it. */
size_t oomslice_number_format(char text[static OOMSLICE_NUMBER_SIZE], uint64_t value);
