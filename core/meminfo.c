/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the numbers of /proc/meminfo that decide. A file without MemAvailable is refused rather than read
 * as zero, which would look like the worst of shortages.
 */
#include <errno.h>

#include "file.h"
#include "meminfo.h"

int oomslice_meminfo_parse(const char *text, struct oomslice_meminfo *infop) {
        struct oomslice_meminfo info = {0};
        uint64_t active = 0, inactive = 0;

        if (oomslice_file_parse_field(text, "MemTotal:", &info.total) < 0 ||
            oomslice_file_parse_field(text, "MemAvailable:", &info.available) < 0)
                return -EBADMSG;
        /* A kernel without CONFIG_SWAP has neither line: no swap, which is what 0 says. */
        (void)oomslice_file_parse_field(text, "SwapTotal:", &info.swap_total);
        (void)oomslice_file_parse_field(text, "SwapFree:", &info.swap_free);
        (void)oomslice_file_parse_field(text, "SwapCached:", &info.swap_cached);
        (void)oomslice_file_parse_field(text, "Active(file):", &active);
        (void)oomslice_file_parse_field(text, "Inactive(file):", &inactive);
        info.total *= 1024;
        info.available *= 1024;
        info.swap_total *= 1024;
        info.swap_free *= 1024;
        info.swap_cached *= 1024;
        info.file = (active + inactive) * 1024;
        *infop = info;
        return 0;
}

int oomslice_meminfo_read(int fd, struct oomslice_meminfo *infop) {
        char text[1024]; /* MemTotal to SwapFree are the first 16 lines of 28 bytes */
        ssize_t n;

        n = oomslice_file_read(fd, text, sizeof(text));
        if (n < 0)
                return (int)n;
        return oomslice_meminfo_parse(text, infop);
}
