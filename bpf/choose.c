/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command `choose`: has the program `choice` run once (BPF_PROG_RUN) and says what it answered. Needs the right to its
 * pin, which root has; it changes nothing.
 */
#define _GNU_SOURCE
#include "choose.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"
#include "question.h"
#include "say.h"

static const char cgroup_root[] = "/sys/fs/cgroup";

/* Type of a handle that is the number of a file in kernfs (since 5.5): the id of a cgroup is one. */
enum { FILEID_KERNFS = 0xfe };

static const char *result_text(uint32_t result) {
        switch ((enum oomslice_chosen_result)result) {
        case OOMSLICE_CHOSEN_NOBODY:
                return "nobody";
        case OOMSLICE_CHOSEN_ONE:
                return "chosen";
        case OOMSLICE_CHOSEN_NO_PLAN:
                return "no-plan";
        case OOMSLICE_CHOSEN_NO_DOMAIN:
                return "no-domain";
        case OOMSLICE_CHOSEN_UNSURE:
                return "unsure";
        }
        return "unknown";
}

static const char *result_sentence(uint32_t result) {
        switch ((enum oomslice_chosen_result)result) {
        case OOMSLICE_CHOSEN_NOBODY:
                return "nobody below it may be chosen";
        case OOMSLICE_CHOSEN_NO_PLAN:
                return "there is no plan in the kernel (is oomsliced.service running?)";
        case OOMSLICE_CHOSEN_NO_DOMAIN:
                return "it is no cgroup any more";
        default:
                return "the plan in the kernel could not be read in this moment";
        }
}

/* The path below the cgroup root; empty if it is gone, or if we may not ask for it. */
static void path_of_id(uint64_t id, char path[static PATH_MAX]) {
        struct {
                struct file_handle handle;
                uint64_t id;
        } name = {.handle = {.handle_bytes = sizeof(uint64_t), .handle_type = FILEID_KERNFS}};
        char self[64], full[PATH_MAX];
        int root, fd = -1;
        ssize_t length;

        path[0] = '\0';
        memcpy(name.handle.f_handle, &id, sizeof(id));
        root = open(cgroup_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* not O_PATH: that is EBADF */
        if (root >= 0) {
                fd = open_by_handle_at(root, &name.handle, O_PATH | O_CLOEXEC);
                close(root);
        }
        if (fd < 0)
                return;
        snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
        length = readlink(self, full, sizeof(full) - 1);
        close(fd);
        if (length < 0)
                return;
        full[length] = '\0';
        if (strncmp(full, cgroup_root, strlen(cgroup_root)) == 0)
                snprintf(path, PATH_MAX, "%s", full + strlen(cgroup_root));
}

static int open_program(const char *pins, const char *name) {
        char path[PATH_MAX];
        int fd;

        if (snprintf(path, sizeof(path), "%s/choice/program-%s", pins, name) >= (int)sizeof(path))
                return -ENAMETOOLONG;
        fd = bpf_obj_get(path);
        return fd < 0 ? -errno : fd;
}

static int ask(int program, struct oomslice_question *question) {
        /* What it writes comes back in the same place. */
        LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = question, .ctx_size_in = sizeof(*question));

        return bpf_prog_test_run_opts(program, &options);
}

/* How often a program ran while the kernel counted, and for how long. 0 or -errno. */
static int counted(int program, uint64_t *runsp, uint64_t *nsecp) {
        struct bpf_prog_info info = {0};
        __u32 size = sizeof(info);

        if (bpf_obj_get_info_by_fd(program, &info, &size) < 0)
                return -errno;
        *runsp = info.run_cnt;
        *nsecp = info.run_time_ns;
        return 0;
}

/* Asks the same again and again, and has the kernel count its time. 0 or -errno. */
static int measure(int program, struct oomslice_question question, unsigned long runs, double *nsecp) {
        uint64_t runs_before = 0, nsec_before = 0, runs_after = 0, nsec_after = 0;
        int statistics, r;

        statistics = bpf_enable_stats(BPF_STATS_RUN_TIME);
        if (statistics < 0)
                return statistics;
        r = counted(program, &runs_before, &nsec_before);
        for (unsigned long i = 0; i < runs && r >= 0; i++)
                r = ask(program, &question);
        if (r >= 0)
                r = counted(program, &runs_after, &nsec_after);
        close(statistics);
        if (r < 0)
                return r;
        if (runs_after == runs_before)
                return -ENODATA;
        *nsecp = (double)(nsec_after - nsec_before) / (double)(runs_after - runs_before);
        return 0;
}

