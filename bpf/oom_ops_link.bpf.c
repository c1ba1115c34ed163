/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* bpf_oom_ops as it was published with the link as its second argument (version 3 of January 2026). */
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

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* One of the two, which one changed between postings. */
struct bpf_struct_ops_link {
        struct cgroup *cgroup;
        __u64 cgroup_id;
};

#pragma clang attribute pop

static __always_inline __u64 cgroup_of(struct bpf_struct_ops_link *link) {
        if (bpf_core_field_exists(link->cgroup_id))
                return BPF_CORE_READ(link, cgroup_id);
        return BPF_CORE_READ(link, cgroup, kn, id);
}

struct bpf_oom_ops {
        int (*handle_out_of_memory)(struct oom_control *oc, struct bpf_struct_ops_link *attached);
        char name[64];
};

SEC("struct_ops.s/handle_out_of_memory")
int BPF_PROG(handle_out_of_memory, struct oom_control *oc, struct bpf_struct_ops_link *attached) {
        return handle(oc, cgroup_of(attached));
}

SEC(".struct_ops.link")
struct bpf_oom_ops oomslice = {
        .handle_out_of_memory = (void *)handle_out_of_memory,
        .name = "oomslice",
};
