/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * oomslice-core: the kill path. run() is its whole life, in order: take over what a predecessor left, open, rehearse,
 * arm, wait and act. What can fail before it is armed is said on standard error; from then on nothing is allocated,
 * opened by path or logged, no thread has a page fault until the end, but for a plan that is taken and the reserve, and
 * what is missing is reported as a feature that is not there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "action.h"
#include "asked.h"
#include "channel.h"
#include "decide.h"
#include "event.h"
#include "faults.h"
#include "file.h"
#include "force.h"
#include "hands.h"
#include "kill.h"
#include "killing.h"
#include "lock.h"
#include "loop.h"
#include "machine.h"
#include "mark.h"
#include "moment.h"
#include "notify.h"
#include "options.h"
#include "programs.h"
#include "pulse.h"
#include "reaper.h"
#include "record.h"
#include "rehearse.h"
#include "reserve.h"
#include "ringfd.h"
#include "rough.h"
#include "sample.h"
#include "seccomp.h"
#include "signs.h"
#include "state.h"
#include "trail.h"
#include "undo.h"
#include "watchdog.h"
#include "withheld.h"
#include "zram.h"

/* Set for good once the core is armed. The test build's allocator aborts from then on. */
volatile bool oomslice_armed;

static int fail(const char *what, int error) {
        oomslice_options_complain(what, error);
        return error;
}

/* Gives up for good what only the counters need. Every thread that is started after it has as little. */
static int drop_rights(void) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct rights[_LINUX_CAPABILITY_U32S_3] = {0};

        if (syscall(SYS_capget, &header, rights) < 0)
                return -errno;
        rights[CAP_TO_INDEX(CAP_SYS_ADMIN)].permitted &= ~CAP_TO_MASK(CAP_SYS_ADMIN);
        rights[CAP_TO_INDEX(CAP_PERFMON)].permitted &= ~CAP_TO_MASK(CAP_PERFMON);
        for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
                rights[i].effective &= rights[i].permitted;
                rights[i].inheritable &= rights[i].permitted;
        }
        return syscall(SYS_capset, &header, rights) < 0 ? -errno : 0;
}

/*
 * The early sign; without it the pressure figures' has to do. Before anything is read that others have written: a kernel
 * whose perf_event_paranoid is above 2, as Debian's, asks for CAP_SYS_ADMIN, which nothing else here may have.
 */
static int count_faults(int epoll_fd, const char *sys_root) {
        int sys_fd = open(sys_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (sys_fd >= 0 && oomslice_faults_open(epoll_fd, sys_fd) == 0)
                oomslice_state_add_features(OOMSLICE_FEATURE_FAULTS);
        if (sys_fd >= 0)
                close(sys_fd);
        return drop_rights();
}

/* One for each thread that reads it: the kernel lets them into an open file one by one. */
static int open_meminfo(int proc_fd) {
        return openat(proc_fd, "meminfo", O_RDONLY | O_CLOEXEC);
}

static int open_block(const char *sys_root) {
        int sys_fd = open(sys_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), block_fd;

        if (sys_fd < 0)
                return -1;
        block_fd = openat(sys_fd, "block", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(sys_fd);
        return block_fd;
}

static void fit_tables(void) {
        const struct oomslice_force *force = oomslice_force_get();
        uint32_t units = force ? force->plan.header->units_count : 0;

        oomslice_sample_fit(units);
        oomslice_rough_fit(units);
}

/* What every plan in force brings with it, however it came. */
static void plan_in_force(void) {
        const struct oomslice_force *force = oomslice_force_get();

        fit_tables(); /* first: the watchdog may go by this plan already */
        oomslice_decide_plan_taken();
        oomslice_withheld_plan();
        oomslice_pulse_plan(&force->plan.header->machine);
        oomslice_reserve_plan(force->plan.header->machine.reserve,
                              force->plan.header->machine.available_watch);
        oomslice_rehearse_plan(force);
}

static int act(const struct oomslice_message *asked, uint64_t *sequencep) {
        return oomslice_asked_act(asked, oomslice_machine_meminfo(), sequencep);
}

static void plan_taken(int plan_fd) {
        plan_in_force();
        /* Not stored (the manager hangs): a successor then waits for oomsliced to send it. */
        (void)oomslice_notify_store("plan", plan_fd);
}

/* The stored plan comes into force again, the newest if there are several. */
static void restore_plan(const struct oomslice_inherited *inherited, int root_fd) {
        uint32_t detail;
        int r;

        for (uint32_t i = 0; i < inherited->plans_count; i++) {
                r = oomslice_force_restore(inherited->plans[i], root_fd, &detail);
                if (r < 0)
                        (void)fail("stored plan", r);
                else if (r > 0 && r != OOMSLICE_PLAN_E_GENERATION)
                        oomslice_options_complain(oomslice_plan_result_text(r), EBADMSG);
        }
        if (oomslice_force_get())
                plan_in_force();
}

/* The ring of a predecessor, or a new one that systemd keeps from now on. Returns its descriptor or -errno. */
static int get_ring(int stored_fd, void **mapp) {
        int fd, r;

        if (stored_fd >= 0) {
                r = oomslice_ringfd_recover(stored_fd, mapp);
                if (r == 0)
                        return stored_fd;
                (void)fail("stored ring, made anew", r);
                close(stored_fd);
        }
        fd = oomslice_ringfd_new(mapp);
        if (fd >= 0)
                (void)oomslice_notify_store("ring", fd);
        return fd;
}

/* Each unit takes up to seven descriptors. */
static void raise_descriptor_limit(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE,
                                &limit); /* a plan too large for it is then refused with EMFILE */
        }
}

