/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the directory of the kept policy. It lies in /etc: it is what the administrator wants of this machine, it has to be
 * there before any other file system, and oomslice-bpf.service need not be able to write there. One file in it is the
 * policy, whatever its name; what begins with a dot is not looked at. What somebody else than root can write is never used:
 * it would be loaded into the kernel.
 */
#define _GNU_SOURCE
#include "kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIRECTORY_MODE = 0755, FILE_MODE = 0644 };

static const char new_file[] = ".new";

static bool join(char path[static PATH_MAX], const char *directory, const char *name) {
        return snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX;
}

static bool is_ours(const char *path, char why[static OOMSLICE_WHY_MAX]) {
        struct stat st;

        if (stat(path, &st) < 0)
                return oomslice_refuse_step(why, "looking at", path, errno);
        if ((st.st_uid != 0 && st.st_uid != geteuid()) || st.st_mode & (S_IWGRP | S_IWOTH))
                return oomslice_refuse(why, "%s can be written by others than root", path);
        return true;
}

enum oomslice_kept oomslice_kept_find(const char *directory, char path[static PATH_MAX],
                                      char why[static OOMSLICE_WHY_MAX]) {
        enum oomslice_kept found = OOMSLICE_KEPT_NONE;
        struct dirent *entry;
        DIR *listing;

        snprintf(path, PATH_MAX, "%s", directory);
        listing = opendir(directory);
        if (!listing && errno == ENOENT)
                return OOMSLICE_KEPT_NONE;
        if (!listing) {
                oomslice_refuse_step(why, "looking at", directory, errno);
                return OOMSLICE_KEPT_BAD;
        }
        while (found != OOMSLICE_KEPT_BAD && (entry = readdir(listing))) {
                if (entry->d_name[0] == '.')
                        continue;
                if (found == OOMSLICE_KEPT_ONE) {
                        oomslice_refuse(why, "there is more than one file in %s", directory);
                        found = OOMSLICE_KEPT_BAD;
                } else if (!join(path, directory, entry->d_name)) {
                        oomslice_refuse_step(why, "looking at", directory, ENAMETOOLONG);
                        found = OOMSLICE_KEPT_BAD;
                } else
                        found = OOMSLICE_KEPT_ONE;
        }
        closedir(listing);
        if (found == OOMSLICE_KEPT_ONE && !(is_ours(directory, why) && is_ours(path, why)))
                found = OOMSLICE_KEPT_BAD;
        return found;
}

/* Such that a machine that fails has the old one or the new one. */
static bool write_all(const char *path, const struct oomslice_policy_file *file) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
        bool done = fd >= 0 && fchmod(fd, FILE_MODE) == 0;

        for (size_t at = 0; done && at < file->size;) {
                ssize_t written = write(fd, file->bytes + at, file->size - at);

                done = written > 0;
                at += done ? (size_t)written : 0;
        }
        done = done && fsync(fd) == 0;
        return (fd < 0 || close(fd) == 0) && done;
}

bool oomslice_kept_write(const char *directory, const struct oomslice_policy_file *file,
                         char why[static OOMSLICE_WHY_MAX]) {
        char path[PATH_MAX];

        if (file->name[0] == '.')
                return oomslice_refuse(why, "a name that begins with a dot cannot be kept");
        if (!join(path, directory, new_file))
                return oomslice_refuse_step(why, "keeping it in", directory, ENAMETOOLONG);
        /* Whatever the umask is. */
        if (mkdir(directory, DIRECTORY_MODE) == 0 ? chmod(directory, DIRECTORY_MODE) < 0 : errno != EEXIST)
                return oomslice_refuse_step(why, "keeping it in", directory, errno);
        if (write_all(path, file))
                return true;
        oomslice_refuse_step(why, "keeping it in", directory, errno);
        unlink(path);
        return false;
}

/* All but the one of that name; NULL: all. 0 or errno. */
static int remove_others(const char *directory, const char *name) {
        char path[PATH_MAX];
        struct dirent *entry;
        int error = 0;
        DIR *listing;

        listing = opendir(directory);
        if (!listing)
                return errno == ENOENT ? 0 : errno;
        while ((entry = readdir(listing))) {
                if ((entry->d_name[0] == '.' && strcmp(entry->d_name, new_file) != 0) ||
                    (name && strcmp(entry->d_name, name) == 0))
                        continue;
                if (!join(path, directory, entry->d_name))
                        error = ENAMETOOLONG;
                else if (unlink(path) < 0 && errno != ENOENT)
                        error = errno;
        }
        closedir(listing);
        return error;
}

bool oomslice_kept_replace(const char *directory, const struct oomslice_policy_file *file,
                           char why[static OOMSLICE_WHY_MAX]) {
        char from[PATH_MAX], to[PATH_MAX];
        int error;

        if (!join(from, directory, new_file) || !join(to, directory, file->name))
                return oomslice_refuse_step(why, "keeping it in", directory, ENAMETOOLONG);
        if (rename(from, to) < 0)
                return oomslice_refuse_step(why, "keeping it in", directory, errno);
        error = remove_others(directory, file->name);
        return error == 0 || oomslice_refuse_step(why, "keeping it in", directory, error);
}

void oomslice_kept_forget(const char *directory) {
        char path[PATH_MAX];

        if (join(path, directory, new_file) && unlink(path) == 0)
                rmdir(directory); /* if nothing was kept before */
}

bool oomslice_kept_remove(const char *directory, char why[static OOMSLICE_WHY_MAX]) {
        int error = remove_others(directory, NULL);

        if (error == 0 && rmdir(directory) < 0 && errno != ENOENT && errno != ENOTEMPTY)
                error = errno;
        return error == 0 || oomslice_refuse_step(why, "removing what is kept in", directory, error);
}
