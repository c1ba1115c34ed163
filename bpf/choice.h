/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once
/*
 * The plan's choice inside the kernel: who below a cgroup dies first, by the values in "slices" and by what units hold now.
 * The rule is the core's own (rule.h). It reads and answers; it kills nobody.
 *
 * For tracing programs and for those that may sleep, since 6.12. Whoever includes this has <linux/bpf.h>, vmlinux_min.h and
 * libbpf's headers before it.
 */
#include "chosen.h"
#include "maps.h"
#include "policy.h"
#include "rule.h"

/* enum bpf_cgroup_iter_order: the cgroup itself first, then parents before children. */
enum { WALK_DESCENDANTS = 2 };
enum { PAGE_SHIFT = 12 };

extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern struct cgroup *bpf_cgroup_from_id(__u64 id) __ksym;
extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgroup, int level) __ksym;
extern void bpf_cgroup_release(struct cgroup *cgroup) __ksym;
extern void *bpf_rdonly_cast(const void *object, __u32 type) __ksym;
extern int bpf_iter_css_new(struct bpf_iter_css *iterator, struct cgroup_subsys_state *start,
                            unsigned int flags) __ksym;
extern struct cgroup_subsys_state *bpf_iter_css_next(struct bpf_iter_css *iterator) __ksym;
extern void bpf_iter_css_destroy(struct bpf_iter_css *iterator) __ksym;

/*
 * What an administrator's program replaces: a function of its own in every program that chooses. Weak, so that the compiler
 * takes nothing for granted of it: else it would leave out of the candidate what is not read here.
 */
__weak int oomslice_policy(struct oomslice_policy_candidate *candidate) {
        /* The verifier's question, not ours: whoever calls it has one. */
        return candidate ? OOMSLICE_POLICY_DEFAULT : OOMSLICE_POLICY_SKIP;
}

/* In how many choices it had a say: somebody was skipped, or wanted before others. Shared (maps.h). */
struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(max_entries, 1);
        __type(key, __u32);
        __type(value, __u64);
} policy_hits SEC(".maps");

/* One cgroup on the way, as it was found. */
struct oomslice_seen {
        struct oomslice_policy_candidate candidate;
        __u64 tried;   /* the cgroup that shall not be chosen */
        __u64 outside; /* not 0: the walk has begun above the domain */
        __s64 memory;  /* pages, or what a counter had in the moment */
        __s64 swap;
        __s32 level;
        __s32 populated;
        __u32 valued;
        __u32 tried_until_s;
};

static __always_inline __u64 bytes(__s64 pages) {
        return pages > 0 ? (__u64)pages << PAGE_SHIFT : 0;
}

/* Whether it comes before what was chosen so far. */
static __always_inline bool outranks(const struct oomslice_policy_candidate *one, __u32 wanted,
                                     const struct oomslice_chosen *chosen) {
        if (!chosen->cgroup_id)
                return true;
        if (wanted != chosen->wanted)
                return wanted > chosen->wanted;
        return oomslice_rule_order(one->priority, one->usage, one->cgroup_id, chosen->priority, chosen->usage,
                                   chosen->cgroup_id) < 0;
}

/* Whether a walk that began above the domain is in it now. Its cgroups come one after the other: the domain itself, and then
 * those of a deeper level. `level` of the domain plus 1 is kept with the choice. */
static __always_inline bool inside(const struct oomslice_seen *seen, struct oomslice_chosen *chosen) {
        if (seen->candidate.cgroup_id == seen->outside)
                chosen->depth = seen->level + 1;
        else if (chosen->depth && seen->level < (__s32)chosen->depth)
                chosen->depth = 0;
        return chosen->depth;
}

/*
 * One step of the choice. Like choose() it is a function that the verifier checks by itself, once: as a part of the loop it
 * would be checked for every way through it, which is too much for 6.12. 0, for the verifier.
 */
