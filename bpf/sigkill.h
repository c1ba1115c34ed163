/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * SIGKILL from inside the kernel to all processes of a cgroup and of those below it, or to the largest of them. Allocates
 * nothing. Who has the signal cannot fork any more, and who was born before that is further behind in the kernel's list of
 * processes, along which this goes; but it is in no cgroup yet while it is being born, so whoever hunts looks at those, too
 * (newborn.h).
 *
 * For programs that run in the context of an allocation, one at a time: what it works with is there once.
 */
#include "prekill.h"

#define PF_EXITING 0x4
#define PF_KTHREAD 0x200000
#define SIGNAL_GROUP_EXIT 0x4
#define SIGKILL 9
#define TASK_RUNNING 0
#define ESRCH 3
#define EBUSY 16
enum { KILL_ALL_PROCESSES, KILL_ALL_THREADS }; /* BPF_TASK_ITER_ALL_PROCS and so on */
enum { KILL_PIDTYPE_TGID = 1 };
enum { KILL_TRIES = 64 };

struct bpf_iter_task {
        __u64 opaque[3];
} __attribute__((aligned(8)));

extern int bpf_iter_task_new(struct bpf_iter_task *iterator, struct task_struct *task,
                             unsigned int flags) __ksym;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *iterator) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task *iterator) __ksym;
extern struct task_struct *bpf_task_from_pid(__s32 pid) __ksym;
extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern int bpf_send_signal_task(struct task_struct *task, int signal, enum pid_type type, __u64 value) __ksym;

/* Whom, and what came of it. */
struct {
        __u64 cgroup;
        __u32 level;
        __u32 largest_pid; /* with KillScope=process: whom alone */
        __u64 largest_pages;
        __u32 headless; /* processes whose first thread has ended before the others */
        __u32 left;     /* processes that have the signal, and their memory yet */
        __u32 running;  /* of these, those that only wait for a processor, or have one */
} hunt;

/* The id of the cgroup itself or of one around it, by a level that is not below its own. */
static __always_inline __u64 id_at_level(const struct cgroup *cgroup, __u32 level) {
        struct cgroup *ancestor = NULL;

        bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
                              (const char *)cgroup + bpf_core_field_offset(struct cgroup, ancestors) +
                                      level * sizeof(ancestor));
        return BPF_CORE_READ(ancestor, kn, id);
}

static __always_inline bool is_below(struct task_struct *task) {
        const struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

        return BPF_CORE_READ(cgroup, level) >= (int)hunt.level &&
               id_at_level(cgroup, hunt.level) == hunt.cgroup;
}

/* The names from below the root down to the victim's cgroup, as many as there is room for. */
static __always_inline void name_victim(struct oomslice_prekill_kill *record, struct task_struct *task) {
        struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

        record->depth = hunt.level;
        record->levels_count = 0;
        for (int i = 0; i < OOMSLICE_FACT_LEVELS; i++) {
                struct cgroup *ancestor = NULL;
                struct kernfs_node *node;

                if (i >= (int)hunt.level)
                        break;
                bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[i + 1]);
                node = BPF_CORE_READ(ancestor, kn);
                record->levels[i].id = BPF_CORE_READ(node, id);
                bpf_probe_read_kernel_str(record->levels[i].name, sizeof(record->levels[i].name),
                                          BPF_CORE_READ(node, name));
                record->levels_count = i + 1;
        }
}

#define PAGES_OF(mm, kind) BPF_CORE_READ(mm, rss_stat[kind].count)

static __always_inline __u64 pages_of(struct task_struct *task) {
        struct mm_struct *mm = BPF_CORE_READ(task, mm);
        __s64 pages;

        if (!mm)
                return 0;
        pages = PAGES_OF(mm, 1) + PAGES_OF(mm, 2);
        return pages > 0 ? pages : 0;
}

/* With tracepoints that run with preemption off one signal for each processor is on its way at a time; it is sent by an
 * interrupt, which comes while this tries again. Since 7.0 signals are sent directly. */
static __always_inline int send(struct task_struct *task) {
        struct task_struct *held = bpf_task_acquire(task);
        int r = -EBUSY;

        if (!held)
                return -ESRCH;
        for (int i = 0; i < KILL_TRIES && r == -EBUSY; i++)
                r = bpf_send_signal_task(held, SIGKILL, KILL_PIDTYPE_TGID, 0);
        bpf_task_release(held);
        return r;
}

static __always_inline void list(struct oomslice_prekill_kill *record, __u32 pid) {
        __u32 at = record->pids_count;

        record->signalled++;
        if (at < OOMSLICE_PREKILL_PIDS) {
                record->pids[at] = pid;
                record->pids_count = at + 1;
        }
}

static __always_inline void note_left(struct task_struct *task) {
        if (!BPF_CORE_READ(task, mm))
                return;
        hunt.left++;
        if (BPF_CORE_READ(task, __state) == TASK_RUNNING)
                hunt.running++;
}

static __always_inline void signal_one(struct oomslice_prekill_kill *record, struct task_struct *task,
                                       __u32 which) {
        if (BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT) {
                note_left(task);
                /* Children may have the signal of their parent's death, which was on another processor meanwhile. */
                if (which == KILL_ALL_PROCESSES)
                        list(record, task->tgid);
                return;
        }
        if (BPF_CORE_READ(task, flags) & PF_EXITING) {
                hunt.headless++;
                return;
        }
        if (send(task) != 0) {
                record->failed++;
                return;
        }
        hunt.left++;
        hunt.running++;
        list(record, task->tgid);
}

/* With `weigh` nobody is signalled: the largest one is found. */
static __noinline int walk(struct oomslice_prekill_kill *record, __u32 which, bool weigh) {
        struct bpf_iter_task iterator;
        struct task_struct *task;

        bpf_iter_task_new(&iterator, NULL, which);
        while ((task = bpf_iter_task_next(&iterator))) {
                if (task->flags & PF_KTHREAD || !is_below(task))
                        continue;
                if (!record->levels_count)
                        name_victim(record, task);
                if (weigh) {
                        __u64 pages = pages_of(task);

                        if (pages > hunt.largest_pages) {
                                hunt.largest_pages = pages;
                                hunt.largest_pid = task->tgid;
                        }
                } else if (!hunt.largest_pid || (__u32)task->tgid == hunt.largest_pid)
                        signal_one(record, task, which);
        }
        bpf_iter_task_destroy(&iterator);
        return 0;
}

static __always_inline void kill_unit(struct oomslice_prekill_kill *record, __u32 level) {
        hunt.cgroup = record->victim;
        hunt.level = level;
        hunt.largest_pid = 0;
        hunt.largest_pages = 0;
        hunt.headless = hunt.left = hunt.running = 0;
        if (record->scope == OOMSLICE_SCOPE_PROCESS) {
                walk(record, KILL_ALL_PROCESSES, true);
                if (!hunt.largest_pid)
                        return;
        }
        walk(record, KILL_ALL_PROCESSES, false);
        if (hunt.headless)
                walk(record, KILL_ALL_THREADS, false);
}
