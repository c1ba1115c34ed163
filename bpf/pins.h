/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

enum {
        OOMSLICE_PINS_DIRECTORY_MODE = 0750,
        OOMSLICE_PINS_MAP_MODE = 0660,
        OOMSLICE_PINS_PROGRAM_MODE = 0640,
        OOMSLICE_PINS_LINK_MODE = 0600,
};

/* False: too long. */
bool oomslice_pins_path(char path[static PATH_MAX], const char *directory, const char *kind,
                        const char *name);
/* 0 or -errno. */
int oomslice_pins_pin(const char *directory, const char *kind, const char *name, int fd, mode_t mode);
/* Removes a directory with all pins in it; it need not exist. 0 or -errno. */
int oomslice_pins_remove(const char *path);
/* Removes those of one kind, or one, which need not exist. 0 or -errno. */
int oomslice_pins_remove_kind(const char *directory, const char *kind);
int oomslice_pins_remove_one(const char *directory, const char *kind, const char *name);