__attribute__((noinline)) int consider(struct oomslice_seen *seen, struct oomslice_chosen *chosen) {
        struct oomslice_policy_candidate candidate;
        __u32 state = OOMSLICE_CANDIDATE_BELOW, wanted;
        int answer;

        if (!seen || !chosen)
                return 0;
        if (seen->outside && !inside(seen, chosen))
                return 0;
        chosen->result = OOMSLICE_CHOSEN_NOBODY;
        chosen->cgroups++;
        if (!seen->valued)
                return 0;
        chosen->units++;
        if (seen->populated)
                state |= OOMSLICE_CANDIDATE_POPULATED;
        if (seen->candidate.cgroup_id == seen->tried || seen->tried_until_s > bpf_ktime_get_ns() / 1000000000)
                state |= OOMSLICE_CANDIDATE_TRIED;
        if (oomslice_rule_verdict(seen->candidate.flags, state) != OOMSLICE_VERDICT_ELIGIBLE)
                return 0;
        chosen->eligible++;
        seen->candidate.swap = bytes(seen->swap);
        seen->candidate.usage = bytes(seen->memory) + seen->candidate.swap;
        /* A copy is asked about: what is written into it is of no effect. */
        candidate = seen->candidate;
        answer = oomslice_policy(&candidate);
        if (answer == OOMSLICE_POLICY_SKIP) {
                chosen->skipped++;
                return 0;
        }
        wanted = answer == OOMSLICE_POLICY_KILL;
        if (!outranks(&seen->candidate, wanted, chosen))
                return 0;
        chosen->cgroup_id = seen->candidate.cgroup_id;
        chosen->usage = seen->candidate.usage;
        chosen->priority = seen->candidate.priority;
        chosen->flags = seen->candidate.flags;
        chosen->scope = seen->candidate.scope;
        chosen->level = seen->level;
        chosen->wanted = wanted;
        return 0;
}

/*
 * The counters of a cgroup, for it and all below it, in pages. Nothing where the memory controller is not on.
 *
 * Page cache is in them, other than in what the core goes by. The sum of it for a cgroup and all below (memcg->vmstats) is
 * made every two seconds, or when somebody reads memory.stat, and in a shortage it falls within less: what was reclaimed
 * since would be taken off what is left, the most from who had the most of it. The lengths of the lists are exact, but of
 * one cgroup alone. Nor is there much of it: MemAvailable has at least half of all page cache in it and is at its limit, and
 * a cgroup at its own limit has been searched in vain.
 */
static __always_inline void read_counters(struct cgroup *cgroup, __s64 *memoryp, __s64 *swapp) {
        __u64 offset = bpf_core_field_offset(struct cgroup, subsys) +
                       bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) * sizeof(void *);
        struct mem_cgroup *memcg = NULL;

        bpf_probe_read_kernel(&memcg, sizeof(memcg), (void *)cgroup + offset);
        /* Reading from nowhere gives 0. */
        memcg = bpf_rdonly_cast(memcg, bpf_core_type_id_kernel(struct mem_cgroup));
        *memoryp = memcg->memory.usage.counter;
        *swapp = memcg->swap.usage.counter;
}

/* Usage and swap of one cgroup, for whoever looks at that one alone. */
static __always_inline void charged(struct cgroup *cgroup, struct oomslice_policy_candidate *candidate) {
        __s64 memory, swap;

        read_counters(cgroup, &memory, &swap);
        candidate->swap = bytes(swap);
        candidate->usage = bytes(memory) + candidate->swap;
}

/* More than 0: processes are in it or below it. */
static __always_inline __s32 populated(const struct cgroup *cgroup) {
        if (!bpf_core_field_exists(struct cgroup, nr_populated_csets))
                return cgroup->self.nr_populated_csets + cgroup->self.nr_populated_children;
        return cgroup->nr_populated_csets + cgroup->nr_populated_domain_children +
               cgroup->nr_populated_threaded_children;
}