static int open_signals(int epoll_fd) {
        sigset_t set;
        int fd;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (fd < 0)
                return -errno;
        return oomslice_event_set(epoll_fd, fd, EPOLLIN,
                                  (struct oomslice_event){OOMSLICE_EVENT_SIGNAL, 0, 0});
}

/*
 * Who works in real time may run out of memory like everyone else. So above what real-time programs usually give
 * themselves (audio: 20 or so), and beside the kernel's threaded interrupts (50); below 99, which is for what keeps the
 * processors themselves going.
 */
enum { PRIORITY = OOMSLICE_REAPER_HURRIED + 1 };

/* Everything that makes the deciding thread independent of the rest; each step that fails is a missing feature. */
static void arm(void) {
        const struct sched_param priority = {.sched_priority = PRIORITY};

        if (oomslice_process_mrelease(-1) != -ENOSYS)
                oomslice_state_add_features(OOMSLICE_FEATURE_MRELEASE);
        /*
         * Bounds the stay in reclaim throttling, should this thread ever have to allocate in the kernel: it does no I/O
         * for it, and waits for kswapd a second at most. The price: its allocations are without __GFP_FS, for which
         * the kernel calls no OOM killer (out_of_memory() returns at once), so an allocation that finds nothing tries
         * again and again until somebody else has freed memory. Hence whatever needs memory comes after the kill, and
         * a thread that is caught in such a loop has the watchdog behind it.
         */
        (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
        /* The C library's own start has a heap of 132 KiB made, of which it uses one page. */
        (void)malloc_trim(0);
        if (oomslice_lock_all() == 0) {
                oomslice_state_add_features(OOMSLICE_FEATURE_LOCKED);
                oomslice_force_lock();
                fit_tables();
                (void)oomslice_reserve_arm(); /* no addresses for it: the state says that nothing is held */
        }
        /* Last: the reapers were started before and keep normal priority. A real-time thread may also take from
         * the page allocator's reserve (ALLOC_MIN_RESERVE) what the kernel needs to answer it. */
        (void)oomslice_watchdog_arm(priority.sched_priority + 1);
        (void)oomslice_mark_arm(priority.sched_priority);
        if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority) == 0)
                oomslice_state_add_features(OOMSLICE_FEATURE_REALTIME);
}

