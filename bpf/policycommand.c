/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command `policy`: an administrator's own function takes the place of oomslice_policy() (choice.h) in every loaded
 * program that chooses. In all of them or in none: a policy that holds in one place only would be none.
 *
 * Programs with the policy in them are loaded beside those that run, and take their place only when the kernel has taken
 * all; they go on with the same maps. A refused policy changes nothing. One that is in force is kept for `load`.
 */
#define _GNU_SOURCE
#include "policycommand.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "carrier.h"
#include "kept.h"
#include "pins.h"
#include "policyfile.h"
#include "reuse.h"
#include "say.h"

enum { TARGETS_MAX = 8 };

/* Programs that take the place of those that run. */
static struct oomslice_loaded targets[TARGETS_MAX];
static size_t targets_count;
/* Why they could not be attached. */
static char whys[TARGETS_MAX][OOMSLICE_WHY_MAX];

static void forget_targets(void) {
        while (targets_count > 0)
                oomslice_carrier_forget(&targets[--targets_count]);
}

/* Loads what is to run in the place of all loaded programs that choose; NULL: without a policy. */
static bool load_targets(const struct oomslice_places *places, const struct oomslice_policy_file *policy,
                         char why[static OOMSLICE_WHY_MAX]) {
        const struct oomslice_carrier *carrier;
        struct btf *btf = btf__load_vmlinux_btf();
        bool good = true;

        for (carrier = oomslice_carriers; good && carrier->name && targets_count < TARGETS_MAX; carrier++) {
                struct oomslice_load load = {.btf = btf,
                                             .pins = places->pins,
                                             .policy = policy,
                                             .keeps = true,
                                             .choosers = true,
                                             .before = targets,
                                             .before_count = targets_count};
                struct oomslice_carrier_figures figures;

                if (!oomslice_carrier_loaded(carrier, places->pins, &figures))
                        continue;
                good = oomslice_carrier_load(carrier, &load, &targets[targets_count], why);
                if (good && targets[targets_count].object)
                        targets_count++;
        }
        btf__free(btf);
        if (!good)
                forget_targets();
        return good;
}

static const char hits_map[] = "policy_hits";

/* It is another policy from now on. */
static void set_hits(void) {
        struct bpf_map *map =
                targets_count ? bpf_object__find_map_by_name(targets[0].object, hits_map) : NULL;
        __u64 none = 0;
        __u32 zero = 0;

        if (map)
                (void)bpf_map_update_elem(bpf_map__fd(map), &zero, &none, BPF_ANY);
}

/* What is pinned of it; 0 if nothing is. */
static uint64_t read_hits(const struct oomslice_places *places) {
        char directory[PATH_MAX], path[PATH_MAX];
        __u64 hits = 0;
        __u32 zero = 0;
        int fd;

        if (snprintf(directory, sizeof(directory), "%s/%s", places->pins, oomslice_reuse_shared) >=
                    (int)sizeof(directory) ||
            !oomslice_pins_path(path, directory, "map", hits_map))
                return 0;
        fd = bpf_obj_get(path);
        if (fd >= 0) {
                (void)bpf_map_lookup_elem(fd, &zero, &hits);
                close(fd);
        }
        return hits;
}

/* What is pinned is for the group that the rest is for, whoever calls. Returns what it was before. */
static gid_t take_group(const struct oomslice_places *places) {
        char directory[PATH_MAX];
        gid_t before = getegid();
        struct stat st;

        if (snprintf(directory, sizeof(directory), "%s/%s", places->pins, oomslice_reuse_shared) <
                    (int)sizeof(directory) &&
            stat(directory, &st) == 0)
                (void)!setegid(st.st_gid);
        return before;
}

/* Puts them where the others were. False: some could not be attached, and run no more; `said` has why of the first. */
static bool exchange_targets(const struct oomslice_places *places, struct oomslice_report_policy *said) {
        char directory[PATH_MAX];
        bool good = true;
        gid_t group;
        int r;

        said->carriers[0] = '\0';
        if (snprintf(directory, sizeof(directory), "%s/%s", places->pins, oomslice_reuse_policy) >=
            (int)sizeof(directory))
                return oomslice_refuse_step(said->why, "looking below", places->pins, ENAMETOOLONG);
        r = oomslice_pins_remove(directory);
        if (r < 0)
                return oomslice_refuse_step(said->why, "removing", directory, r);
        set_hits();
        group = take_group(places);
        for (size_t i = 0; i < targets_count; i++) {
                const char *name = targets[i].carrier->name;

                whys[i][0] = '\0';
                if (oomslice_carrier_exchange(&targets[i], places->pins, whys[i]))
                        oomslice_load_note_carrier(said, name);
                else if (good) {
                        good = false;
                        snprintf(said->why, sizeof(said->why), "%s: %.400s", name, whys[i]);
                }
        }
        (void)!setegid(group);
        return good;
}

/* Of the targets that were exchanged last. */
static const char *why_not(const char *name) {
        for (size_t i = 0; i < targets_count; i++)
                if (whys[i][0] && strcmp(targets[i].carrier->name, name) == 0)
                        return whys[i];
        return NULL;
}

