/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the order of things after a wakeup, and the one timer. Without shortage and without a victim the timer is
 * off and the wait has no end: at rest the core does not run at all.
 */
#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "action.h"
#include "channel.h"
#include "decide.h"
#include "event.h"
#include "faults.h"
#include "force.h"
#include "machine.h"
#include "moment.h"
#include "notify.h"
#include "pulse.h"
#include "reserve.h"
#include "signs.h"
#include "state.h"
#include "watchdog.h"
#include "withheld.h"

enum { EVENTS_MAX = 32 };

/* What the events of one wakeup add up to. */
struct turn {
        uint64_t now_us;
        bool end;
        bool thrashing;
        bool victim; /* a victim's cgroup has changed */
        bool again;  /* memory has to be looked at once more, when all of them are taken */
};

static uint64_t set_us = OOMSLICE_MOMENT_NEVER; /* what the timer is set to */

static void set_timer(int timer_fd) {
        uint64_t machine_us = oomslice_machine_next(), begun_us = oomslice_decide_next();
        uint64_t next_us = machine_us < begun_us ? machine_us : begun_us;
        uint64_t ping_us = oomslice_notify_next(), faults_us = oomslice_faults_next();
        struct itimerspec when = {0};

        if (ping_us < next_us)
                next_us = ping_us;
        if (faults_us < next_us)
                next_us = faults_us;
        if (next_us == set_us)
                return;
        if (next_us != OOMSLICE_MOMENT_NEVER) {
                when.it_value.tv_sec = (time_t)(next_us / 1000000);
                /* A time of zero would switch the timer off. */
                when.it_value.tv_nsec = (long)(next_us % 1000000 * 1000) + 1;
        }
        /* Can only fail for times out of range, which 64 bits of microseconds since boot are not. */
        if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
                set_us = next_us;
}

static void domain_fired(const struct turn *turn, const struct oomslice_event *event, uint32_t events) {
        if (events & EPOLLERR)
                oomslice_force_drop_trigger(event->index); /* its cgroup is gone, and the next plan knows */
        else if (oomslice_force_is_stalled(event->index))
                oomslice_machine_pressure(event->index, turn->now_us);
}

/* An event of a plan that is no longer in force says nothing of this one. */
static bool is_stale(const struct oomslice_event *event) {
        const struct oomslice_force *force = oomslice_force_get();

        return !force || event->tag != force->tag;
}

static void take_event(struct turn *turn, const struct epoll_event *e, int timer_fd) {
        const struct oomslice_event event = oomslice_event_unpack(e->data.u64);
        uint64_t expirations;

        /* These two change nothing by themselves, and nobody waits for the answer to them. */
        if (event.kind != OOMSLICE_EVENT_TIMER && event.kind != OOMSLICE_EVENT_FAULTS)
                turn->again = true;
        switch (event.kind) {
        case OOMSLICE_EVENT_SIGNAL:
                turn->end = true;
                break;
        case OOMSLICE_EVENT_TIMER:
                (void)!read(timer_fd, &expirations,
                            sizeof(expirations)); /* EAGAIN: set anew since it ran out */
                set_us = OOMSLICE_MOMENT_NEVER;
                break;
        case OOMSLICE_EVENT_LISTEN:
                oomslice_channel_accept();
                break;
        case OOMSLICE_EVENT_CLIENT:
                oomslice_channel_receive(e->events);
                break;
        case OOMSLICE_EVENT_SIGN:
                oomslice_machine_sign(turn->now_us);
                break;
        case OOMSLICE_EVENT_THRASH:
                turn->thrashing = turn->thrashing || (!is_stale(&event) && oomslice_force_is_thrashing());
                break;
        case OOMSLICE_EVENT_DOMAIN:
                if (!is_stale(&event))
                        domain_fired(turn, &event, e->events);
                break;
        case OOMSLICE_EVENT_VICTIM:
                turn->victim = true;
                break;
        case OOMSLICE_EVENT_FAULTS:
                oomslice_faults_fired();
                break;
        case OOMSLICE_EVENT_SIGNS:
                oomslice_signs_fired();
                break;
        }
}

static bool is_calm(void) {
        return !oomslice_machine_watching() && oomslice_action_next() == OOMSLICE_MOMENT_NEVER;
}

/* What the turn was for is done: who asked before it looked has the answer. */
static void beat(uint64_t looked_nsec, uint64_t now_us) {
        /* First: whoever sees the answer is to see whether he may ask again. */
        oomslice_signs_turn(oomslice_machine_margin(), oomslice_machine_watching(), now_us);
        oomslice_pulse_turn(oomslice_machine_has_looked() ? looked_nsec : 0, oomslice_action_deadline(),
                            oomslice_withheld_last());
}

static void count_faults(uint64_t now_us) {
        oomslice_faults_turn(oomslice_machine_margin(), oomslice_machine_watching(), now_us);
}

int oomslice_loop_run(int epoll_fd, int timer_fd) {
        static struct epoll_event events[EVENTS_MAX];
        uint64_t looked_nsec;

        /* A plan may have been inherited in the middle of a shortage. */
        oomslice_watchdog_turn_begin(oomslice_moment_now());
        looked_nsec = oomslice_moment_nsec();
        oomslice_machine_read(oomslice_moment_now());
        oomslice_machine_look(oomslice_moment_now(), false);
        beat(looked_nsec, oomslice_moment_now());
        count_faults(oomslice_moment_now());
        for (;;) {
                struct turn turn = {0};
                int n;

                set_timer(timer_fd);
                /* Taking a plan opens files, which may have to wait for memory: not while a victim is dying. */
                oomslice_channel_hold(oomslice_action_next() != OOMSLICE_MOMENT_NEVER);

                oomslice_watchdog_turn_end();
                n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
                if (n < 0 && errno != EINTR)
                        return -errno;
                oomslice_state_count_wakeup();
                turn.now_us = oomslice_moment_now();
                oomslice_watchdog_turn_begin(turn.now_us);
                looked_nsec = oomslice_moment_nsec();
                oomslice_machine_read(turn.now_us);
                for (int i = 0; i < n; i++)
                        take_event(&turn, &events[i], timer_fd);
                if (turn.end)
                        return 0;
                oomslice_decide_poll(turn.now_us, turn.victim, oomslice_machine_available());
                if (turn.again || !is_calm()) {
                        /* The memory may have come back since: nobody dies for an old figure. */
                        looked_nsec = oomslice_moment_nsec();
                        oomslice_machine_read(turn.now_us);
                }
                oomslice_machine_look(turn.now_us, turn.thrashing);
                beat(looked_nsec, turn.now_us);
                count_faults(turn.now_us);
                oomslice_reserve_turn(turn.now_us, is_calm());
                oomslice_notify_turn(!is_calm(), turn.now_us);
        }
}