static int run(const struct oomslice_options *options) {
        static const struct oomslice_channel_hooks hooks = {oomslice_state_get, plan_taken, act,
                                                            oomslice_asked_release, oomslice_programs_take};
        struct oomslice_inherited inherited;
        int epoll_fd, timer_fd, event_fd, ring_fd, root_fd, proc_fd, meminfo_fd, status_fd, r;
        void *ring = NULL;

        oomslice_file_decide();
        epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (epoll_fd < 0)
                return fail("epoll", -errno);
        r = count_faults(epoll_fd, options->sys_root);
        if (r < 0)
                return fail("rights", r);

        /* Take over */
        oomslice_notify_inherit(&inherited);
        raise_descriptor_limit();
        ring_fd = get_ring(inherited.ring, &ring);
        if (ring_fd < 0)
                return fail("ring", ring_fd);

        /* Open */
        timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (timer_fd < 0 || event_fd < 0)
                return fail("timerfd or eventfd", -errno);
        r = open_signals(epoll_fd);
        if (r < 0)
                return fail("signalfd", r);
        r = oomslice_event_set(epoll_fd, timer_fd, EPOLLIN,
                               (struct oomslice_event){OOMSLICE_EVENT_TIMER, 0, 0});
        if (r < 0)
                return fail("epoll", r);
        proc_fd = open(options->proc_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (proc_fd < 0)
                return fail(options->proc_root, -errno);
        meminfo_fd = open_meminfo(proc_fd);
        if (meminfo_fd < 0)
                return fail("meminfo", -errno);
        /* Without them MemAvailable is taken for what it says. */
        oomslice_withheld_init(openat(proc_fd, "zoneinfo", O_RDONLY | O_CLOEXEC),
                               openat(proc_fd, "sys/vm/watermark_boost_factor", O_RDONLY | O_CLOEXEC));
        oomslice_zram_init(open_block(options->sys_root), openat(proc_fd, "swaps", O_RDONLY | O_CLOEXEC));
        status_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC); /* -1: locked_bytes stays 0 */
        root_fd = open(options->cgroup_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return fail(options->cgroup_root, -errno);
        if (inherited.socket < 0)
                inherited.socket = oomslice_channel_listen(options->socket);
        if (inherited.socket < 0)
                return fail(options->socket, inherited.socket);
        (void)fcntl(inherited.socket, F_SETFL, O_NONBLOCK);

        oomslice_signs_init(epoll_fd);
        r = oomslice_pulse_init(options->dry_run);
        if (r < 0)
                return fail("page for the pulse", r);
        oomslice_state_init(status_fd);
        oomslice_record_init(ring, event_fd);
        oomslice_trail_init(ring);
        oomslice_machine_init(meminfo_fd);
        oomslice_decide_init(options->dry_run);
        oomslice_action_init(epoll_fd);
        oomslice_sample_init();
        oomslice_force_init(epoll_fd, proc_fd);
        r = oomslice_channel_init(epoll_fd, inherited.socket, ring_fd, event_fd, &hooks);
        if (r < 0)
                return fail("socket", r);
        oomslice_killing_init(proc_fd);
        r = oomslice_undo_open(options->undo, root_fd);
        if (r < 0)
                (void)fail(options->undo, r); /* goes on: nobody is frozen or throttled then */
        oomslice_undo_predecessor();
        r = oomslice_programs_restore(&inherited);
        if (r < 0)
                (void)fail("stored map of the programs", r); /* goes on: oomsliced sends it again */
        restore_plan(&inherited, root_fd);
        r = oomslice_hands_start();
        if (r < 0)
                (void)fail("threads for reclaim", r); /* goes on: without throttle and reclaim */
        r = oomslice_mark_start();
        if (r < 0)
                (void)fail("thread for marks", r); /* goes on: systemd calls the victims' end a signal */
        r = oomslice_reaper_start();
        if (r < 0)
                (void)fail("reaper threads", r); /* goes on: dying takes longer without them */
        r = oomslice_reserve_start(open_meminfo(proc_fd));
        if (r < 0)
                (void)fail("reserve thread", r); /* goes on: then nothing is reserved */
        r = oomslice_watchdog_start(open_meminfo(proc_fd), options->dry_run);
        if (r < 0)
                (void)fail("watchdog", r); /* goes on: systemd's is still there */

        /* Rehearse */
        oomslice_rehearse(root_fd);
        close(root_fd);

        /* Arm */
        arm();
        oomslice_armed = true;
        (void)oomslice_notify("READY=1");
        r = oomslice_seccomp_install();
        if (r < 0 && r != -ENOTSUP)
                (void)fail("seccomp filter", r); /* goes on: the unit's own is wider, and there */

        /* Wait and act */
        r = oomslice_loop_run(epoll_fd, timer_fd);
        oomslice_undo_all(oomslice_moment_now());
        (void)oomslice_notify("STOPPING=1");
        return r < 0 ? fail("epoll_wait", r) : 0;
}

/* After the end of a core, however it came: nobody is left standing still. */
static int release_all(const struct oomslice_options *options) {
        int root_fd, r;

        root_fd = open(options->cgroup_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return fail(options->cgroup_root, -errno);
        r = oomslice_undo_open(options->undo, root_fd);
        close(root_fd);
        if (r < 0)
                return fail(options->undo, r);
        oomslice_undo_predecessor();
        return 0;
}

int main(int count, char **arguments) {
        struct oomslice_options options;
        int r;

        r = oomslice_options_parse(count, arguments, &options);
        if (r != 0)
                return r < 0 ? 2 : 0;
        if (options.release)
                return release_all(&options) < 0 ? 1 : 0;
        return run(&options) < 0 ? 1 : 0;
}
