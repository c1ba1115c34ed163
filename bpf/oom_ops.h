/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The plan as the kernel's own way to handle out of memory, on kernels with struct bpf_oom_ops: asked before the kernel
 * chooses by itself, with oom_lock held. Kills the plan's choice, and says "not handled" when there is none, or when it may
 * not be killed: then the program of a cgroup above is asked, and in the end the kernel itself.
 *
 * Two shapes of the callback were published, which differ in what says where the program is attached. So there are two
 * objects of the same code; which one fits is found in the types of the running kernel (ops.c).
 *
 * bpf_oom_kill_process() is declared by whoever includes this: a test has something harmless in its place.
 */
#include "choice.h"
#include "fact.h"
#include "process.h"

enum { UNHANDLED = 0, HANDLED = 1 };
/* Of one unit in one go. The kernel comes again if it has still too little, and then the same unit is the choice again. */
enum { KILLS_MAX = 128 };

extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern long bpf_task_under_cgroup(struct task_struct *task, struct cgroup *ancestor) __ksym;

/* Hits are kills, and `victims` the processes. */
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct oomslice_fact_figures);
} figures SEC(".maps");

/* Memory is short in the cgroup that met its limit, or where we are attached if it is the machine. That one is never above
 * us, so a choice below it is one below us. */
static __always_inline __u64 domain_of(struct oom_control *oc, __u64 own) {
        struct mem_cgroup *limited = BPF_CORE_READ(oc, memcg);
        __u64 id = limited ? BPF_CORE_READ(limited, css.cgroup, kn, id) : 0;

        return id ? id : own;
}

/* True: memory is on its way. */
static __always_inline bool kill_one(struct oom_control *oc, __s32 pid, __u64 unit) {
        struct task_struct *task;
        struct cgroup *cgroup;
        bool killed = false;

        task = bpf_task_from_pid(pid);
        if (!task)
                return false;
        cgroup = bpf_cgroup_from_id(unit);
        /* A number may be somebody else's by now. */
        if (cgroup && bpf_task_under_cgroup(task, cgroup))
                killed = bpf_oom_kill_process(oc, task, "Chosen by oomslice") == 0;
        if (cgroup)
                bpf_cgroup_release(cgroup);
        bpf_task_release(task);
        return killed;
}

static __always_inline int handle(struct oom_control *oc, __u64 own) {
        struct oomslice_fact_figures *sum;
        struct oomslice_process process;
        struct oomslice_chosen chosen;
        int result = UNHANDLED, i;
        __u32 zero = 0;

        choose(domain_of(oc, own), 0, &chosen);
        if (chosen.result != OOMSLICE_CHOSEN_ONE || chosen.flags & OOMSLICE_UNIT_DRY_RUN)
                return UNHANDLED;
        sum = bpf_map_lookup_elem(&figures, &zero);
        for (i = 0; i < KILLS_MAX; i++) {
                largest_process(chosen.cgroup_id, &process);
                /* With memory.oom.group the first kill takes them all. */
                if (!process.pid || !kill_one(oc, process.pid, chosen.cgroup_id))
                        break;
                if (sum)
                        sum->victims++;
                result = HANDLED;
                if (chosen.scope == OOMSLICE_SCOPE_PROCESS)
                        break;
        }
        if (sum && result == HANDLED)
                sum->kills++;
        return result;
}
