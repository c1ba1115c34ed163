/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * oomslice-scores: takes tables of units and values from oomsliced and keeps them in force.
 *
 * The socket is AF_UNIX SOCK_SEQPACKET, /run/oomslice/scores.sock; a newer connection replaces the older. A packet "table"
 * comes with a sealed memfd that holds a table (table.h) and replaces the one in force; one without units undoes all.
 * Every table is answered with a packet of text, and so is every later event in which values were written:
 *
 *   units=N hits=N missed=N line=N error=TEXT     line: the first one that is wrong, the table before stays then
 *
 * Between tables it sleeps: a cgroup that is populated anew wakes it, for a second at most, or one that is made or removed in a
 * slice that hands a value down, and nothing else. When it ends, all is undone; if it cannot do that itself, `--restore` does
 * it, from the state file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "apply.h"
#include "force.h"
#include "looks.h"
#include "state.h"
#include "table.h"
#include "watch.h"

#ifndef OOMSLICE_VERSION
#define OOMSLICE_VERSION "unknown"
#endif

enum { LISTEN_FIRST = 3, SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static const char help[] =
        "Usage: oomslice-scores [OPTION...]\n"
        "Gives processes the oom_score_adj that oomslice's plan has for their unit, and takes it back at the end.\n"
        "Started by oomslice-scores.service; needs root.\n"
        "\n"
        "  --socket PATH        listen here (default: /run/oomslice/scores.sock) unless systemd passes a socket\n"
        "  --cgroup-root DIR    the cgroup v2 hierarchy (default: /sys/fs/cgroup)\n"
        "  --state FILE         what has to be undone is written down here (default: /run/oomslice/scores)\n"
        "  --restore            undo what one that has ended left behind, and exit\n"
        "  --version            print the version and exit\n"
        "  --help               print this and exit\n";

struct options {
        const char *socket, *cgroup_root, *state;
        bool restore;
};

static struct oomslice_apply apply = {.root = -1, .proc = -1, .state = -1, .events = -1};
static char said[sizeof(apply.error)];

static int complain(const char *what, int error) {
        (void)fprintf(stderr, "oomslice-scores: %s: %s\n", what, strerrordesc_np(error < 0 ? -error : error));
        return EXIT_FAILURE;
}

/* Once, not for every process of a unit that cannot be written. */
static void say_error(void) {
        if (strcmp(said, apply.error) == 0)
                return;
        (void)fprintf(stderr, "<4>%s\n", apply.error);
        memcpy(said, apply.error, sizeof(said));
}

static int take_table(int fd) {
        struct oomslice_scores next = {0};
        struct stat status;
        char *text = NULL;
        int r = 0;

        if ((fcntl(fd, F_GET_SEALS) & SEALS) != SEALS)
                return -EPERM;
        if (fstat(fd, &status) < 0)
                return -errno;
        if (status.st_size > OOMSLICE_SCORES_SIZE_MAX)
                return -EFBIG;
        text = malloc((size_t)status.st_size + 1);
        if (!text)
                return -ENOMEM;
        if (pread(fd, text, (size_t)status.st_size, 0) != status.st_size)
                r = -EIO;
        if (r == 0)
                r = oomslice_scores_parse(&next, text, (size_t)status.st_size);
        free(text);
        if (r != 0)
                return r;
        if (next.units_count == 0 && next.slices_count == 0) {
                oomslice_force_undo(&apply);
                oomslice_scores_free(&apply.scores);
                oomslice_scores_free(&next);
                return 0;
        }
        return oomslice_force_replace(&apply, &next);
}

static bool answer(int client, int result) {
        char text[512];
        int length;

        if (result < 0)
                (void)snprintf(apply.error, sizeof(apply.error), "the table: %s", strerrordesc_np(-result));
        length = snprintf(text, sizeof(text), "units=%zu hits=%llu missed=%llu line=%d error=%s",
                          apply.scores.units_count, (unsigned long long)apply.hits,
                          (unsigned long long)apply.missed, result > 0 ? result : 0, apply.error);
        return send(client, text, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) == length;
}

/* One packet of the client. False if it is to be dropped. */
static bool receive(int client) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        char text[16] = "";
        struct iovec data = {text, sizeof(text) - 1};
        struct msghdr message = {.msg_iov = &data,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
        ssize_t size = recvmsg(client, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        const struct cmsghdr *header = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        bool kept = false;
        int fd;

        if (size < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
                return false;
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
        if (!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && strcmp(text, "table") == 0)
                kept = answer(client, take_table(fd));
        close(fd);
        return kept;
}

static int serve(int listener, int ending) {
        struct pollfd fds[] = {
                {listener, POLLIN, 0}, {-1, POLLIN, 0}, {apply.events, POLLIN, 0}, {ending, POLLIN, 0}};

        for (;;) {
                uint64_t hits = apply.hits, missed = apply.missed;

                if (poll(fds, 4, oomslice_looks_timeout(&apply.scores)) < 0) {
                        if (errno == EINTR)
                                continue;
                        return complain("poll", errno);
                }
                if (fds[3].revents)
                        return EXIT_SUCCESS;
                if (fds[2].revents)
                        oomslice_watch_read(&apply);
                oomslice_looks_take(&apply);
                if ((hits != apply.hits || missed != apply.missed) && fds[1].fd >= 0)
                        (void)answer(fds[1].fd, 0);
                if (fds[1].revents && !receive(fds[1].fd)) {
                        close(fds[1].fd);
                        fds[1].fd = -1;
                }
                if (fds[0].revents) {
                        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                        if (client >= 0) {
                                if (fds[1].fd >= 0)
                                        close(fds[1].fd);
                                fds[1].fd = client;
                        }
                }
                say_error();
        }
}

/* From systemd (sd_listen_fds(3)), or our own. */
static int listen_socket(const char *path) {
        const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd;

        if (pid && count && atoi(pid) == getpid() && atoi(count) == 1) {
                (void)fcntl(LISTEN_FIRST, F_SETFD, FD_CLOEXEC);
                return LISTEN_FIRST;
        }
        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path) + 1);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)unlink(path);
        if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
                return -errno;
        return fd;
}

