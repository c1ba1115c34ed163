/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * service MIB FILE: an important service. Holds MIB MiB, touches a part of it every 100 ms as a working service would,
 * and writes a growing count into FILE, so that a test sees that it still lives and works. Says so to systemd once the
 * memory is there (Type=notify).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void notify_ready(void) {
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        if (path == NULL || strlen(path) >= sizeof(address.sun_path))
                return;
        strcpy(address.sun_path, path);
        if (address.sun_path[0] == '@')
                address.sun_path[0] = 0;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd >= 0) {
                (void) !sendto(fd, "READY=1", 7, 0, (struct sockaddr *) &address,
                               (socklen_t) (sizeof(sa_family_t) + strlen(path)));
                close(fd);
        }
}

int main(int argc, char **argv) {
        uint64_t seed = 88172645463325252u;
        size_t size, position = 0;
        char *memory;
        int fd;

        if (argc != 3) {
                fprintf(stderr, "usage: service MIB FILE\n");
                return 2;
        }
        size = strtoull(argv[1], NULL, 10) << 20;
        memory = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0644);
        if (memory == MAP_FAILED || fd < 0) {
                perror("service");
                return 1;
        }
        for (size_t i = 0; i < size; i += 64) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                *(uint64_t *) (memory + i) = seed;
        }
        notify_ready();
        for (unsigned long count = 1;; count++) {
                struct timespec pause = { .tv_nsec = 100 * 1000000L };
                char text[32];
                int n = snprintf(text, sizeof(text), "%lu\n", count);

                for (size_t touched = 0; touched < size / 16; touched += 4096) {
                        memory[position]++;
                        position = (position + 4096) % (size + 4096);
                }
                if (pwrite(fd, text, (size_t) n, 0) != n)
                        return 1;
                nanosleep(&pause, NULL);
        }
}
