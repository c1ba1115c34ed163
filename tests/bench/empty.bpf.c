/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that do nothing, one for each kind of hook that those of oomslice are on, where the kernel runs them while it
 * reclaims: what run statistics say of them is what these cost themselves. programs_bench.py loads them.
 */
#define SEC(name) __attribute__((section(name), used))

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("fentry/wakeup_kswapd")
int fentry(void *context) {
        return 0;
}

SEC("fexit/try_to_free_pages")
int fexit(void *context) {
        return 0;
}

SEC("tp_btf/mm_vmscan_wakeup_kswapd")
int tp_btf(void *context) {
        return 0;
}
