/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns how a thread is made: its stack is part of the program, so that it is small, and locked with the rest. */
#define _GNU_SOURCE
#include "thread.h"

int oomslice_thread_start(pthread_t *threadp, void *stack, size_t size, void *(*function)(void *),
                          void *argument) {
        pthread_attr_t attributes;
        pthread_t thread;
        int r;

        r = pthread_attr_init(&attributes);
        if (r != 0)
                return -r;
        r = pthread_attr_setstack(&attributes, stack, size);
        if (r == 0)
                r = pthread_create(threadp ? threadp : &thread, &attributes, function, argument);
        (void)pthread_attr_destroy(&attributes);
        return -r;
}
