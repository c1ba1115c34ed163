/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns the way from a number to its digits: printf would allocate. */
#include "number.h"

#include <string.h>

size_t oomslice_number_format(char text[static OOMSLICE_NUMBER_SIZE], uint64_t value) {
        char digits[OOMSLICE_NUMBER_SIZE];
        size_t count = 0;

        if (value == UINT64_MAX) {
                memcpy(text, "max", 4);
                return 3;
        }
        do {
                digits[count++] = (char)('0' + value % 10);
                value /= 10;
        } while (value > 0);
        for (size_t i = 0; i < count; i++)
                text[i] = digits[count - 1 - i];
        text[count] = '\0';
        return count;
}
