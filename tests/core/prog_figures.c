/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The figures of a unit, from files as the kernel writes them; and pressure files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "file.h"
#include "held.h"
#include "program.h"
#include "psi.h"

static char directory_path[] = "/tmp/oomslice-figures-XXXXXX";
static int directory;

static void put(const char *name, const char *text) {
        int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
        close(fd);
}

static const char *const names[] = {"cgroup.kill",    "cgroup.procs", "cgroup.events",
                                    "memory.current", "memory.stat",  "memory.swap.current"};

static void clear(void) {
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                (void)unlinkat(directory, names[i], 0);
}

static void test_usage(void) {
        struct oomslice_held held;
        struct oomslice_usage usage;

        put("cgroup.kill", "");
        put("cgroup.procs", "1\n");
        put("cgroup.events", "populated 1\nfrozen 0\n");
        put("memory.current", "1000000\n");
        put("memory.swap.current", "5000\n");
        put("memory.stat",
            "anon 700000\nfile 300000\nfile_mapped 5\ninactive_file 200000\nactive_file 50000\n"
            "workingset_refault_anon 11\nworkingset_refault_file 31\n");
        CHECK(oomslice_held_open(&held, directory, true) == 0);
        CHECK(oomslice_held_is_complete(&held, true) && !oomslice_held_is_complete(&held, false));
        oomslice_held_prefault(&held);
        CHECK(oomslice_held_usage(&held, &usage) == 0);
        CHECK(usage.current == 1000000 && usage.swap == 5000 && usage.refaults == 42);
        CHECK(usage.memory == 1000000 - 250000 + 5000);
        CHECK(oomslice_held_usage_rough(&held, &usage) == 0 && usage.memory == 1005000 &&
              usage.refaults == 0);
        CHECK(oomslice_held_populated(held.events) == 1);
        put("cgroup.events", "populated 0\nfrozen 0\n");
        CHECK(oomslice_held_populated(held.events) == 0);
        put("cgroup.events", "frozen 0\n");
        CHECK(oomslice_held_populated(held.events) == -ENOENT);
        /* The two files are not read in one moment. */
        put("memory.current", "100\n");
        CHECK(oomslice_held_usage(&held, &usage) == 0 && usage.memory == 5000);
        oomslice_held_close(&held);
        CHECK(held.directory == -1 && held.stat == -1);
        oomslice_held_close(&held);
}

static void test_missing(void) {
        struct oomslice_held held;
        struct oomslice_usage usage;

        clear();
        put("cgroup.events", "populated 1\n");
        put("cgroup.procs", "");
        CHECK(oomslice_held_open(&held, directory, true) == 0);
        CHECK(!oomslice_held_is_complete(&held, true));
        CHECK(oomslice_held_usage(&held, &usage) == 0 && usage.memory == 0 && usage.current == 0);
        oomslice_held_close(&held);
        CHECK(oomslice_held_open(&held, directory, false) == 0);
        CHECK(oomslice_held_is_complete(&held, false) && held.events == -1);
        CHECK(oomslice_held_populated(held.events) == -EBADF);
        oomslice_held_close(&held);
        CHECK(oomslice_held_open(&held, -1, true) == -EBADF && held.directory == -1);
}

static void test_numbers(void) {
        uint64_t value = 5;

        CHECK(oomslice_file_parse_number("  12x") == 12 && oomslice_file_parse_number("") == 0);
        CHECK(oomslice_file_parse_number("18446744073709551615") == UINT64_MAX);
        CHECK(oomslice_file_parse_number("18446744073709551616") == UINT64_MAX);
        put("memory.current", "max\n");
        CHECK(oomslice_file_number(openat(directory, "memory.current", O_RDONLY), &value) == 0 &&
              value == UINT64_MAX);
        CHECK(oomslice_file_parse_field("a 1\nab 2\n", "ab", &value) == 0 && value == 2);
        CHECK(oomslice_file_parse_field("abc 1\nxab 2\nab", "ab", &value) == -ENOENT && value == 2);
}

static void test_pressure(void) {
        struct oomslice_psi_trigger_figures figures = {.some_avg10 = 9};
        const struct oomslice_psi_trigger none = {0};

        oomslice_psi_parse("some avg10=1.23 avg60=4.00 avg300=0.10 total=987654321\n"
                           "full avg10=0.07 avg60=0.00 avg300=0.00 total=12\n",
                           &figures);
        CHECK(figures.some_avg10 == 123 && figures.some_total_us == 987654321);
        CHECK(figures.full_avg10 == 7 && figures.full_total_us == 12);
        oomslice_psi_parse("some avg10=100.00 total=99999999999999999999999\nfull", &figures);
        CHECK(figures.some_avg10 == 10000 && figures.full_avg10 == 0 && figures.full_total_us == 0);
        oomslice_psi_parse("", &figures);
        CHECK(figures.some_avg10 == 0);
        CHECK(oomslice_psi_read(-1, &figures) == -EBADF);
        CHECK(oomslice_psi_open(directory, "memory.pressure", &none) == -EINVAL);
}

static void test_trigger_text(void) {
        const struct oomslice_psi_trigger trigger = {OOMSLICE_PSI_FULL, 4294967295U, 4294967295U, 0};
        char text[64] = "";
        int fd;

        /* A plain file takes what the kernel would be told, with the final NUL. */
        put("memory.pressure", "");
        fd = oomslice_psi_open(directory, "memory.pressure", &trigger);
        CHECK(fd >= 0 && pread(fd, text, sizeof(text), 0) == 27);
        CHECK(strcmp(text, "full 4294967295 4294967295") == 0);
        close(fd);
        CHECK(oomslice_psi_open(directory, "missing", &trigger) == -ENOENT);
        CHECK(oomslice_psi_open_plain(directory, "missing", &trigger) == -ENOENT);
}

static void expect_plain(uint32_t stall_us, uint32_t window_us, const char *expected) {
        const struct oomslice_psi_trigger trigger = {OOMSLICE_PSI_SOME, stall_us, window_us, 0};
        char text[64] = "";
        int fd;

        put("memory.pressure", "");
        fd = oomslice_psi_open_plain(directory, "memory.pressure", &trigger);
        CHECK(fd >= 0 && pread(fd, text, sizeof(text), 0) > 0);
        CHECK(strcmp(text, expected) == 0);
        close(fd);
}

/* Windows in whole steps of 2 s, which need no right; the right is there again afterwards. */
static void test_trigger_without_a_right(void) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct before[_LINUX_CAPABILITY_U32S_3], after[_LINUX_CAPABILITY_U32S_3];

        CHECK(syscall(SYS_capget, &header, before) == 0);
        expect_plain(2000, 500000, "some 8000 2000000");
        expect_plain(2000, 2000000, "some 2000 2000000");
        expect_plain(100, 2000001, "some 199 4000000");
        expect_plain(10000000, 10000000, "some 10000000 10000000");
        CHECK(syscall(SYS_capget, &header, after) == 0);
        CHECK(memcmp(before, after, sizeof(before)) == 0);
        CHECK(unlinkat(directory, "memory.pressure", 0) == 0);
}

int main(void) {
        CHECK(mkdtemp(directory_path));
        directory = open(directory_path, O_RDONLY | O_DIRECTORY);
        CHECK(directory >= 0);
        test_usage();
        test_missing();
        test_numbers();
        test_pressure();
        test_trigger_text();
        test_trigger_without_a_right();
        clear();
        CHECK(rmdir(directory_path) == 0);
        return 0;
}
