/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the state file, /run/oomslice/scores. It is replaced as a whole with every table, and grows by a line for every
 * process or cgroup whose own value is about to be lost; both before the fact.
 */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adjust.h"

static void print_unit(FILE *file, const struct oomslice_scored_unit *unit) {
        const unsigned long long id = unit->id;

        if (unit->wanted)
                (void)fprintf(file, "unit %llu %d %d %d %s\n", id, unit->adj, unit->baseline, unit->group,
                              unit->path);
        else
                (void)fprintf(file, "unit %llu - %d %d %s\n", id, unit->baseline, unit->group, unit->path);
        for (uint8_t j = 0; j < unit->old_count; j++)
                (void)fprintf(file, "old %llu %d\n", id, unit->old[j]);
        if (unit->group_set)
                (void)fprintf(file, "group %llu\n", id);
}

/* Whom nothing was done to has nothing that could be undone. */
static void print(FILE *file, const struct oomslice_scores *scores) {
        for (size_t i = 0; i < scores->units_count; i++)
                if (!scores->units[i].kept && (!scores->units[i].young || scores->units[i].noted))
                        print_unit(file, &scores->units[i]);
        for (size_t i = 0; i < scores->processes_count; i++)
                (void)fprintf(file, "process %d %llu %d\n", scores->processes[i].pid,
                              (unsigned long long)scores->processes[i].start, scores->processes[i].adj);
}

int oomslice_state_write(const char *path, const struct oomslice_scores *scores, int *fdp) {
        char temporary[512];
        FILE *file;
        int fd, r = 0;

        if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
                return -ENAMETOOLONG;
        fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        file = fdopen(dup(fd), "ae");
        if (!file) {
                close(fd);
                return -ENOMEM;
        }
        print(file, scores);
        if (fflush(file) != 0)
                r = -errno;
        (void)fclose(file);
        if (r == 0 && rename(temporary, path) < 0)
                r = -errno;
        if (r < 0) {
                close(fd);
                (void)unlink(temporary);
                return r;
        }
        if (*fdp >= 0)
                close(*fdp);
        *fdp = fd;
        return 0;
}

static int append(int fd, const char *line, int length) {
        return fd < 0 || write(fd, line, (size_t)length) == length ? 0 : -EIO;
}

int oomslice_state_append_unit(int fd, const struct oomslice_scored_unit *unit) {
        char *text = NULL;
        size_t size = 0;
        FILE *file = open_memstream(&text, &size);
        int r;

        if (!file)
                return -ENOMEM;
        print_unit(file, unit);
        r = fclose(file) == 0 ? append(fd, text, (int)size) : -ENOMEM;
        free(text);
        return r;
}

int oomslice_state_append_process(int fd, const struct oomslice_scored_process *process) {
        char line[64];
        int length = snprintf(line, sizeof(line), "process %d %llu %d\n", process->pid,
                              (unsigned long long)process->start, process->adj);

        return append(fd, line, length);
}

int oomslice_state_append_group(int fd, uint64_t id) {
        char line[64];
        int length = snprintf(line, sizeof(line), "group %llu\n", (unsigned long long)id);

        return append(fd, line, length);
}

int oomslice_state_read(const char *path, struct oomslice_scores *scoresp) {
        struct stat status;
        char *text = NULL;
        ssize_t size = 0;
        int fd, r = 0;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &status) < 0)
                r = -errno;
        else if (status.st_size > 4 * OOMSLICE_SCORES_SIZE_MAX)
                r = -EFBIG;
        else if (!(text = malloc((size_t)status.st_size + 1)))
                r = -ENOMEM;
        else if ((size = read(fd, text, (size_t)status.st_size)) < 0)
                r = -errno;
        /* A line that was being written when the machine went down is of no use. */
        while (r == 0 && size > 0 && text[size - 1] != '\n')
                size--;
        if (r == 0)
                r = oomslice_scores_parse(scoresp, text, (size_t)size);
        free(text);
        close(fd);
        return r > 0 ? -EBADMSG : r;
}

void oomslice_state_remove(const char *path, int *fdp) {
        if (*fdp >= 0)
                close(*fdp);
        *fdp = -1;
        (void)unlink(path);
}

void oomslice_state_forget(int proc_fd, struct oomslice_scores *scores) {
        size_t kept = 0;

        for (size_t i = 0; i < scores->processes_count; i++) {
                struct oomslice_scored_target target = {.pid = scores->processes[i].pid};
                char name[16];
                uint64_t start = 0;

                (void)snprintf(name, sizeof(name), "%d", target.pid);
                target.directory = openat(proc_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (target.directory >= 0 && oomslice_adjust_start(&target, &start) == 0 &&
                    start == scores->processes[i].start)
                        scores->processes[kept++] = scores->processes[i];
                oomslice_adjust_close(&target);
        }
        scores->processes_count = kept;
}
