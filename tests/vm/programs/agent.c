/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The hand of the tests inside the machine: reads requests from a virtio port, runs each as `sh -c COMMAND` and sends
 * back what it printed. All of its own memory is locked, and it never allocates after start, so that it still answers
 * when the machine has run out of memory.
 *
 * Request: "TIMEOUT_MS COMMAND_BYTES INPUT_BYTES\n", the command, the input.
 * Answer: any number of "o BYTES\n" and bytes, then "e STATUS\n": the exit status, 128+N for signal N, 124 after the
 * timeout (the command's process group is killed then).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND_MAX = 256 * 1024, CHUNK = 32 * 1024 };

static char command[COMMAND_MAX + 1];
static char chunk[CHUNK];

static long long now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void write_all(int fd, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        _exit(1); /* the service is restarted and opens the port anew */
                data += n;
                size -= (size_t) n;
        }
}

static void read_all(int fd, char *data, size_t size) {
        while (size > 0) {
                ssize_t n = read(fd, data, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        /* Nobody holds the other end yet: the read returns at once, so wait a little. */
                        struct timespec pause = { .tv_nsec = 50 * 1000000L };

                        if (n < 0 && errno != EAGAIN)
                                _exit(1);
                        nanosleep(&pause, NULL);
                        continue;
                }
                data += n;
                size -= (size_t) n;
        }
}

static void send_chunk(int port, size_t size) {
        char head[32];

        write_all(port, head, (size_t) snprintf(head, sizeof(head), "o %zu\n", size));
        write_all(port, chunk, size);
}

static int run(int port, int input, long long timeout_ms) {
        long long deadline = now_ms() + timeout_ms;
        int pipes[2], status, expired = 0;
        pid_t pid;

        if (pipe2(pipes, O_CLOEXEC) < 0)
                return 125;
        pid = fork();
        if (pid < 0) {
                close(pipes[0]);
                close(pipes[1]);
                return 125;
        }
        if (pid == 0) {
                setsid();
                dup2(input, 0);
                dup2(pipes[1], 1);
                dup2(pipes[1], 2);
                execl("/bin/sh", "sh", "-c", command, (char *) NULL);
                _exit(127);
        }
        close(pipes[1]);
        for (;;) {
                struct pollfd readable = { .fd = pipes[0], .events = POLLIN };
                long long left = deadline - now_ms();
                ssize_t n;

                if (left <= 0 && !expired) {
                        kill(-pid, SIGKILL);
                        expired = 1;
                        deadline = now_ms() + 2000; /* somebody who left the group may hold the pipe: do not wait for ever */
                        continue;
                }
                if (left <= 0)
                        break;
                if (poll(&readable, 1, left > 1000 ? 1000 : (int) left) == 0)
                        continue;
                n = read(pipes[0], chunk, sizeof(chunk));
                if (n <= 0)
                        break;
                send_chunk(port, (size_t) n);
        }
        close(pipes[0]);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (expired)
                return 124;
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv) {
        int port = -1;

        if (argc != 2) {
                fprintf(stderr, "usage: agent PORT\n");
                return 2;
        }
        for (int tries = 0; tries < 300 && port < 0; tries++) {
                struct timespec pause = { .tv_nsec = 100 * 1000000L };

                port = open(argv[1], O_RDWR | O_CLOEXEC);
                if (port < 0)
                        nanosleep(&pause, NULL);
        }
        if (port < 0) {
                perror(argv[1]);
                return 1;
        }
        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
                perror("mlockall");
        memset(command, 0, sizeof(command));

        write_all(port, "hello\n", 6);
        for (;;) {
                size_t command_size, input_size;
                long long timeout_ms;
                char head[96];
                size_t used = 0;
                int input;

                do {
                        read_all(port, head + used, 1);
                } while (head[used] != '\n' && ++used < sizeof(head) - 1);
                head[used] = 0;
                if (sscanf(head, "%lld %zu %zu", &timeout_ms, &command_size, &input_size) != 3 || command_size > COMMAND_MAX)
                        return 1;
                read_all(port, command, command_size);
                command[command_size] = 0;
                input = memfd_create("input", MFD_CLOEXEC);
                for (size_t left = input_size; left > 0;) {
                        size_t part = left < sizeof(chunk) ? left : sizeof(chunk);

                        read_all(port, chunk, part);
                        write_all(input, chunk, part);
                        left -= part;
                }
                lseek(input, 0, SEEK_SET);
                used = (size_t) snprintf(head, sizeof(head), "e %d\n", run(port, input, timeout_ms));
                write_all(port, head, used);
                close(input);
        }
}