static int signal_descriptor(void) {
        sigset_t signals;

        (void)sigemptyset(&signals);
        (void)sigaddset(&signals, SIGTERM);
        (void)sigaddset(&signals, SIGINT);
        if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
                return -errno;
        return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Undoes what is written down in the state file. 0 or -errno. */
static int restore(void) {
        int r = oomslice_state_read(apply.state_path, &apply.scores);

        if (r < 0)
                return r == -ENOENT ? 0 : r;
        oomslice_force_undo(&apply);
        if (apply.missed > 0)
                say_error();
        oomslice_scores_free(&apply.scores);
        return 0;
}

/* 0, or an exit status + 1. */
static int parse(int count, char **arguments, struct options *options) {
        const struct {
                const char *name;
                const char **valuep;
        } valued[] = {{"--socket", &options->socket},
                      {"--cgroup-root", &options->cgroup_root},
                      {"--state", &options->state}};

        for (int i = 1; i < count; i++) {
                bool taken = false;

                if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "--version") == 0) {
                        (void)fputs(arguments[i][2] == 'h' ? help : "oomslice-scores " OOMSLICE_VERSION "\n",
                                    stdout);
                        return EXIT_SUCCESS + 1;
                }
                if (strcmp(arguments[i], "--restore") == 0)
                        taken = options->restore = true;
                for (size_t j = 0; !taken && j < sizeof(valued) / sizeof(valued[0]) && i + 1 < count; j++)
                        if (strcmp(arguments[i], valued[j].name) == 0) {
                                *valued[j].valuep = arguments[++i];
                                taken = true;
                        }
                if (!taken) {
                        (void)fprintf(stderr,
                                      "oomslice-scores: %s: no such option, or its value is missing\n%s",
                                      arguments[i], help);
                        return EXIT_FAILURE + 1;
                }
        }
        return 0;
}

int main(int count, char **arguments) {
        struct options options = {"/run/oomslice/scores.sock", "/sys/fs/cgroup", "/run/oomslice/scores",
                                  false};
        int status = parse(count, arguments, &options), listener, ending, r;

        if (status > 0)
                return status - 1;
        apply.state_path = options.state;
        apply.root = open(options.cgroup_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (apply.root < 0)
                return complain(options.cgroup_root, errno);
        apply.proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (apply.proc < 0)
                return complain("/proc", errno);
        r = restore();
        if (r < 0)
                (void)complain(options.state, r);
        if (options.restore)
                return r < 0 || apply.missed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        ending = signal_descriptor();
        if (ending < 0)
                return complain("signalfd", errno);
        apply.events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (apply.events < 0)
                return complain("inotify", errno);
        listener = listen_socket(options.socket);
        if (listener < 0)
                return complain(options.socket, listener);
        status = serve(listener, ending);
        if (apply.scores.units_count > 0 || apply.scores.slices_count > 0)
                oomslice_force_undo(&apply);
        say_error();
        oomslice_scores_free(&apply.scores);
        return status;
}
