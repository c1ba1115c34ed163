/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A policy for the choice that oomslice makes inside the kernel, as an example: units that hold little are not worth a kill
 * and are skipped, whatever their priority, since their end would not give back what is missing. See oomslice-bpf(8).
 *
 *     clang -target bpf -O2 -g -Wall -idirafter /usr/include/$(gcc -print-multiarch) -c skip-small.bpf.c -o skip-small.o
 *     /usr/lib/oomslice/oomslice-bpf policy skip-small.o
 *
 * How much is little is in the map "smallest", in bytes, and may be changed while it is in force:
 *
 *     bpftool map update pinned /run/oomslice/bpf/policy/map-smallest key 0 0 0 0 value 0 0 0 4 0 0 0 0
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <oomslice/policy.h>

/* What holds where nobody has written anything else into the map. */
#define SMALLEST (16ULL << 20)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u64);
} smallest SEC(".maps");

int oomslice_policy(struct oomslice_policy_candidate *candidate) {
        __u32 zero = 0;
        __u64 *written = bpf_map_lookup_elem(&smallest, &zero);

        /* The verifier wants both to be looked at. */
        if (!candidate)
                return OOMSLICE_POLICY_DEFAULT;
        if (candidate->usage < (written && *written ? *written : SMALLEST))
                return OOMSLICE_POLICY_SKIP;
        return OOMSLICE_POLICY_DEFAULT;
}
