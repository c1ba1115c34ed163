/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the ring's memory: a memfd of fixed size, sealed against growing and shrinking, so that nobody who has it
 * can take its pages away under the core.
 */
#define _GNU_SOURCE
#include "ringfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring.h"

enum { SEALS = F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK };

static int map_ring(int fd, void **mapp) {
        void *map = mmap(NULL, OOMSLICE_RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);

        if (map == MAP_FAILED)
                return -errno;
        *mapp = map;
        return 0;
}

int oomslice_ringfd_recover(int fd, void **mapp) {
        struct stat status;
        void *map = NULL;
        int r, seals;

        seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || fstat(fd, &status) < 0)
                return -errno;
        if ((seals & SEALS) != SEALS || status.st_size != OOMSLICE_RING_SIZE)
                return -EBADMSG;
        r = map_ring(fd, &map);
        if (r < 0)
                return r;
        r = oomslice_ring_check(map);
        if (r < 0) {
                munmap(map, OOMSLICE_RING_SIZE);
                return r;
        }
        (void)oomslice_ring_recover(map);
        *mapp = map;
        return 0;
}

int oomslice_ringfd_new(void **mapp) {
        uint64_t ring_id = 0;
        int fd, r;

        fd = memfd_create("oomslice-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        if (ftruncate(fd, OOMSLICE_RING_SIZE) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0 ||
            getrandom(&ring_id, sizeof(ring_id), 0) != sizeof(ring_id))
                r = -errno;
        else
                r = map_ring(fd, mapp);
        if (r < 0) {
                close(fd);
                return r;
        }
        oomslice_ring_init(*mapp, ring_id);
        return fd;
}
