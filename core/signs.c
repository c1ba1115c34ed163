/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the core's end of the ring buffer "signs". A record says no more than that memory is worth a look: every turn
 * looks, so there is nothing to decide here. The programs ask at most one question at a time, and before they ask they
 * look at the pulse for whether it is of use: so what is written there at the end of a turn keeps the wakeups few.
 *
 * - While the timer of the watch runs, signs are of no use at all.
 * - After a sign nobody needs another before half of the margin could be gone, as with page faults (faults.c).
 *
 * The only call for a sign is the epoll_wait() that returns by it: the positions lie in memory that is shared with the
 * kernel, and pages of a ring buffer are in place when they are mapped.
 */
#define _GNU_SOURCE
#include "signs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bpfring.h"
#include "event.h"
#include "faults.h"
#include "pinned.h"
#include "pulse.h"

static int epoll = -1, ring_fd = -1;
static uint32_t ring_id; /* 0: there is none */
static struct oomslice_bpfring ring;
static uint32_t processors = 1;
static bool came;      /* a sign, in this turn */
static bool unwelcome; /* as long as the watch lasts */

void oomslice_signs_init(int epoll_fd) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        epoll = epoll_fd;
        processors = online > 0 ? (uint32_t)online : 1;
}

int oomslice_signs_take(int fd) {
        const struct oomslice_event event = {OOMSLICE_EVENT_SIGNS, 0, 0};
        struct oomslice_pinned_map map;
        struct oomslice_bpfring other;
        int copy, r;

        r = oomslice_pinned_map(fd, &map);
        if (r < 0)
                return r == -EINVAL ? -EBADMSG : r;
        if (map.type != BPF_MAP_TYPE_RINGBUF)
                return -EBADMSG;
        if (map.id == ring_id)
                return 0;
        r = oomslice_bpfring_map(&other, fd, map.entries);
        if (r < 0)
                return r;
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        r = copy < 0 ? -errno : oomslice_event_set(epoll, copy, EPOLLIN, event);
        if (r < 0) {
                oomslice_bpfring_unmap(&other);
                if (copy >= 0)
                        close(copy);
                return r;
        }
        oomslice_signs_drop();
        ring = other;
        ring_fd = copy;
        ring_id = map.id;
        return 0;
}

void oomslice_signs_drop(void) {
        if (ring_id == 0)
                return;
        /* Others may have the file open, so closing it does not take it out. */
        (void)epoll_ctl(epoll, EPOLL_CTL_DEL, ring_fd, NULL);
        close(ring_fd);
        oomslice_bpfring_unmap(&ring);
        ring_fd = -1;
        ring_id = 0;
}

void oomslice_signs_fired(void) {
        const void *record;
        uint32_t size;
        int r;

        if (ring_id == 0)
                return;
        while ((r = oomslice_bpfring_next(&ring, &record, &size)) > 0)
                came = true;
        oomslice_bpfring_release(&ring, ring.position);
        /* Not what a program could have written. Left in the set it would report for ever. */
        if (r < 0)
                oomslice_signs_drop();
}

void oomslice_signs_turn(uint64_t margin, bool watching, uint64_t now_us) {
        bool was = unwelcome;

        unwelcome = watching;
        if (watching)
                oomslice_pulse_quiet(UINT64_MAX);
        else if (came || was)
                oomslice_pulse_quiet(now_us + oomslice_faults_pause(margin, processors));
        came = false;
}