/* The command's own words for what could not be done. */
static int refused(int error) {
        if (error == -ENOENT)
                return oomslice_say_failed(
                        "the program is not loaded (oomslice-bpf status says why, systemctl start "
                        "oomslice-bpf.service loads it)");
        return oomslice_say_failed("the program cannot be asked: %s", strerror(-error));
}

static void print_json(const struct oomslice_question *question, const char *path, unsigned long runs,
                       double nsec) {
        const struct oomslice_chosen *chosen = &question->chosen;

        printf("{\"domain\": %" PRIu64 ", \"result\": \"%s\", \"cgroup_id\": %" PRIu64 ", \"path\": ",
               question->domain, result_text(chosen->result), chosen->cgroup_id);
        oomslice_say_json(path);
        printf(", \"priority\": %" PRId32 ", \"usage\": %" PRIu64 ", \"dry_run\": %s, \"by_policy\": %s, ",
               chosen->priority, chosen->usage, chosen->flags & OOMSLICE_UNIT_DRY_RUN ? "true" : "false",
               chosen->wanted ? "true" : "false");
        printf("\"processes\": %" PRIu32 ", \"largest_pid\": %" PRId32 ", ", question->process.processes,
               question->process.pid);
        if (runs)
                printf("\"runs\": %lu, \"nsec_per_run\": %.0f, ", runs, nsec);
        printf("\"cgroups\": %" PRIu32 ", \"units\": %" PRIu32 ", \"eligible\": %" PRIu32
               ", \"skipped\": %" PRIu32 "}\n",
               chosen->cgroups, chosen->units, chosen->eligible, chosen->skipped);
}

static void print_text(const struct oomslice_question *question, const char *cgroup, const char *path,
                       unsigned long runs, double nsec) {
        const struct oomslice_chosen *chosen = &question->chosen;

        if (chosen->result == OOMSLICE_CHOSEN_ONE) {
                printf("%s: priority %" PRId32 ", %" PRIu64 " MiB%s%s\n",
                       *path ? path : "a cgroup that is gone", chosen->priority, chosen->usage >> 20,
                       chosen->flags & OOMSLICE_UNIT_DRY_RUN ? ", DryRun=yes: it would not be killed" : "",
                       chosen->wanted ? ", by the policy in force" : "");
                printf("%" PRIu32 " processes, the largest %" PRId32 "\n", question->process.processes,
                       question->process.pid);
        } else
                printf("%s: %s\n", cgroup, result_sentence(chosen->result));
        printf("%" PRIu32 " of %" PRIu32 " units may be chosen", chosen->eligible, chosen->units);
        if (chosen->skipped)
                printf("; the policy in force left out %" PRIu32, chosen->skipped);
        putchar('\n');
        if (runs)
                printf("%.0f ns a run, mean of %lu: %.0f ns a cgroup\n", nsec, runs,
                       chosen->cgroups ? nsec / chosen->cgroups : 0);
}

int oomslice_choose(const char *pins, const char *cgroup, bool json, unsigned long runs) {
        struct oomslice_question question = {0};
        bool whole = strncmp(cgroup, cgroup_root, strlen(cgroup_root)) == 0;
        char full[PATH_MAX], path[PATH_MAX];
        struct stat st;
        double nsec = 0;
        int program, processes, r;

        if (snprintf(full, sizeof(full), "%s%s%s", whole ? "" : cgroup_root, *cgroup == '/' ? "" : "/",
                     cgroup) >= (int)sizeof(full))
                return oomslice_say_failed("%s: the path is too long", cgroup);
        if (stat(full, &st) < 0 || !S_ISDIR(st.st_mode))
                return oomslice_say_failed("%s is no cgroup", full);
        question.domain = st.st_ino;
        program = open_program(pins, "who");
        if (program < 0)
                return refused(program);
        r = ask(program, &question);
        if (r >= 0 && runs)
                r = measure(program, question, runs, &nsec);
        close(program);
        if (r >= 0 && question.chosen.cgroup_id) {
                processes = open_program(pins, "whose");
                r = processes < 0 ? processes : ask(processes, &question);
                if (processes >= 0)
                        close(processes);
        }
        if (r < 0)
                return refused(r);
        path_of_id(question.chosen.cgroup_id, path);
        if (json)
                print_json(&question, path, runs, nsec);
        else
                print_text(&question, cgroup, path, runs, nsec);
        return oomslice_say_all();
}
