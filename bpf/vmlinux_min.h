/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The few structures of the kernel that the programs read, with those members only. Their real places are filled in when
 * a program is loaded, from the type information of the running kernel (CO-RE), so these need not look like any kernel's:
 * only names and kinds of the members count (an enum is no int). Seen in 6.12 and 7.3.
 */

typedef struct {
        __s64 counter;
} atomic_long_t;

/* Of these only the names count; the values are those of the running kernel. */
enum zone_stat_item { NR_FREE_PAGES };
enum node_stat_item {
        NR_INACTIVE_ANON,
        NR_ACTIVE_ANON,
        NR_INACTIVE_FILE,
        NR_ACTIVE_FILE,
        NR_SLAB_RECLAIMABLE_B,
        NR_KERNEL_MISC_RECLAIMABLE,
};

enum cgroup_subsys_id { memory_cgrp_id = 4 };
enum pid_type { PIDTYPE_PID };
enum oom_constraint { CONSTRAINT_NONE, CONSTRAINT_CPUSET, CONSTRAINT_MEMORY_POLICY, CONSTRAINT_MEMCG };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pglist_data;

struct zone {
        unsigned long _watermark[4];
        unsigned long watermark_boost;
        struct pglist_data *zone_pgdat;
        atomic_long_t vm_stat[1]; /* the first is NR_FREE_PAGES */
};

struct pglist_data {
        struct zone node_zones[4];
        int nr_zones;
        int node_id;
        unsigned long totalreserve_pages;
        atomic_long_t vm_stat[1];
};

struct kernfs_node {
        const char *name;
        __u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
        struct cgroup *cgroup;
        int nr_populated_csets; /* since 7.3 here, before in struct cgroup */
        int nr_populated_children;
};

struct cgroup {
        struct cgroup_subsys_state self;
        int level;
        int nr_populated_csets;
        int nr_populated_domain_children;
        int nr_populated_threaded_children;
        struct kernfs_node *kn;
        struct cgroup_subsys_state *subsys[16];
        struct cgroup *ancestors[0];
};

typedef struct {
        __s64 counter;
} atomic64_t;

/* atomic_long_t, which has this type where a long has 64 bits. */
struct page_counter {
        atomic64_t usage;
        unsigned long max;
};

struct mem_cgroup {
        struct cgroup_subsys_state css;
        struct page_counter memory;
        struct page_counter swap;
};

struct css_set {
        struct cgroup *dfl_cgrp;
};

struct percpu_counter {
        __s64 count;
};

/* Since 6.2 an array of these; enum { MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES }. */
struct mm_struct {
        struct percpu_counter rss_stat[4];
};

struct signal_struct {
        unsigned int flags;
        short oom_score_adj;
        struct mm_struct *oom_mm;
};

typedef struct {
        __u32 val;
} kuid_t;

struct cred {
        kuid_t uid;
};

struct task_struct {
        unsigned int flags;
        unsigned int __state;
        unsigned long min_flt;
        unsigned long maj_flt;
        int tgid;
        char comm[16];
        struct css_set *cgroups;
        struct mm_struct *mm;
        struct signal_struct *signal;
        const struct cred *real_cred;
};

struct oom_control {
        struct mem_cgroup *memcg;
        unsigned long totalpages;
        struct task_struct *chosen;
        long chosen_points;
        enum oom_constraint constraint;
};

#pragma clang attribute pop

/* Of the verifier, which knows its size: since 6.7. */
struct bpf_iter_css {
        __u64 __opaque[3];
} __attribute__((aligned(8)));

struct bpf_iter_css_task {
        __u64 __opaque[1];
} __attribute__((aligned(8)));
