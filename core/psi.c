/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns how a PSI trigger is written and how a pressure file is read. A trigger lives as long as its descriptor;
 * nothing here waits for it. The reading half is used on the kill path: one pread, a buffer on the stack.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "number.h"
#include "psi.h"

/* Windows of triggers without CAP_SYS_RESOURCE are multiples of this (kernel/sched/psi.c, psi_trigger_create()). */
enum { PLAIN_WINDOW_US = 2000000 };

/* Takes CAP_SYS_RESOURCE from what this thread may do now, or gives it back. False: nothing has changed. */
static bool set_resource_right(bool wanted) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct rights[_LINUX_CAPABILITY_U32S_3] = {0};
        const uint32_t bit = UINT32_C(1) << CAP_SYS_RESOURCE;

        if (syscall(SYS_capget, &header, rights) < 0)
                return false;
        if (wanted)
                rights[0].effective |= rights[0].permitted & bit;
        else
                rights[0].effective &= ~bit;
        return syscall(SYS_capset, &header, rights) == 0;
}

int oomslice_psi_open_plain(int dir_fd, const char *path, const struct oomslice_psi_trigger *trigger) {
        struct oomslice_psi_trigger plain = *trigger;
        int r;

        if (plain.kind == OOMSLICE_PSI_NONE)
                return -EINVAL;
        plain.window_us = (trigger->window_us + PLAIN_WINDOW_US - 1) / PLAIN_WINDOW_US * PLAIN_WINDOW_US;
        if (trigger->window_us > 0)
                plain.stall_us =
                        (uint32_t)((uint64_t)trigger->stall_us * plain.window_us / trigger->window_us);
        if (!set_resource_right(false))
                return -EPERM;
        r = oomslice_psi_open(dir_fd, path, &plain);
        /* Cannot fail after it was taken: it is still permitted. */
        (void)set_resource_right(true);
        return r;
}

int oomslice_psi_open(int dir_fd, const char *path, const struct oomslice_psi_trigger *trigger) {
        char text[sizeof("some ") + 2 * OOMSLICE_NUMBER_SIZE], *end = text;
        int fd, r;

        if (trigger->kind != OOMSLICE_PSI_SOME && trigger->kind != OOMSLICE_PSI_FULL)
                return -EINVAL;

        end = stpcpy(end, trigger->kind == OOMSLICE_PSI_SOME ? "some " : "full ");
        end += oomslice_number_format(end, trigger->stall_us);
        *end++ = ' ';
        end += oomslice_number_format(end, trigger->window_us);

        fd = openat(dir_fd, path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
                return -errno;
        /* The kernel wants the final NUL (Documentation/accounting/psi.rst writes strlen + 1). */
        if (write(fd, text, (size_t)(end - text) + 1) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

/* "12.34" -> 1234. */
static uint32_t parse_hundredths(const char *text) {
        uint32_t value = 0;
        int decimals = -1;

        for (; (*text >= '0' && *text <= '9') || *text == '.'; text++) {
                if (*text == '.') {
                        decimals = 0;
                        continue;
                }
                if (decimals == 2)
                        break;
                if (value > UINT32_MAX / 100)
                        break;
                value = value * 10 + (uint32_t)(*text - '0');
                if (decimals >= 0)
                        decimals++;
        }
        for (decimals = decimals < 0 ? 0 : decimals; decimals < 2; decimals++)
                value *= 10;
        return value;
}

static uint64_t parse_total(const char *text) {
        uint64_t value = 0;

        for (; *text >= '0' && *text <= '9' && value <= UINT64_MAX / 100; text++)
                value = value * 10 + (uint64_t)(*text - '0');
        return value;
}

/* Finds "key" within the line that starts at `line`; the value follows it directly. */
static const char *find_value(const char *line, const char *key) {
        size_t size = strlen(key);

        for (; *line != '\0' && *line != '\n'; line++)
                if (strncmp(line, key, size) == 0)
                        return line + size;
        return "";
}

void oomslice_psi_parse(const char *text, struct oomslice_psi_trigger_figures *figuresp) {
        figuresp->some_avg10 = figuresp->full_avg10 = 0;
        figuresp->some_total_us = figuresp->full_total_us = 0;

        while (*text != '\0') {
                const char *next = strchr(text, '\n');

                if (strncmp(text, "some ", 5) == 0) {
                        figuresp->some_avg10 = parse_hundredths(find_value(text, "avg10="));
                        figuresp->some_total_us = parse_total(find_value(text, "total="));
                } else if (strncmp(text, "full ", 5) == 0) {
                        figuresp->full_avg10 = parse_hundredths(find_value(text, "avg10="));
                        figuresp->full_total_us = parse_total(find_value(text, "total="));
                }
                if (next == NULL)
                        break;
                text = next + 1;
        }
}

int oomslice_psi_read(int fd, struct oomslice_psi_trigger_figures *figuresp) {
        char text[256];
        ssize_t size;

        size = pread(fd, text, sizeof(text) - 1, 0);
        if (size < 0)
                return -errno;
        text[size] = '\0';
        oomslice_psi_parse(text, figuresp);
        return 0;
}
