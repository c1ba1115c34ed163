/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linked into a test build of oomslice-core with --wrap: once the core is armed, whoever calls the allocator, its own
 * code or the C library's, ends the program with status 99.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

extern volatile bool oomslice_armed;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *old);

static void check(void) {
        static const char text[] = "the heap was used after the core was armed\n";

        if (!oomslice_armed)
                return;
        (void)!write(2, text, sizeof(text) - 1);
        _exit(99);
}

void *__wrap_malloc(size_t size) {
        check();
        return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
        check();
        return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size) {
        check();
        return __real_realloc(old, size);
}

void __wrap_free(void *old) {
        check();
        __real_free(old);
}