static __always_inline void look(struct cgroup *cgroup, struct oomslice_seen *seen) {
        struct oomslice_slice_value *value = bpf_cgrp_storage_get(&slices, cgroup, NULL, 0);

        seen->candidate.cgroup_id = cgroup->kn->id;
        seen->level = cgroup->level;
        seen->valued = 0;
        if (!value)
                return;
        seen->valued = 1;
        seen->candidate.priority = value->priority;
        seen->candidate.flags = value->flags;
        seen->candidate.scope = value->scope;
        seen->tried_until_s = value->tried_until_s;
        seen->populated = populated(cgroup);
        read_counters(cgroup, &seen->memory, &seen->swap);
}

/* Needs RCU and the root cgroup. The root slice is in every plan: without its value nothing in the map can be relied on. Two
 * who look something up on one processor at once may get nothing (6.12). */
static __always_inline bool readable(struct cgroup *root) {
        return root && bpf_cgrp_storage_get(&slices, root, NULL, 0);
}

static __always_inline void count_hit(void) {
        __u32 zero = 0;
        __u64 *hits = bpf_map_lookup_elem(&policy_hits, &zero);

        if (hits)
                __sync_fetch_and_add(hits, 1);
}

/*
 * Who dies first below the cgroup `domain`, itself included; `tried` is the id of one that shall not (0: there is none).
 * Writes `chosen` in any case; 0, for the verifier. A function that is verified by itself, so `chosen` may be on the stack:
 * the verifier does not follow its counters through every round of the loop.
 */
__attribute__((noinline)) int choose(__u64 domain, __u64 tried, struct oomslice_chosen *chosen) {
        struct oomslice_seen seen = {.tried = tried};
        struct cgroup_subsys_state *css;
        struct bpf_iter_css iterator;
        struct oomslice_pulse *now;
        struct cgroup *start, *root;
        __u32 zero = 0;

        if (!chosen)
                return 0;
        __builtin_memset(chosen, 0, sizeof(*chosen));
        now = bpf_map_lookup_elem(&pulse, &zero);
        if (!now || !now->generation) {
                chosen->result = OOMSLICE_CHOSEN_NO_PLAN;
                return 0;
        }
        chosen->result = OOMSLICE_CHOSEN_NO_DOMAIN;
        if (!domain)
                return 0;
        seen.candidate.domain_id = domain;
        seen.candidate.asking_pid = bpf_get_current_pid_tgid() >> 32;
        bpf_rcu_read_lock();
        start = bpf_cgroup_from_id(domain);
        if (!start) {
                /* A process in a cgroup namespace finds only what is below its own root (6.12). So all
                 * cgroups are walked, in which those of the domain come one after the other. */
                start = bpf_cgroup_ancestor(bpf_get_current_task_btf()->cgroups->dfl_cgrp, 0);
                seen.outside = domain;
        }
        if (!start)
                goto out;
        root = bpf_cgroup_ancestor(start, 0);
        if (!readable(root))
                chosen->result = OOMSLICE_CHOSEN_UNSURE;
        else {
                bpf_iter_css_new(&iterator, &start->self, WALK_DESCENDANTS);
                while ((css = bpf_iter_css_next(&iterator))) {
                        look(css->cgroup, &seen);
                        consider(&seen, chosen);
                }
                bpf_iter_css_destroy(&iterator);
                if (!readable(root))
                        chosen->result = OOMSLICE_CHOSEN_UNSURE;
                else if (chosen->cgroup_id)
                        chosen->result = OOMSLICE_CHOSEN_ONE;
        }
        if (root)
                bpf_cgroup_release(root);
        bpf_cgroup_release(start);
out:
        bpf_rcu_read_unlock();
        if (chosen->result != OOMSLICE_CHOSEN_ONE)
                chosen->cgroup_id = 0;
        if (chosen->skipped || (chosen->cgroup_id && chosen->wanted))
                count_hit();
        return 0;
}
