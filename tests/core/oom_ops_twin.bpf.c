/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The code of oom_ops for kernels that do not have the hook: run by hand, and where the other kills this notes whom. So the
 * verifier sees all of it, and a test what it does with a choice.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define bpf_oom_kill_process(oc, task, why) noted((task)->tgid)

__attribute__((noinline)) int noted(int pid);

#include "oom_ops.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Of the newest run: its result, how many kills there would have been, and of which process the first one. */
struct outcome {
        __u64 result;
        __u64 kills;
        __u64 first;
};

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct outcome);
} outcomes SEC(".maps");

static struct outcome *outcome(void) {
        __u32 zero = 0;

        return bpf_map_lookup_elem(&outcomes, &zero);
}

__attribute__((noinline)) int noted(int pid) {
        struct outcome *now = outcome();

        if (!now)
                return -1;
        if (!now->kills)
                now->first = pid;
        now->kills++;
        return 0;
}

/* `domain` is the cgroup that it would be attached to. */
SEC("syscall")
int twin(__u64 *domain) {
        struct oom_control *machine = bpf_rdonly_cast(NULL, bpf_core_type_id_kernel(struct oom_control));
        struct outcome *now = outcome();
        int result;

        if (!now)
                return -1;
        __builtin_memset(now, 0, sizeof(*now));
        result = handle(machine, *domain);
        now = outcome();
        if (now)
                now->result = result;
        return 0;
}
