/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* bpf_oom_ops as it was published with the cgroup that the program is attached to as its second argument (rework of 2026). */
#include <linux/bpf.h>
#include <stdbool.h>

#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

extern int bpf_oom_kill_process(struct oom_control *oc, struct task_struct *task,
                                const char *message__str) __ksym;

#include "oom_ops.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct bpf_oom_ops {
        int (*handle_out_of_memory)(struct oom_control *oc, struct cgroup *attached);
        char name[64];
};

SEC("struct_ops.s/handle_out_of_memory")
int BPF_PROG(handle_out_of_memory, struct oom_control *oc, struct cgroup *attached) {
        return handle(oc, BPF_CORE_READ(attached, kn, id));
}

SEC(".struct_ops.link")
struct bpf_oom_ops oomslice = {
        .handle_out_of_memory = (void *)handle_out_of_memory,
        .name = "oomslice",
};
