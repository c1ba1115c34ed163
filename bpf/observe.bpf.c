/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tells what the kernel's own OOM killer does: one record when it begins to kill, one for each process it takes, one when
 * all of it is done and counted. It changes nothing and runs only when somebody is being killed anyway.
 *
 * All of mm/oom_kill.c runs under oom_lock, so there is one kill at a time and `now` needs no lock of its own.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "fact.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum { MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES };

/* Room for 2500 processes of one kill; what does not fit is counted, and memory.events counts it as well. */
struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 256 * 1024);
} facts SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct oomslice_fact_figures);
} figures SEC(".maps");

struct {
        __u64 kill_nsec;
        __u32 victims;
        __u32 lost;
} now;

static __always_inline struct oomslice_fact_figures *figures_of_ours(void) {
        __u32 zero = 0;

        return bpf_map_lookup_elem(&figures, &zero);
}

static __always_inline void head(struct oomslice_fact *fact, __u32 kind) {
        fact->kind = kind;
        fact->reserved = 0;
        fact->kill_nsec = now.kill_nsec;
        fact->nsec = bpf_ktime_get_ns();
}

/* The names from below the root down to the victim's cgroup, as many as there is room for. */
static __always_inline void levels(struct oomslice_fact_kill *kill, struct cgroup *cgroup) {
        struct cgroup *ancestor;
        struct kernfs_node *node;
        int i;

        kill->levels_count = 0;
        for (i = 0; i < OOMSLICE_FACT_LEVELS; i++) {
                kill->levels[i].id = 0;
                kill->levels[i].name[0] = '\0';
                if (i >= (int)kill->depth)
                        continue;
                ancestor = NULL;
                bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[i + 1]);
                node = BPF_CORE_READ(ancestor, kn);
                kill->levels[i].id = BPF_CORE_READ(node, id);
                bpf_probe_read_kernel_str(kill->levels[i].name, sizeof(kill->levels[i].name),
                                          BPF_CORE_READ(node, name));
                kill->levels_count = i + 1;
        }
}

SEC("fentry/oom_kill_process")
int BPF_PROG(kill_begins, struct oom_control *oc) {
        struct oomslice_fact_figures *sum = figures_of_ours();
        struct task_struct *chosen = BPF_CORE_READ(oc, chosen);
        struct mem_cgroup *limited = BPF_CORE_READ(oc, memcg);
        struct cgroup *cgroup = BPF_CORE_READ(chosen, cgroups, dfl_cgrp);
        struct oomslice_fact_kill *kill;

        now.kill_nsec = bpf_ktime_get_ns();
        now.victims = 0;
        now.lost = 0;
        if (sum)
                sum->kills++;
        kill = bpf_ringbuf_reserve(&facts, sizeof(*kill), 0);
        if (!kill) {
                now.lost++;
                if (sum)
                        sum->lost++;
                return 0;
        }
        head(&kill->fact, OOMSLICE_FACT_KILL);
        kill->limited = limited ? BPF_CORE_READ(limited, css.cgroup, kn, id) : 0;
        kill->points = BPF_CORE_READ(oc, chosen_points);
        kill->total_pages = BPF_CORE_READ(oc, totalpages);
        kill->constraint = BPF_CORE_READ(oc, constraint);
        kill->pid = BPF_CORE_READ(chosen, tgid);
        kill->cgroup = BPF_CORE_READ(cgroup, kn, id);
        kill->depth = BPF_CORE_READ(cgroup, level);
        levels(kill, cgroup);
        bpf_ringbuf_submit(kill, 0);
        return 0;
}

static __always_inline __u64 pages(__s64 count) {
        return count > 0 ? count : 0;
}

/* The index has to be a constant: only then is the place of the element that of the running kernel, whose counters are
 * larger than ours. */
#define COUNT(mm, kind) pages(BPF_CORE_READ(mm, rss_stat[kind].count))

SEC("fentry/__oom_kill_process")
int BPF_PROG(kill_takes, struct task_struct *task) {
        struct oomslice_fact_figures *sum = figures_of_ours();
        struct mm_struct *mm = BPF_CORE_READ(task, mm);
        struct oomslice_fact_victim *victim;

        now.victims++;
        if (sum)
                sum->victims++;
        victim = bpf_ringbuf_reserve(&facts, sizeof(*victim), 0);
        if (!victim) {
                now.lost++;
                if (sum)
                        sum->lost++;
                return 0;
        }
        head(&victim->fact, OOMSLICE_FACT_VICTIM);
        victim->pid = BPF_CORE_READ(task, tgid);
        victim->uid = BPF_CORE_READ(task, real_cred, uid.val);
        victim->score_adjustment = BPF_CORE_READ(task, signal, oom_score_adj);
        victim->reserved = 0;
        victim->anonymous = COUNT(mm, MM_ANONPAGES);
        victim->file = COUNT(mm, MM_FILEPAGES);
        victim->shared = COUNT(mm, MM_SHMEMPAGES);
        BPF_CORE_READ_STR_INTO(&victim->task, task, comm);
        bpf_ringbuf_submit(victim, 0);
        return 0;
}

SEC("fexit/oom_kill_process")
int BPF_PROG(kill_ends) {
        struct oomslice_fact_figures *sum = figures_of_ours();
        struct oomslice_fact_end *end;

        end = bpf_ringbuf_reserve(&facts, sizeof(*end), 0);
        if (!end) {
                if (sum)
                        sum->lost++;
                return 0;
        }
        head(&end->fact, OOMSLICE_FACT_END);
        end->victims = now.victims;
        end->lost = now.lost;
        bpf_ringbuf_submit(end, 0);
        return 0;
}
