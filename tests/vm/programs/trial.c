/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * trial [-s PRIORITY] [-p KILL] [-f NUMBER] FILE SECONDS PID: makes FILE, which lets a hog grow, and waits up to SECONDS
 * until PID is dead. Prints how that ended; exit status 0 if PID is dead. What is in the way meanwhile:
 *   -s  every processor is kept busy by a real-time process of PRIORITY
 *   -p  begins only when nobody can fork any more, and ends that by writing 1 into the file KILL
 *   -f  begins only when NUMBER files are open on the machine
 * It does all that by itself, in locked memory and with a real-time priority above that of the others, because while
 * it lasts no command can be run.
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
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SPINNERS = 16, PATIENCE_MS = 120000 };

static long long now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void nap(void) {
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
}

static void fail(const char *what) {
        perror(what);
        exit(1);
}

static void spin(int cpu, int priority) {
        struct sched_param wanted = { .sched_priority = priority };
        cpu_set_t set;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0 || sched_setscheduler(0, SCHED_FIFO, &wanted) < 0)
                _exit(1);
        for (;;)
                ;
}

/* True when a fork fails for want of a process number, and again a little later. */
static int is_full(void) {
        for (int i = 0; i < 5; i++) {
                pid_t pid = fork();

                if (pid == 0)
                        _exit(0);
                if (pid > 0) {
                        waitpid(pid, NULL, 0);
                        return 0;
                }
                if (errno != EAGAIN)
                        fail("fork");
                nap();
        }
        return 1;
}

static long open_files(void) {
        char text[64] = { 0 };
        int fd = open("/proc/sys/fs/file-nr", O_RDONLY | O_CLOEXEC);

        if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
                fail("file-nr");
        close(fd);
        return strtol(text, NULL, 10);
}

static void put(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        if (fd < 0 || write(fd, text, strlen(text)) < 0)
                fail(path);
        close(fd);
}

int main(int argc, char **argv) {
        struct sched_param first = { .sched_priority = 90 };
        struct pollfd death = { .events = POLLIN };
        int option, priority = 0, spinners = 0, dead;
        long files = 0;
        const char *kill_file = NULL;
        pid_t spinning[SPINNERS];
        long long deadline, start;

        while ((option = getopt(argc, argv, "s:p:f:")) > 0)
                switch (option) {
                case 's':
                        priority = atoi(optarg);
                        break;
                case 'p':
                        kill_file = optarg;
                        break;
                case 'f':
                        files = atol(optarg);
                        break;
                default:
                        return 2;
                }
        if (argc - optind != 3) {
                fprintf(stderr, "usage: trial [-s PRIORITY] [-p KILL] [-f NUMBER] FILE SECONDS PID\n");
                return 2;
        }
        death.fd = (int) syscall(SYS_pidfd_open, atoi(argv[optind + 2]), 0);
        if (death.fd < 0)
                fail("pidfd_open");
        if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0 || sched_setscheduler(0, SCHED_FIFO, &first) < 0)
                fail("lock or schedule");

        deadline = now_ms() + PATIENCE_MS;
        while ((kill_file != NULL && !is_full()) || (files > 0 && open_files() < files)) {
                if (now_ms() > deadline) {
                        fprintf(stderr, "what should be in the way is not there\n");
                        return 1;
                }
                nap();
        }
        for (int cpu = 0; priority > 0 && cpu < sysconf(_SC_NPROCESSORS_ONLN) && spinners < SPINNERS; cpu++) {
                spinning[spinners] = fork();
                if (spinning[spinners] == 0)
                        spin(cpu, priority);
                if (spinning[spinners] < 0)
                        fail("fork");
                spinners++;
        }
        put(argv[optind], "");
        start = now_ms();
        dead = poll(&death, 1, atoi(argv[optind + 1]) * 1000) == 1;
        printf("%s after %lld ms\n", dead ? "dead" : "ALIVE", now_ms() - start);

        for (int i = 0; i < spinners; i++) {
                int status;

                if (waitpid(spinning[i], &status, WNOHANG) != 0) {
                        printf("a spinner ended by itself\n");
                        dead = 0;
                        continue;
                }
                kill(spinning[i], SIGKILL);
                waitpid(spinning[i], &status, 0);
        }
        if (kill_file != NULL) {
                put(kill_file, "1");
                for (deadline = now_ms() + PATIENCE_MS; is_full() && now_ms() < deadline;)
                        nap();
        }
        fflush(stdout);
        return dead ? 0 : 1;
}
