/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the report file: one line for each carrier, `NAME TAB active|inactive TAB WHY`. It is replaced as a whole, so that
 * a reader never sees half of it. oomslice/carriers/bpf.py reads it, too.
 */
#define _GNU_SOURCE
#include "report.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool beside(const char *path, char other[static PATH_MAX]) {
        return snprintf(other, PATH_MAX, "%s.new", path) < PATH_MAX;
}

FILE *oomslice_report_begin(const char *path) {
        char other[PATH_MAX];

        if (!beside(path, other)) {
                errno = ENAMETOOLONG;
                return NULL;
        }
        return fopen(other, "we");
}

void oomslice_report_add(FILE *report, const char *name, bool active, const char *why) {
        fprintf(report, "%s\t%s\t", name, active ? "active" : "inactive");
        for (; *why; why++)
                fputc(*why == '\t' || *why == '\n' ? ' ' : *why, report);
        fputc('\n', report);
}

int oomslice_report_end(FILE *report, const char *path) {
        char other[PATH_MAX];
        bool failed;

        if (!beside(path, other)) {
                fclose(report);
                return -ENAMETOOLONG;
        }
        failed = ferror(report) || fchmod(fileno(report), 0644) < 0;
        if (fclose(report) != 0 || failed || rename(other, path) < 0) {
                int error = errno ? errno : EIO;

                unlink(other);
                return -error;
        }
        return 0;
}

bool oomslice_report_why(const char *path, const char *name, char *why, size_t size) {
        char line[1024];
        FILE *report;

        why[0] = '\0';
        report = fopen(path, "re");
        if (!report)
                return false;
        while (fgets(line, sizeof(line), report)) {
                char *tab = strchr(line, '\t'), *second = tab ? strchr(tab + 1, '\t') : NULL;

                if (!second)
                        continue;
                *tab = '\0';
                second[strcspn(second, "\n")] = '\0';
                if (strcmp(line, name) == 0)
                        snprintf(why, size, "%s", second + 1);
        }
        fclose(report);
        return true;
}
