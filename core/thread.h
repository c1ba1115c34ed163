/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* A thread on a stack that is there already. */
#include <pthread.h>
#include <stddef.h>

/* Starts it; `threadp` may be NULL if nobody asks for it again. 0 or -errno. */
int oomslice_thread_start(pthread_t *threadp, void *stack, size_t size, void *(*function)(void *),
                          void *argument);
