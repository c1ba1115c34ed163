/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns why something could not be loaded: what libbpf and the kernel's verifier said of it, as one sentence for people. What
 * is of the whole kernel (no BPF, locked down) is said as that, whichever program and step it was found by.
 */
#define _GNU_SOURCE
#include "refuse.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What libbpf has to say says more than an errno: its first complaint, and where there is a log of the verifier the end of
 * that. */
static char complaint[256];
bool oomslice_refuse_verbose;

static bool begins(const char *line, const char *beginning) {
        return strncmp(line, beginning, strlen(beginning)) == 0;
}

/* The last line before the verifier's statistics is its reason; since 7.3 that before its explanation, which follows. */
static void remember_verifier(char *log) {
        char *line, *place = NULL, *reason = NULL;

        for (line = strtok_r(log, "\n", &place); line; line = strtok_r(NULL, "\n", &place)) {
                if (begins(line, "processed ") || begins(line, "Verification failed:") ||
                    strstr(line, "-- END PROG LOAD LOG --"))
                        break;
                reason = line;
        }
        if (reason)
                snprintf(complaint, sizeof(complaint), "the verifier says: %.200s", reason);
}

static int remember(enum libbpf_print_level level, const char *format, va_list arguments) {
        static char text[64 * 1024];
        int length;

        if (level != LIBBPF_WARN)
                return 0;
        vsnprintf(text, sizeof(text), format, arguments);
        length = (int)strcspn(text, "\n");
        if (oomslice_refuse_verbose)
                fputs(text, stderr);
        if (strstr(text, "-- BEGIN PROG LOAD LOG --"))
                remember_verifier(text);
        else if (!complaint[0])
                snprintf(complaint, sizeof(complaint), "%.*s", length < 250 ? length : 250, text);
        return 0;
}

bool oomslice_refuse(char why[static OOMSLICE_WHY_MAX], const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(why, OOMSLICE_WHY_MAX, format, arguments);
        va_end(arguments);
        return false;
}

/* Whether the kernel hides its memory, also from root: then the helpers that read it are as if they were not there. */
static bool is_locked_down(void) {
        FILE *file = fopen("/sys/kernel/security/lockdown", "re");
        char levels[128] = "";

        if (!file)
                return false;
        if (!fgets(levels, sizeof(levels), file))
                levels[0] = '\0';
        fclose(file);
        return strstr(levels, "[confidentiality]");
}

bool oomslice_refuse_no_bpf(char why[static OOMSLICE_WHY_MAX]) {
        return oomslice_refuse(why, "this kernel has no BPF (CONFIG_BPF_SYSCALL)");
}

bool oomslice_refuse_step(char why[static OOMSLICE_WHY_MAX], const char *what, const char *name, int error) {
        error = error < 0 ? -error : error;
        if (error == ENOSYS)
                return oomslice_refuse_no_bpf(why);
        if (strstr(complaint, "cannot use helper bpf_probe_read") && is_locked_down())
                return oomslice_refuse(why,
                                       "this kernel is locked down (lockdown=confidentiality) and lets no "
                                       "BPF program read its memory");
        if (error == EPERM)
                return oomslice_refuse(
                        why,
                        "%s %s: the kernel refuses it: it is locked down (see /sys/kernel/security/lockdown), "
                        "or CAP_BPF and CAP_PERFMON are missing%s%s",
                        what, name, complaint[0] ? "; " : "", complaint);
        return oomslice_refuse(why, "%s %s: %s%s%s", what, name, strerror(error), complaint[0] ? "; " : "",
                               complaint);
}

void oomslice_refuse_listen(void) {
        libbpf_set_print(remember);
        complaint[0] = '\0';
}
