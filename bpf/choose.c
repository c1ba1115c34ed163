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
        root = open(cgroup_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
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

static int ask(const char *pins, struct oomslice_question *question) {
        char path[PATH_MAX];
        int fd, r;

        /* What it writes comes back in the same place. */
        LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = question, .ctx_size_in = sizeof(*question));
        if (snprintf(path, sizeof(path), "%s/choice/program-who", pins) >= (int)sizeof(path))
                return -ENAMETOOLONG;
        fd = bpf_obj_get(path);
        if (fd < 0)
                return -errno;
        r = bpf_prog_test_run_opts(fd, &options);
        close(fd);
        return r;
}

int oomslice_choose(const char *pins, const char *cgroup, bool json) {
        struct oomslice_question question = {0};
        struct oomslice_chosen *chosen = &question.chosen;
        char full[PATH_MAX], path[PATH_MAX];
        bool whole = strncmp(cgroup, cgroup_root, strlen(cgroup_root)) == 0;
        struct stat st;
        int r;

        if (snprintf(full, sizeof(full), "%s%s%s", whole ? "" : cgroup_root, *cgroup == '/' ? "" : "/",
                     cgroup) >= (int)sizeof(full))
                return oomslice_say_failed("%s: the path is too long", cgroup);
        if (stat(full, &st) < 0 || !S_ISDIR(st.st_mode))
                return oomslice_say_failed("%s is no cgroup", full);
        question.domain = st.st_ino;
        question.and_process = 1;
        r = ask(pins, &question);
        if (r == -ENOENT)
                return oomslice_say_failed(
                        "the program is not loaded (oomslice-bpf status says why, systemctl start "
                        "oomslice-bpf.service loads it)");
        if (r < 0)
                return oomslice_say_failed("the program cannot be asked: %s", strerror(-r));
        path_of_id(chosen->cgroup_id, path);
        if (json) {
                printf("{\"domain\": %" PRIu64 ", \"result\": \"%s\", \"cgroup_id\": %" PRIu64 ", \"path\": ",
                       question.domain, result_text(chosen->result), chosen->cgroup_id);
                oomslice_say_json(path);
                printf(", \"priority\": %" PRId32 ", \"usage\": %" PRIu64
                       ", \"dry_run\": %s, \"by_policy\": %s, ",
                       chosen->priority, chosen->usage,
                       chosen->flags & OOMSLICE_UNIT_DRY_RUN ? "true" : "false",
                       chosen->wanted ? "true" : "false");
                printf("\"processes\": %" PRIu32 ", \"largest_pid\": %" PRId32 ", ",
                       question.process.processes, question.process.pid);
                printf("\"cgroups\": %" PRIu32 ", \"units\": %" PRIu32 ", \"eligible\": %" PRIu32
                       ", \"skipped\": %" PRIu32 "}\n",
                       chosen->cgroups, chosen->units, chosen->eligible, chosen->skipped);
        } else if (chosen->result == OOMSLICE_CHOSEN_ONE) {
                printf("%s: priority %" PRId32 ", %" PRIu64 " MiB%s%s\n",
                       *path ? path : "a cgroup that is gone", chosen->priority, chosen->usage >> 20,
                       chosen->flags & OOMSLICE_UNIT_DRY_RUN ? ", DryRun=yes: it would not be killed" : "",
                       chosen->wanted ? ", by the policy in force" : "");
                printf("%" PRIu32 " processes, the largest %" PRId32 "; among %" PRIu32
                       " who may be chosen, of %" PRIu32 " units",
                       question.process.processes, question.process.pid, chosen->eligible, chosen->units);
                if (chosen->skipped)
                        printf("; the policy in force left out %" PRIu32, chosen->skipped);
                putchar('\n');
        } else
                printf("%s: %s\n", cgroup, result_sentence(chosen->result));
        return oomslice_say_all();
}
