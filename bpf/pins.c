/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns how pins are named and who may open them: DIRECTORY/KIND-NAME, where the kind is link, program or map. */
#define _GNU_SOURCE
#include "pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool oomslice_pins_path(char path[static PATH_MAX], const char *directory, const char *kind,
                        const char *name) {
        return snprintf(path, PATH_MAX, "%s/%s-%s", directory, kind, name) < PATH_MAX;
}

int oomslice_pins_pin(const char *directory, const char *kind, const char *name, int fd, mode_t mode) {
        char path[PATH_MAX];

        if (!oomslice_pins_path(path, directory, kind, name))
                return -ENAMETOOLONG;
        if (bpf_obj_pin(fd, path) < 0 || chmod(path, mode) < 0)
                return -errno;
        return 0;
}

/* Removes all whose names begin so. 0 or -errno of what could not be removed. */
static int remove_all(const char *path, const char *beginning) {
        char child[PATH_MAX];
        struct dirent *entry;
        DIR *directory;
        int r = 0;

        directory = opendir(path);
        if (!directory)
                return errno == ENOENT ? 0 : -errno;
        while ((entry = readdir(directory))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                    strncmp(entry->d_name, beginning, strlen(beginning)) != 0)
                        continue;
                if (snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) >= (int)sizeof(child))
                        r = -ENAMETOOLONG;
                else if (unlink(child) < 0 && errno != ENOENT)
                        r = -errno;
        }
        closedir(directory);
        return r;
}

int oomslice_pins_remove(const char *path) {
        int r = remove_all(path, "");

        if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
                r = -errno;
        return r;
}

int oomslice_pins_remove_kind(const char *directory, const char *kind) {
        char beginning[32];

        snprintf(beginning, sizeof(beginning), "%s-", kind);
        return remove_all(directory, beginning);
}

int oomslice_pins_remove_one(const char *directory, const char *kind, const char *name) {
        char path[PATH_MAX];

        if (!oomslice_pins_path(path, directory, kind, name))
                return -ENAMETOOLONG;
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}
