/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the filter of the armed core. The unit's SystemCallFilter= has to allow what the start needs as well (threads,
 * priorities, a socket that listens); after that the core reads, writes, waits and kills, and the list is short enough to
 * be read. It keeps a mistake, or whoever finds one, from more than that: nothing is executed, nobody is traced, no
 * thread is made, and nothing is opened by a path that does not begin at a descriptor the core holds.
 *
 * A call that is not in the list fails with EPERM, which the code treats as any other failure: a decision goes on where
 * a signal would end it. One program for all threads (TSYNC), some of which may not have run yet: their start
 * is in the list as well. Builds with sanitizers do, so they go without.
 */
#define _GNU_SOURCE
#include "seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#endif

#if !defined(ARCHITECTURE) || defined(OOMSLICE_UNFILTERED)

int oomslice_seccomp_install(void) {
        return -ENOTSUP;
}

#else

/* Missing from older headers; the same on every architecture. */
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define ALLOW(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), ANSWER(SECCOMP_RET_ALLOW)

/* By the lower half of the first argument; the machines above are little-endian. */
#define ALLOW_ONLY(name, value)                                                                \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), LOAD(args[0]),                  \
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1), ANSWER(SECCOMP_RET_ALLOW), \
                ANSWER(SECCOMP_RET_ERRNO | EPERM)
#define ALLOW_BUT(name, value)                                                                 \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 4), LOAD(args[0]),                  \
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 1, 0), ANSWER(SECCOMP_RET_ALLOW), \
                ANSWER(SECCOMP_RET_ERRNO | EPERM)
/* By the lower half of the second argument: one of three requests. */
#define ALLOW_REQUESTS(name, a, b, c)                                                      \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 6), LOAD(args[1]),              \
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (a), 2, 0),                            \
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (b), 1, 0),                            \
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (c), 0, 1), ANSWER(SECCOMP_RET_ALLOW), \
                ANSWER(SECCOMP_RET_ERRNO | EPERM)

int oomslice_seccomp_install(void) {
        static const struct sock_filter filter[] = {
                LOAD(arch),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
                ANSWER(SECCOMP_RET_KILL_PROCESS), /* the numbers would mean other calls */
                LOAD(nr),

                /* Waiting, and the timers of it. */
                ALLOW(epoll_pwait), /* the one where there is no other (arm64) */
#ifdef SYS_epoll_wait
                ALLOW(epoll_wait),
#endif
                ALLOW(epoll_ctl),
                ALLOW(timerfd_settime),
                ALLOW(clock_nanosleep), /* nanosleep() */
                ALLOW(nanosleep),       /* of other C libraries */
                ALLOW(clock_gettime),   /* without a vDSO */
                ALLOW(ppoll),           /* poll() of the watchdog; it waits for its hand */
#ifdef SYS_poll
                ALLOW(poll),
#endif
                ALLOW(futex),           /* the C library's own, between its threads */
                ALLOW(restart_syscall), /* after SIGSTOP and SIGCONT, or a debugger */

                /* Files that are open. */
                ALLOW(read),
                ALLOW(write),
                ALLOW(pread64),
                ALLOW(pwrite64),
                ALLOW(writev), /* the last words, if the wait fails */
                ALLOW(lseek),
                ALLOW(getdents64),
                ALLOW(fstat), /* of other C libraries */
                ALLOW(newfstatat),
                ALLOW(fstatfs),
                ALLOW(fcntl),
                ALLOW(fgetxattr), /* the marks for systemd */
                ALLOW(fsetxattr),
                ALLOW(close),

                /* The socket: clients, and the service manager. */
                ALLOW(accept4),
                ALLOW(recvmsg),
                ALLOW(sendmsg),

                /* A plan that is taken, and the reserve. The rights: one is let go for a moment, see psi.c. */
                ALLOW(capget),
                ALLOW(capset),
                ALLOW(mmap),
                ALLOW(munmap),
                ALLOW(mprotect),
                ALLOW(madvise),
                ALLOW(mlock),
                ALLOW(mlock2),
                ALLOW(munlock),

                /* The kill. */
                ALLOW(pidfd_open),
                ALLOW(pidfd_send_signal),
                ALLOW(process_mrelease),
                ALLOW(sched_setscheduler), /* for reapers that have to hurry */
                ALLOW(getpid),

                /* The end. */
                ALLOW(exit), /* of a thread */
                ALLOW(exit_group),
                ALLOW(rt_sigreturn), /* after SIGSTOP and SIGCONT, or a debugger */

                /* A thread that is only just starting; for the C library it is the end if it may not. */
                ALLOW(rseq),
                ALLOW(set_robust_list),
                ALLOW(rt_sigprocmask),
                ALLOW_ONLY(prctl, PR_SET_IO_FLUSHER),

                /* Which map it is that a client says is the pulse; nothing else of bpf(2). */
                ALLOW_ONLY(bpf, BPF_OBJ_GET_INFO_BY_FD),

                /* Counters of page faults, where there are some. */
                ALLOW_REQUESTS(ioctl, PERF_EVENT_IOC_DISABLE, PERF_EVENT_IOC_PERIOD, PERF_EVENT_IOC_ENABLE),

                /* Below a descriptor that is open, never from the working directory or the root. */
                ALLOW_BUT(openat, (uint32_t)AT_FDCWD),
                ANSWER(SECCOMP_RET_ERRNO | EPERM),
        };
        const struct sock_fprog program = {
                .len = sizeof(filter) / sizeof(filter[0]),
                .filter = (struct sock_filter *)filter,
        };
        long r;

        /* Nothing is ever executed from here; without CAP_SYS_ADMIN the kernel wants to be sure of that. */
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
        /* A positive number is a thread that has another filter: nobody makes one here. */
        return r < 0 ? -errno : r > 0 ? -ESRCH : 0;
}

#endif
