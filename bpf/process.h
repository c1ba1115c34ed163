/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The processes of a unit, for programs that may sleep: others may not walk a cgroup's tasks. It answers with a number, by
 * which the caller finds the process again, since what is found under RCU cannot be kept while something sleeps.
 */
#include "process_found.h"

enum { CSS_TASK_ITER_PROCS = 1 };
/* Of these the kernel says that nobody may kill them for memory. */
enum { OOM_SCORE_ADJ_MIN = -1000, INIT_PID = 1 };
enum { MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES };

extern int bpf_iter_css_task_new(struct bpf_iter_css_task *iterator, struct cgroup_subsys_state *css,
                                 unsigned int flags) __ksym;
extern struct task_struct *bpf_iter_css_task_next(struct bpf_iter_css_task *iterator) __ksym;
extern void bpf_iter_css_task_destroy(struct bpf_iter_css_task *iterator) __ksym;

static __always_inline __u64 pages_of(struct mm_struct *mm) {
        __s64 count = BPF_CORE_READ(mm, rss_stat[MM_ANONPAGES].count) +
                      BPF_CORE_READ(mm, rss_stat[MM_FILEPAGES].count) +
                      BPF_CORE_READ(mm, rss_stat[MM_SHMEMPAGES].count) +
                      BPF_CORE_READ(mm, rss_stat[MM_SWAPENTS].count);

        return count > 0 ? count : 0;
}

static __always_inline void weigh(struct task_struct *task, struct oomslice_process *found) {
        struct mm_struct *mm = BPF_CORE_READ(task, mm);
        __s32 pid = task->tgid;
        __u64 pages;

        /* One without memory is of the kernel, or has given it back. */
        if (!mm || pid == INIT_PID || BPF_CORE_READ(task, signal, oom_score_adj) == OOM_SCORE_ADJ_MIN)
                return;
        if (BPF_CORE_READ(task, signal, oom_mm)) {
                found->marked++;
                return;
        }
        found->processes++;
        pages = pages_of(mm);
        if (found->pid && pages <= found->pages)
                return;
        found->pid = pid;
        found->pages = pages;
}

/* The largest process of a unit, cgroups below its own included, that the kernel does not have as a victim already. 0, for
 * the verifier. */
__attribute__((noinline)) int largest_process(__u64 unit, struct oomslice_process *found) {
        struct bpf_iter_css_task tasks;
        struct cgroup_subsys_state *css;
        struct bpf_iter_css iterator;
        struct task_struct *task;
        struct cgroup *cgroup;

        if (!found)
                return 0;
        __builtin_memset(found, 0, sizeof(*found));
        cgroup = bpf_cgroup_from_id(unit);
        if (!cgroup)
                return 0;
        bpf_rcu_read_lock();
        bpf_iter_css_new(&iterator, &cgroup->self, WALK_DESCENDANTS);
        while ((css = bpf_iter_css_next(&iterator))) {
                /* What the iterator gives is no reference, and before 6.13 none can be taken of its cgroup. */
                struct cgroup *held = bpf_cgroup_from_id(css->cgroup->kn->id);

                if (!held)
                        continue;
                bpf_iter_css_task_new(&tasks, &held->self, CSS_TASK_ITER_PROCS);
                while ((task = bpf_iter_css_task_next(&tasks)))
                        weigh(task, found);
                bpf_iter_css_task_destroy(&tasks);
                bpf_cgroup_release(held);
        }
        bpf_iter_css_destroy(&iterator);
        bpf_rcu_read_unlock();
        bpf_cgroup_release(cgroup);
        return 0;
}
