/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands `load` and `unload`. All programs are loaded before those that run are removed, so that the kernel is without
 * only while they are being attached. With a policy that is kept they are loaded with that, all that choose or none: one that
 * a kernel does not take, or that does not fit into one of them, is in force nowhere, and what would run without it runs.
 */
#define _GNU_SOURCE
#include "load.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "carrier.h"
#include "kept.h"
#include "policyfile.h"
#include "refuse.h"
#include "say.h"

enum { CARRIERS_MAX = 8 };

static struct oomslice_loaded loaded[CARRIERS_MAX];
static char whys[CARRIERS_MAX][OOMSLICE_WHY_MAX];

void oomslice_load_warn(const char *format, ...) {
        va_list arguments;

        /* sd-daemon(3) */
        if (getenv("JOURNAL_STREAM"))
                fputs("<4>", stdout);
        va_start(arguments, format);
        vprintf(format, arguments);
        va_end(arguments);
        putchar('\n');
}

void oomslice_load_note_carrier(struct oomslice_report_policy *policy, const char *carrier) {
        size_t length = strlen(policy->carriers);

        snprintf(policy->carriers + length, sizeof(policy->carriers) - length, "%s%s", length ? " " : "",
                 carrier);
}

void oomslice_load_note_time(struct oomslice_report_policy *policy) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        policy->usec = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool on_bpffs(const char *pins) {
        struct statfs fs;

        return statfs(pins, &fs) == 0 && fs.f_type == BPF_FS_MAGIC;
}

/* False: nobody answers the system call. */
static bool kernel_has_bpf(const char *pins) {
        int fd = bpf_obj_get(pins);

        if (fd >= 0)
                close(fd);
        return fd >= 0 || errno != ENOSYS;
}

int oomslice_unload(const struct oomslice_places *places) {
        int r;

        if (unlink(places->report) < 0 && errno != ENOENT)
                return oomslice_say_failed("%s: cannot be removed: %s", places->report, strerror(errno));
        r = oomslice_carriers_unload(places->pins);
        return r < 0 ? oomslice_say_failed("%s: not all pins could be removed: %s", places->pins,
                                           strerror(-r))
                     : 0;
}

static void forget_all(size_t count) {
        while (count > 0)
                oomslice_carrier_forget(&loaded[--count]);
}

/* Loads what there is, with the policy if there is one. False: one has been loaded only without it; `said` has why. */
static bool load_all(const struct oomslice_places *places, const struct btf *btf,
                     const struct oomslice_policy_file *policy, bool (*is_left_out)(const char *name),
                     struct oomslice_report_policy *said) {
        for (size_t i = 0; oomslice_carriers[i].name; i++) {
                const struct oomslice_carrier *carrier = &oomslice_carriers[i];
                struct oomslice_load load = {.btf = btf,
                                             .pins = places->pins,
                                             .policy = policy,
                                             .before = loaded,
                                             .before_count = i};
                char refused[OOMSLICE_WHY_MAX];

                whys[i][0] = '\0';
                loaded[i] = (struct oomslice_loaded){0};
                if (is_left_out(carrier->name)) {
                        snprintf(whys[i], sizeof(whys[i]), "left out, by --without=%s", carrier->name);
                        continue;
                }
                if (oomslice_carrier_load(carrier, &load, &loaded[i], whys[i]) || !policy)
                        continue;
                /* Who is to blame? */
                snprintf(refused, sizeof(refused), "%.511s", whys[i]);
                load.policy = NULL;
                if (!oomslice_carrier_load(carrier, &load, &loaded[i], whys[i]))
                        continue;
                forget_all(i + 1);
                said->in_force = false;
                snprintf(said->why, sizeof(said->why), "%s", refused);
                return false;
        }
        return true;
}

/* The policy that is kept, if it is one; what became of it is written to `said`, which has no name if there is none. */
static bool read_kept(const struct oomslice_places *places, struct oomslice_policy_file *file,
                      struct oomslice_report_policy *said) {
        char path[PATH_MAX];
        const char *slash;

        switch (oomslice_kept_find(places->policies, path, said->why)) {
        case OOMSLICE_KEPT_NONE:
                return false;
        case OOMSLICE_KEPT_BAD:
                break;
        case OOMSLICE_KEPT_ONE:
                said->in_force = oomslice_policy_file_read(file, path, said->why);
                break;
        }
        slash = strrchr(path, '/');
        snprintf(said->name, sizeof(said->name), "%.255s", slash ? slash + 1 : path);
        return said->in_force;
}

static void report_policy(FILE *lines, struct oomslice_report_policy *said) {
        if (!said->name[0])
                return;
        oomslice_load_note_time(said);
        if (said->in_force && !said->carriers[0]) {
                said->in_force = false;
                snprintf(said->why, sizeof(said->why), "no program that chooses could be loaded");
        }
        oomslice_report_add_policy(lines, said);
        if (said->in_force)
                printf("policy %s: in force in %s\n", said->name, said->carriers);
        else
                oomslice_load_warn("policy %s: not in force: %s", said->name, said->why);
}

/* Attaches what was loaded, and says what became of each. */
static void attach_all(const struct oomslice_places *places, FILE *lines,
                       struct oomslice_report_policy *said) {
        for (size_t i = 0; oomslice_carriers[i].name; i++) {
                const char *name = oomslice_carriers[i].name;
                bool active = loaded[i].object && oomslice_carrier_attach(&loaded[i], places->pins, whys[i]);

                if (active && loaded[i].linked)
                        oomslice_load_note_carrier(said, name);
                oomslice_report_add(lines, name, active, whys[i]);
                printf("%s: %s%s%s\n", name, active ? "active" : "not active", whys[i][0] ? ": " : "",
                       whys[i]);
        }
}

int oomslice_load(const struct oomslice_places *places, bool (*is_left_out)(const char *name)) {
        struct oomslice_report_policy said = {0};
        struct oomslice_policy_file file = {.object = -1};
        struct btf *btf = NULL;
        size_t count = 0;
        bool has_policy;
        FILE *lines;
        int r;

        while (oomslice_carriers[count].name)
                count++;
        has_policy = read_kept(places, &file, &said);
        oomslice_refuse_listen();
        if (!kernel_has_bpf(places->pins))
                for (size_t i = 0; i < count; i++)
                        oomslice_refuse_no_bpf(whys[i]);
        else if (on_bpffs(places->pins)) {
                btf = btf__load_vmlinux_btf();
                if (!load_all(places, btf, has_policy ? &file : NULL, is_left_out, &said))
                        load_all(places, btf, NULL, is_left_out, &said);
        } else
                for (size_t i = 0; i < count; i++)
                        snprintf(whys[i], sizeof(whys[i]),
                                 "%s is not on a BPF file system (mount -t bpf bpf %s)", places->pins,
                                 places->pins);
        r = oomslice_unload(places);
        lines = r == 0 ? oomslice_report_begin(places->report) : NULL;
        if (lines) {
                attach_all(places, lines, &said);
                report_policy(lines, &said);
                r = oomslice_report_end(lines, places->report);
        } else if (r == 0)
                r = -errno;
        forget_all(count);
        btf__free(btf);
        oomslice_policy_file_forget(&file);
        return r < 0 ? oomslice_say_failed("%s: cannot be written: %s", places->report, strerror(-r)) : r;
}
