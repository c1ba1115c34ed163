/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Wakes the core when the kernel itself notices that memory runs short: when it wakes kswapd, since free pages are below
 * the low watermark of a zone, and when somebody has to reclaim and finds nothing. Pressure figures say the same half a
 * second later.
 *
 * Both belong to the normal life of a machine that has page cache. So what could be had is added up first, as
 * MemAvailable is, and only if that is less than what the core would look at (pulse.available_watch) is it woken. The
 * sum is of one node: what is plenty there is plenty on the machine, what is little there may be little only there. Then the core
 * looks, and says until when it needs to hear of no other sign.
 *
 * It changes nothing and decides nothing.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "ask.h"
#include "fact.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
        ZONES_MAX = 8, /* of a node; there are five */
        PAGE_SHIFT = 12,
        WMARKS_LOW = 1,
};

#define NSEC_PER_MSEC 1000000ULL

/* Adding up is worth it once in so long: what can be taken meanwhile is little beside the slack. */
#define LOOK_NSEC (1 * NSEC_PER_MSEC)
/* Reclaim without result, whatever the sum says and the core wants to hear. */
#define STUCK_NSEC (200 * NSEC_PER_MSEC)

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, struct oomslice_fact_figures);
} figures SEC(".maps");

/* When something was last done, by any processor; a race costs one more of it. */
struct {
        __u64 look_nsec;
        __u64 stuck_nsec;
} last;

static __always_inline void count(bool asked) {
        __u32 zero = 0;
        struct oomslice_fact_figures *sum = bpf_map_lookup_elem(&figures, &zero);

        if (sum && asked)
                __sync_fetch_and_add(&sum->kills, 1);
}

static __always_inline __s64 node_pages(struct pglist_data *node, __u32 item) {
        const void *items = &node->vm_stat;
        __s64 pages = 0;

        bpf_probe_read_kernel(&pages, sizeof(pages), items + item * sizeof(atomic_long_t));
        return pages > 0 ? pages : 0;
}

/* Half of it at least, as in si_mem_available(): what is in use, or too much to do without, stays. */
static __always_inline __s64 without_low(__s64 pages, __s64 low) {
        return pages - (pages / 2 < low ? pages / 2 : low);
}

/* What this node could give without swapping, as si_mem_available() has it for the machine. Bytes. */
static __always_inline __u64 available(struct pglist_data *node) {
        __s64 free = 0, low = 0, file, other, sum;
        const void *zones = &node->node_zones;
        int zones_count = BPF_CORE_READ(node, nr_zones);

        for (int i = 0; i < ZONES_MAX && i < zones_count; i++) {
                struct zone *zone = (void *)zones + i * bpf_core_type_size(struct zone);
                __s64 pages = BPF_CORE_READ(zone, vm_stat[0].counter);

                free += pages;
                low += BPF_CORE_READ(zone, _watermark[WMARKS_LOW]);
        }
        file = node_pages(node, bpf_core_enum_value(enum node_stat_item, NR_ACTIVE_FILE)) +
               node_pages(node, bpf_core_enum_value(enum node_stat_item, NR_INACTIVE_FILE));
        other = node_pages(node, bpf_core_enum_value(enum node_stat_item, NR_SLAB_RECLAIMABLE_B)) +
                node_pages(node, bpf_core_enum_value(enum node_stat_item, NR_KERNEL_MISC_RECLAIMABLE));
        sum = free - (__s64)BPF_CORE_READ(node, totalreserve_pages) + without_low(file, low) +
              without_low(other, low);
        return sum > 0 ? (__u64)sum << PAGE_SHIFT : 0;
}

SEC("fentry/wakeup_kswapd")
int BPF_PROG(kswapd_is_woken, struct zone *zone) {
        struct oomslice_pulse *shared = pulse_of_core();
        __u64 now, left, watch;

        if (!shared || !can_wake(shared))
                return 0;
        now = bpf_ktime_get_ns();
        /* Somebody waits for an answer to decide whether to act in its place. */
        if (!is_answered(shared)) {
                count(ask(shared, OOMSLICE_SIGN_ASKED, now, 0));
                return 0;
        }
        if (now < ask_read(shared->quiet_until_nsec) || now - last.look_nsec < LOOK_NSEC)
                return 0;
        last.look_nsec = now;
        left = available(BPF_CORE_READ(zone, zone_pgdat));
        watch = ask_read(shared->available_watch);
        /* A processor keeps some of its counts to itself, so the sum may be too large by that much. */
        if (left > watch + watch / 8)
                return 0;
        count(ask(shared, OOMSLICE_SIGN_KSWAPD, now, left));
        return 0;
}

SEC("fexit/try_to_free_pages")
int BPF_PROG(reclaim_ends) {
        struct oomslice_pulse *shared = pulse_of_core();
        __u64 now, reclaimed = 1;

        /* The number of arguments, behind which the result lies, is the kernel's business. */
        if (!shared || !can_wake(shared) || bpf_get_func_ret(ctx, &reclaimed) != 0 || reclaimed != 0)
                return 0;
        now = bpf_ktime_get_ns();
        /* Above the watch the core may be quiet for a second, and what cannot be had is counted as available. */
        if (ask_read(shared->quiet_until_nsec) == UINT64_MAX || now - last.stuck_nsec < STUCK_NSEC)
                return 0;
        last.stuck_nsec = now;
        count(ask(shared, OOMSLICE_SIGN_STUCK, now, 0));
        return 0;
}
