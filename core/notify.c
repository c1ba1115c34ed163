/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the sd_notify and socket activation protocols (sd_notify(3), sd_listen_fds(3)), which are a datagram and
 * three variables; a library for it would bring a heap. Never blocks: a manager that hangs costs its copy, no more.
 */
#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "file.h"
#include "moment.h"

enum { LISTEN_FIRST = 3, STORED_NAME_MAX = 16 };

/* Longer than PID 1 is usually kept from its work in a shortage, and than the watchdog takes for one victim. */
#define PATIENCE_US "20000000"
#define PING_US UINT64_C(4000000)

static uint64_t told_us; /* when the manager has heard of a turn; 0: it expects none */

/* Length of the name at `names`, which ends at ':' or at the end. */
static size_t name_length(const char *names) {
        return strcspn(names, ":");
}

static int is_name(const char *names, const char *name) {
        return name_length(names) == strlen(name) && strncmp(names, name, strlen(name)) == 0;
}

static void assign(struct oomslice_inherited *inherited, const char *name, int fd) {
        int *fdp = NULL;

        if (is_name(name, "core.sock") || is_name(name, "core") || is_name(name, "oomslice-core.socket"))
                fdp = &inherited->socket;
        else if (is_name(name, "ring"))
                fdp = &inherited->ring;
        else if (is_name(name, "pulse"))
                fdp = &inherited->pulse;
        else if (is_name(name, "signs"))
                fdp = &inherited->signs;
        else if (is_name(name, "plan") && inherited->plans_count < OOMSLICE_NOTIFY_PLANS_MAX)
                fdp = &inherited->plans[inherited->plans_count++];
        if (!fdp || *fdp >= 0) {
                close(fd);
                return;
        }
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        *fdp = fd;
}

void oomslice_notify_inherit(struct oomslice_inherited *inheritedp) {
        const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"),
                   *names = getenv("LISTEN_FDNAMES");
        uint64_t fds;

        *inheritedp = (struct oomslice_inherited){
                .socket = -1,
                .ring = -1,
                .pulse = -1,
                .signs = -1,
                .plans = {-1, -1, -1, -1},
        };
        if (!pid || !count || oomslice_file_parse_number(pid) != (uint64_t)getpid())
                return;
        fds = oomslice_file_parse_number(count);
        for (uint64_t i = 0; i < fds && i < 1024; i++) {
                assign(inheritedp, names ? names : "", LISTEN_FIRST + (int)i);
                if (names) {
                        names += name_length(names);
                        names += *names == ':';
                }
        }
}

static int send_state(const char *state, int fd) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        struct iovec text = {.iov_base = (char *)state, .iov_len = strlen(state)};
        struct msghdr message = {.msg_name = &address, .msg_iov = &text, .msg_iovlen = 1};
        const char *path = getenv("NOTIFY_SOCKET");
        static int socket_fd = -1; /* made once, before anything is short */
        size_t length;

        if (!path || (path[0] != '/' && path[0] != '@'))
                return 0;
        length = strlen(path);
        if (length >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, length);
        if (path[0] == '@')
                address.sun_path[0] = '\0';
        message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
        if (fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                control.header = (struct cmsghdr){
                        .cmsg_len = CMSG_LEN(sizeof(int)),
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        }

        if (socket_fd < 0)
                socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (socket_fd < 0)
                return -errno;
        return sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int oomslice_notify(const char *state) {
        return send_state(state, -1);
}

/*
 * The manager's watchdog stands behind the one of this process: it restarts the core if both threads are stuck. Its
 * pings are wakeups, of which there are none at rest; so it is set (WATCHDOG_USEC=, sd_notify(3)) when the watch over
 * MemAvailable begins or something is under way, for there are turns all the time then, and off (0) after.
 * That is also when it is of use: a core that is stuck at rest is found by the first sign of shortage, which is a turn.
 * Sent when the turn has done all that matters; a send that waits for memory is within the watchdog's time.
 */
void oomslice_notify_turn(bool restless, uint64_t now_us) {
        if (!restless) {
                if (told_us != 0 && oomslice_notify("WATCHDOG_USEC=0") == 0)
                        told_us = 0;
        } else if (told_us == 0) {
                if (oomslice_notify("WATCHDOG_USEC=" PATIENCE_US) == 0)
                        told_us = now_us;
        } else if (now_us - told_us >= PING_US) {
                (void)oomslice_notify(
                        "WATCHDOG=1"); /* a manager that does not read: there are four more tries */
                told_us = now_us;
        }
}

uint64_t oomslice_notify_next(void) {
        return told_us == 0 ? OOMSLICE_MOMENT_NEVER : told_us + PING_US;
}

int oomslice_notify_remove(const char *name) {
        char text[64], *end;

        if (strlen(name) > STORED_NAME_MAX)
                return -EINVAL;
        end = stpcpy(text, "FDSTOREREMOVE=1\nFDNAME=");
        (void)stpcpy(end, name);
        return send_state(text, -1);
}

int oomslice_notify_store(const char *name, int fd) {
        char text[64], *end;
        int r;

        r = oomslice_notify_remove(name);
        if (r < 0)
                return r;
        /* FDPOLL=0: a memfd cannot be polled, and systemd need not try. */
        end = stpcpy(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=");
        (void)stpcpy(end, name);
        return send_state(text, fd);
}
