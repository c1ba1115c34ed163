/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * How much memory the machine has left, read from the kernel's own counters: what /proc/meminfo is made of, without its
 * text. They have no type information, so their places are looked up by name once, when the programs are loaded
 * (find_counters). The counters of single processors are not summed up: a few hundred pages may be missing.
 *
 * Watermarks are those of the memory nodes for which kswapd was ever wanted, which are told here (remember_node).
 */

enum { WATERMARK_MIN, WATERMARK_LOW, WATERMARK_HIGH };
enum { NODES_MAX = 32, ZONES_MAX = 6, MEMORY_PAGE_SHIFT = 12 };

struct {
        __u64 zones;
        __u64 nodes;
        __u64 swap;
        __u64 reserve;
} counters;
__u64 nodes[NODES_MAX];

/* Pages. */
struct memory {
        __u64 free;
        __u64 file;
        __u64 anonymous;
        __u64 swap_free;
        /* As MemAvailable. */
        __u64 available;
        /* With no more than this free, no zone is above its high watermark. */
        __u64 reserve;
        /* The low watermarks of all zones. */
        __u64 low;
};

SEC("syscall")
int find_counters(void *context) {
        static const char zones[] = "vm_zone_stat", of_nodes[] = "vm_node_stat", swap[] = "nr_swap_pages",
                          reserve[] = "totalreserve_pages";
        __u64 place = 0;
        int r;

        r = bpf_kallsyms_lookup_name(zones, sizeof(zones), 0, &place);
        if (r < 0)
                return r;
        counters.zones = place;
        r = bpf_kallsyms_lookup_name(of_nodes, sizeof(of_nodes), 0, &place);
        if (r < 0)
                return r;
        counters.nodes = place;
        r = bpf_kallsyms_lookup_name(reserve, sizeof(reserve), 0, &place);
        if (r < 0)
                return r;
        counters.reserve = place;
        /* A kernel may be without swap. */
        if (bpf_kallsyms_lookup_name(swap, sizeof(swap), 0, &place) == 0)
                counters.swap = place;
        return 0;
}

static __always_inline __u64 counter(__u64 place, __u64 index) {
        long value = 0;

        if (!place ||
            bpf_probe_read_kernel(&value, sizeof(value), (const void *)(place + index * sizeof(value))) < 0)
                return 0;
        return value > 0 ? (__u64)value : 0;
}

#define OF_ZONES(item) counter(counters.zones, bpf_core_enum_value(enum zone_stat_item, item))
#define OF_NODES(item) counter(counters.nodes, bpf_core_enum_value(enum node_stat_item, item))

static __always_inline void remember_node(struct zone *zone) {
        struct pglist_data *node = BPF_CORE_READ(zone, zone_pgdat);
        __u32 id = BPF_CORE_READ(node, node_id);

        /* A boost that is not known of makes a shortage seem smaller: nothing is done too soon. */
        if (id < NODES_MAX && nodes[id] != (__u64)node)
                nodes[id] = (__u64)node;
}

/* Sums of the low watermarks and of what they are raised by for now (watermark_boost_factor). */
struct watermarks {
        __u64 low;
        __u64 boost;
};

static long add_node(__u32 id, struct watermarks *sums) {
        __u64 size = bpf_core_type_size(struct zone);
        const char *node = id < NODES_MAX ? (const char *)nodes[id] : NULL;
        __u32 count;

        if (!node)
                return 0;
        count = BPF_CORE_READ((struct pglist_data *)node, nr_zones);
        for (__u32 i = 0; i < ZONES_MAX; i++) {
                const struct zone *zone =
                        (const void *)(node + bpf_core_field_offset(struct pglist_data, node_zones) +
                                       i * size);

                if (i >= count)
                        break;
                sums->low += BPF_CORE_READ(zone, _watermark[WATERMARK_LOW]);
                sums->boost += BPF_CORE_READ(zone, watermark_boost);
        }
        return 0;
}

static __always_inline __u64 most(__u64 pages, __u64 low) {
        return pages - (pages / 2 < low ? pages / 2 : low);
}

/* False: the counters were not found. */
static __always_inline bool measure(struct memory *memory) {
        struct watermarks marks = {};
        __u64 slab, have;

        if (!counters.zones || !counters.nodes || !counters.reserve)
                return false;
        /* The verifier goes through a loop of its own once, and through any other as often as it may go round. */
        bpf_loop(NODES_MAX, add_node, &marks, 0);
        memory->free = OF_ZONES(NR_FREE_PAGES);
        memory->file = OF_NODES(NR_ACTIVE_FILE) + OF_NODES(NR_INACTIVE_FILE);
        memory->anonymous = OF_NODES(NR_ACTIVE_ANON) + OF_NODES(NR_INACTIVE_ANON);
        memory->swap_free = counter(counters.swap, 0);
        slab = OF_NODES(NR_SLAB_RECLAIMABLE_B) + OF_NODES(NR_KERNEL_MISC_RECLAIMABLE);
        memory->reserve = counter(counters.reserve, 0);
        /* As si_mem_available() of mm/show_mem.c reckons. */
        have = memory->free + most(memory->file, marks.low) + most(slab, marks.low);
        memory->available = have > memory->reserve ? have - memory->reserve : 0;
        memory->reserve += marks.boost;
        memory->low = marks.low;
        return true;
}
