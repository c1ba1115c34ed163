/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the lists of processes. A pid in such a list is a number and no more: it is good for the record and for
 * asking a pidfd, never for a signal.
 */
#define _GNU_SOURCE
#include "processes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

static void append(struct oomslice_processes *processes, int32_t pid) {
        /* The kernel shows processes of an outer PID namespace as 0: they cannot be named from here. */
        processes->total++;
        if (processes->total > processes->skip && pid > 0 && processes->count < OOMSLICE_PROCESSES_MAX)
                processes->pids[processes->count++] = pid;
}

int oomslice_processes_list(int procs_fd, struct oomslice_processes *processes) {
        char text[2048];
        off_t at = 0;
        int32_t pid = 0;
        bool digits = false;

        for (;;) {
                ssize_t n = oomslice_file_pread(procs_fd, text, sizeof(text), at);

                if (n < 0)
                        return -errno;
                if (n == 0)
                        return 0;
                at += n;
                /* A number may go on in the next chunk, so it ends only at its newline. */
                for (ssize_t i = 0; i < n; i++)
                        if (text[i] >= '0' && text[i] <= '9' && pid < INT32_MAX / 10) {
                                pid = pid * 10 + (text[i] - '0');
                                digits = true;
                        } else if (digits) {
                                append(processes, pid);
                                pid = 0;
                                digits = false;
                        }
        }
}

static void list_directory(int directory, uint32_t depth, uint32_t *leftp,
                           struct oomslice_processes *processes);

static void list_child(int parent, const char *name, uint32_t depth, uint32_t *leftp,
                       struct oomslice_processes *processes) {
        int directory, procs;

        directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (directory < 0)
                return;
        procs = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        if (procs >= 0) {
                (void)oomslice_processes_list(procs, processes);
                close(procs);
        }
        list_directory(directory, depth, leftp, processes);
        close(directory);
}

static void list_directory(int directory, uint32_t depth, uint32_t *leftp,
                           struct oomslice_processes *processes) {
        /* On the stack: two threads may list, and an outer directory is still being read while an inner one is. */
        _Alignas(struct dirent64) char buffer[1024];
        struct stat status;

        /* A cgroup directory has one link for each child besides its own two: most units have none to look at. */
        if (depth >= OOMSLICE_PROCESSES_DEPTH || fstat(directory, &status) < 0 || status.st_nlink <= 2 ||
            lseek(directory, 0, SEEK_SET) < 0)
                return;
        for (;;) {
                ssize_t size = getdents64(directory, buffer, sizeof(buffer));

                if (size <= 0)
                        return;
                for (long at = 0; at < size;) {
                        const struct dirent64 *entry = (const struct dirent64 *)(buffer + at);

                        at += entry->d_reclen;
                        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                                continue;
                        if (*leftp == 0)
                                return;
                        (*leftp)--;
                        list_child(directory, entry->d_name, depth + 1, leftp, processes);
                }
        }
}

void oomslice_processes_list_below(int directory_fd, struct oomslice_processes *processes) {
        uint32_t left = OOMSLICE_PROCESSES_DIRECTORIES_MAX;

        list_directory(directory_fd, 0, &left, processes);
}

bool oomslice_processes_has(const struct oomslice_processes *processes, int32_t pid) {
        for (uint32_t i = 0; i < processes->count; i++)
                if (processes->pids[i] == pid)
                        return true;
        return false;
}

bool oomslice_processes_untouchable(const struct oomslice_processes *processes) {
        return oomslice_processes_has(processes, 1) || oomslice_processes_has(processes, getpid());
}