/* What is said of other carriers stays as it was. NULL: there is no policy. */
static int write_report(const struct oomslice_places *places, const struct oomslice_report_policy *said) {
        FILE *report = oomslice_report_begin(places->report);
        int r = report ? 0 : -errno;

        if (report) {
                oomslice_report_add_carriers(report, places->report, why_not);
                if (said)
                        oomslice_report_add_policy(report, said);
                r = oomslice_report_end(report, places->report);
        }
        return r < 0 ? oomslice_say_failed("%s: cannot be written: %s", places->report, strerror(-r)) : 0;
}

/* Some programs could not be attached. Those without a policy may be; those that cannot run no more. */
static int put_failed(const struct oomslice_places *places, struct oomslice_report_policy *said) {
        struct oomslice_report_policy without = {0};

        said->in_force = false;
        said->carriers[0] = '\0';
        oomslice_load_note_time(said);
        forget_targets();
        if (load_targets(places, NULL, without.why))
                exchange_targets(places, &without);
        write_report(places, said);
        return oomslice_say_failed(
                "%s: %s. No policy is in force; systemctl restart oomslice-bpf.service loads all "
                "programs anew",
                said->name, said->why);
}

int oomslice_policy_put(const struct oomslice_places *places, const char *path) {
        struct oomslice_report_policy said = {.in_force = true};
        struct oomslice_policy_file file = {.object = -1};
        int r = 0;

        oomslice_refuse_listen();
        if (!oomslice_policy_file_read(&file, path, said.why) || !load_targets(places, &file, said.why))
                r = 1;
        else if (targets_count == 0) {
                oomslice_refuse(said.why, "no program that chooses is loaded (systemctl start "
                                          "oomslice-bpf.service)");
                r = 1;
        } else if (!oomslice_kept_write(places->policies, &file, said.why))
                r = 1;
        if (r != 0) {
                oomslice_say_failed("%s: %s. What was in force before stays", path, said.why);
                goto out;
        }
        snprintf(said.name, sizeof(said.name), "%s", file.name);
        if (!exchange_targets(places, &said)) {
                oomslice_kept_forget(places->policies);
                r = put_failed(places, &said);
                goto out;
        }
        oomslice_load_note_time(&said);
        r = write_report(places, &said);
        printf("%s: in force in %s\n", said.name, said.carriers);
        if (!oomslice_kept_replace(places->policies, &file, said.why))
                r = oomslice_say_failed("%s: %s. It is in force until the programs are loaded anew", path,
                                        said.why);
out:
        forget_targets();
        oomslice_policy_file_forget(&file);
        return r ? r : oomslice_say_all();
}

int oomslice_policy_remove(const struct oomslice_places *places) {
        struct oomslice_report_policy said = {0};
        bool known = oomslice_report_find_policy(places->report, &said);
        int r = 0;

        oomslice_refuse_listen();
        said.why[0] = '\0';
        if ((known && said.in_force && !load_targets(places, NULL, said.why)) ||
            !oomslice_kept_remove(places->policies, said.why)) {
                forget_targets();
                return oomslice_say_failed("%s. What was in force before stays", said.why);
        }
        if (!exchange_targets(places, &said))
                r = oomslice_say_failed("%s. systemctl restart oomslice-bpf.service loads all programs anew",
                                        said.why);
        if (known && write_report(places, NULL) != 0)
                r = 1;
        forget_targets();
        return r;
}

static void time_text(uint64_t usec, char text[static 32]) {
        time_t seconds = (time_t)(usec / 1000000);
        struct tm local;

        if (!localtime_r(&seconds, &local) || strftime(text, 32, "%Y-%m-%d %H:%M:%S", &local) == 0)
                text[0] = '\0';
}

int oomslice_policy_show(const struct oomslice_places *places) {
        struct oomslice_report_policy said = {0};
        char since[32];

        if (!oomslice_report_find_policy(places->report, &said))
                puts("no policy is in force: units are chosen by priority and size");
        else if (said.in_force) {
                time_text(said.usec, since);
                printf("%s: in force in %s since %s; hits %" PRIu64 "\n", said.name, said.carriers, since,
                       read_hits(places));
        } else
                printf("%s: not in force: %s\n", said.name, said.why);
        return oomslice_say_all();
}

void oomslice_policy_print_json(const struct oomslice_places *places) {
        struct oomslice_report_policy said = {0};
        const char *separator = "";
        char *rest = said.carriers, *one;

        if (!oomslice_report_find_policy(places->report, &said)) {
                fputs("null", stdout);
                return;
        }
        fputs("{\"name\": ", stdout);
        oomslice_say_json(said.name);
        printf(", \"active\": %s, \"why\": ", said.in_force ? "true" : "false");
        oomslice_say_json(said.why);
        printf(", \"since_usec\": %" PRIu64 ", \"carriers\": [", said.usec);
        while ((one = strsep(&rest, " ")) && *one) {
                fputs(separator, stdout);
                oomslice_say_json(one);
                separator = ", ";
        }
        printf("], \"hits\": %" PRIu64 "}", said.in_force ? read_hits(places) : 0);
}
