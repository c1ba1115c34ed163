/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the writing of one /proc/PID/oom_score_adj. Whoever writes it with CAP_SYS_RESOURCE also sets how far its owner
 * may lower it again (fs/proc/base.c, oom_score_adj_min). So the capability is in force only while a value is lowered,
 * or put back up from below zero: a process that was raised can still be lowered by its owner to what it could before.
 */
#define _GNU_SOURCE
#include "adjust.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static ssize_t read_file(int directory, const char *name, char *text, size_t size) {
        int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = read(fd, text, size - 1);
        if (n < 0)
                n = -errno;
        else
                text[n] = '\0';
        close(fd);
        return n;
}

/* The line of cgroup v2 in /proc/PID/cgroup is "0::PATH". */
static bool is_below(int directory, const char *path) {
        char text[8192];
        size_t length = strlen(path);
        const char *at = text;

        if (read_file(directory, "cgroup", text, sizeof(text)) < 0)
                return false;
        while (at && strncmp(at, "0::", 3) != 0) {
                at = strchr(at, '\n');
                at = at ? at + 1 : NULL;
        }
        return at && strncmp(at + 3, path, length) == 0 && (at[3 + length] == '\n' || at[3 + length] == '/');
}

int oomslice_adjust_open(int proc_fd, int32_t pid, const char *path, struct oomslice_scored_target *targetp) {
        struct oomslice_scored_target target = {.pid = pid};
        char text[16];
        ssize_t n;

        (void)snprintf(text, sizeof(text), "%d", pid);
        target.directory = openat(proc_fd, text, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (target.directory < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        n = read_file(target.directory, "oom_score_adj", text, sizeof(text));
        if (n <= 0 || !is_below(target.directory, path)) {
                close(target.directory);
                return n < 0 && n != -ENOENT ? (int)n : -ESRCH;
        }
        target.adj = atoi(text);
        *targetp = target;
        return 0;
}

void oomslice_adjust_close(struct oomslice_scored_target *target) {
        if (target->directory >= 0)
                close(target->directory);
        target->directory = -1;
}

bool oomslice_adjust_is_starting(const struct oomslice_scored_target *target) {
        static const char *const names[] = {"systemd\n", "systemd-executo\n"};
        char text[32];

        if (read_file(target->directory, "comm", text, sizeof(text)) <= 0)
                return false;
        /* Its last name before the program's own, in brackets: exec-invoke.c, rename_process_from_path. */
        return text[0] == '(' || strcmp(text, names[0]) == 0 || strcmp(text, names[1]) == 0;
}

int oomslice_adjust_start(const struct oomslice_scored_target *target, uint64_t *startp) {
        char text[1024];
        const char *at;
        ssize_t n = read_file(target->directory, "stat", text, sizeof(text));

        if (n < 0)
                return (int)n;
        /* The name may hold anything: fields are counted from its last bracket, which ends the second. */
        at = strrchr(text, ')');
        for (int field = 2; at && field < 22; field++)
                at = strchr(at + 1, ' ');
        if (!at)
                return -EBADMSG;
        *startp = strtoull(at + 1, NULL, 10);
        return 0;
}

/* Puts CAP_SYS_RESOURCE, if we have it, into force or out of it. */
static void use_capability(bool use) {
        static int used = -1;
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];
        const uint32_t bit = 1U << CAP_SYS_RESOURCE;

        if (used == use || syscall(SYS_capget, &header, data) < 0)
                return;
        data[0].effective = use ? data[0].effective | (data[0].permitted & bit) : data[0].effective & ~bit;
        if (syscall(SYS_capset, &header, data) == 0)
                used = use;
}

static int write_value(int directory, int adj, bool privileged) {
        char text[16];
        int fd, r = 0, length;

        use_capability(privileged);
        length = snprintf(text, sizeof(text), "%d", adj);
        fd = openat(directory, "oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                r = -errno;
        else if (write(fd, text, (size_t)length) < 0)
                r = -errno;
        if (fd >= 0)
                close(fd);
        use_capability(false);
        return r;
}

static int change(int directory, int from, int to) {
        int r = write_value(directory, to, from < 0 || to < 0);

        return r == -EACCES ? write_value(directory, to, true) : r;
}

int oomslice_adjust_write(const struct oomslice_scored_target *target, const char *path, int adj) {
        int r = change(target->directory, target->adj, adj);

        if (r < 0)
                return r == -ENOENT ? -ESRCH : r;
        if (is_below(target->directory, path))
                return 0;
        (void)change(target->directory, adj, target->adj);
        return -ESRCH;
}
