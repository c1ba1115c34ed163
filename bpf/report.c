/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the report file: one line for each carrier, `NAME TAB active|inactive TAB WHY`, and one for a policy, which goes on
 * with `TAB FILE TAB MICROSECONDS TAB CARRIERS`. It is replaced as a whole, so that a reader never sees half of it.
 * oomslice/carriers/bpf.py reads it, too.
 */
#define _GNU_SOURCE
#include "report.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char policy_name[] = "policy";
enum { LINE_SIZE = 2048, FIELDS = 6 };

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

/* Whatever is in a name: one field of one line. */
static void put(FILE *report, const char *text) {
        for (; *text; text++)
                fputc(*text == '\t' || *text == '\n' ? ' ' : *text, report);
}

static void put_begin(FILE *report, const char *name, bool active, const char *why) {
        fprintf(report, "%s\t%s\t", name, active ? "active" : "inactive");
        put(report, why);
}

void oomslice_report_add(FILE *report, const char *name, bool active, const char *why) {
        put_begin(report, name, active, why);
        fputc('\n', report);
}

void oomslice_report_add_policy(FILE *report, const struct oomslice_report_policy *policy) {
        put_begin(report, policy_name, policy->in_force, policy->why);
        fputc('\t', report);
        put(report, policy->name);
        fprintf(report, "\t%" PRIu64 "\t", policy->usec);
        put(report, policy->carriers);
        fputc('\n', report);
}

/* The next line in its fields, those that it has not empty. False: there is none. */
static bool next_line(FILE *report, char line[static LINE_SIZE], char *fields[static FIELDS]) {
        size_t count = 0;
        char *rest = line;

        if (!fgets(line, LINE_SIZE, report))
                return false;
        line[strcspn(line, "\n")] = '\0';
        for (; count < FIELDS && rest; count++)
                fields[count] = strsep(&rest, "\t");
        for (; count < FIELDS; count++)
                fields[count] = line + strlen(line);
        return true;
}

void oomslice_report_add_carriers(FILE *report, const char *path, const char *(*why_not)(const char *name)) {
        char line[LINE_SIZE], *fields[FIELDS];
        FILE *earlier = fopen(path, "re");

        if (!earlier)
                return;
        while (next_line(earlier, line, fields)) {
                const char *why = why_not(fields[0]);

                if (strcmp(fields[0], policy_name) != 0)
                        oomslice_report_add(report, fields[0], !why && strcmp(fields[1], "active") == 0,
                                            why ? why : fields[2]);
        }
        fclose(earlier);
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
        char line[LINE_SIZE], *fields[FIELDS];
        FILE *report;

        why[0] = '\0';
        report = fopen(path, "re");
        if (!report)
                return false;
        while (next_line(report, line, fields))
                if (strcmp(fields[0], name) == 0)
                        snprintf(why, size, "%s", fields[2]);
        fclose(report);
        return true;
}

bool oomslice_report_find_policy(const char *path, struct oomslice_report_policy *policy) {
        char line[LINE_SIZE], *fields[FIELDS];
        FILE *report = fopen(path, "re");
        bool found = false;

        if (!report)
                return false;
        while (next_line(report, line, fields)) {
                if (strcmp(fields[0], policy_name) != 0)
                        continue;
                found = true;
                policy->in_force = strcmp(fields[1], "active") == 0;
                snprintf(policy->why, sizeof(policy->why), "%s", fields[2]);
                snprintf(policy->name, sizeof(policy->name), "%s", fields[3]);
                policy->usec = strtoull(fields[4], NULL, 10);
                snprintf(policy->carriers, sizeof(policy->carriers), "%s", fields[5]);
        }
        fclose(report);
        return found;
}
