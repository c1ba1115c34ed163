/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tells whom the programs in the kernel would choose. Attached to nothing: it runs when somebody asks (BPF_PROG_RUN), and
 * does what the others do at a shortage but the killing.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "choice.h"
#include "process.h"
#include "question.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("syscall")
int who(struct oomslice_question *question) {
        struct oomslice_chosen chosen;

        choose(question->domain, question->tried, &chosen);
        question->chosen = chosen;
        return 0;
}

/* Of the choice that is in the question: a program of its own, since neither fits into one page with the other. */
SEC("syscall")
int whose(struct oomslice_question *question) {
        struct oomslice_process process;

        largest_process(question->chosen.cgroup_id, &process);
        question->process = process;
        return 0;
}
