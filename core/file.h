/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* Reading the kernel's small text files from descriptors that are already open. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* As pread() and pwrite(), without EINTR; known to oomslice_file_is_busy() if the deciding thread calls it. */
ssize_t oomslice_file_pread(int fd, void *data, size_t size, off_t at);
ssize_t oomslice_file_pwrite(int fd, const void *data, size_t size);
/* The calling thread is the deciding one. */
void oomslice_file_decide(void);
/* True if the deciding thread is inside a call with this descriptor: another one would wait behind it. */
bool oomslice_file_is_busy(int fd);
/* Reads from the start of the file; `text` always ends in NUL. Returns bytes read or -errno. */
ssize_t oomslice_file_read(int fd, char *text, size_t size);
/* A file that holds one number. 0 or -errno; "max" is UINT64_MAX. */
int oomslice_file_number(int fd, uint64_t *valuep);
/* Decimal digits from the start of `text` after spaces; stops at anything else, saturates. */
uint64_t oomslice_file_parse_number(const char *text);
/* The value on the line that starts with `key` ("anon", "MemTotal:"). 0 or -ENOENT, *valuep then is untouched. */
int oomslice_file_parse_field(const char *text, const char *key, uint64_t *valuep);
