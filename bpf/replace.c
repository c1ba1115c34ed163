/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command `policy`: an administrator's own program takes the place of the function oomslice_policy() (choice.h) in every
 * loaded program that chooses. In all of them or in none: a policy that holds in one place only would be none.
 *
 * One copy of the program is loaded for each, since a copy is verified as a part of the one that it extends. The copies
 * share the maps of the first. The links are pinned below DIR/policy and end with `policy --remove` and `unload`; nothing
 * else of the loaded programs is touched.
 */
#define _GNU_SOURCE
#include "replace.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "carrier.h"
#include "pins.h"
#include "refuse.h"
#include "say.h"

static const char function[] = "oomslice_policy";

enum { TARGETS_MAX = 32, FUNCTIONS_MAX = 64 };

/* One program that chooses, and the copy for it. */
struct target {
        char name[128]; /* CARRIER-PROGRAM */
        int program;
        struct bpf_object *object;
};

static struct target targets[TARGETS_MAX];
static size_t targets_count;

/*
 * The kernel lets a function be replaced in any program, and then does not let the link be made if that is attached by the
 * types of the kernel: the new one takes over how it is attached (check_attach_btf_id() in kernel/bpf/verifier.c), and who
 * makes the link wants none of that (bpf_tracing_prog_attach() in kernel/bpf/syscall.c). Known beforehand, so that what was
 * in force before is not lost over it.
 */
static bool is_closed(__u32 type) {
        return type == BPF_PROG_TYPE_TRACING;
}

/* Whether a loaded program has the function. 1, 0 or -errno; -EOPNOTSUPP: it has, and cannot have another. */
static int chooses(int program) {
        struct bpf_func_info functions[FUNCTIONS_MAX];
        struct bpf_prog_info info = {0};
        __u32 size = sizeof(info);
        struct btf *btf;
        int found = 0;

        info.nr_func_info = FUNCTIONS_MAX;
        info.func_info_rec_size = sizeof(functions[0]);
        info.func_info = (uintptr_t)functions;
        if (bpf_obj_get_info_by_fd(program, &info, &size) < 0)
                return -errno;
        if (info.nr_func_info > FUNCTIONS_MAX)
                return -E2BIG;
        btf = btf__load_from_kernel_by_id(info.btf_id);
        if (!btf)
                return -errno;
        for (__u32 i = 0; i < info.nr_func_info; i++) {
                const struct btf_type *type = btf__type_by_id(btf, functions[i].type_id);

                if (type && strcmp(btf__name_by_offset(btf, type->name_off), function) == 0)
                        found = 1;
        }
        btf__free(btf);
        return found && is_closed(info.type) ? -EOPNOTSUPP : found;
}

static bool add_target(const char *directory, const char *carrier, const char *pin,
                       char why[static OOMSLICE_WHY_MAX]) {
        struct target *target = &targets[targets_count];
        const char *program = pin + strlen("program-");
        char path[PATH_MAX];
        int r;

        if (targets_count == TARGETS_MAX)
                return oomslice_refuse_step(why, "counting", "programs", E2BIG);
        if (snprintf(target->name, sizeof(target->name), "%s-%s", carrier, program) >=
                    (int)sizeof(target->name) ||
            !oomslice_pins_path(path, directory, "program", program))
                return oomslice_refuse_step(why, "looking at", program, ENAMETOOLONG);
        target->program = bpf_obj_get(path);
        if (target->program < 0)
                return oomslice_refuse_step(why, "looking at", target->name, errno);
        r = chooses(target->program);
        if (r > 0) {
                targets_count++;
                return true;
        }
        close(target->program);
        if (r == -EOPNOTSUPP)
                return oomslice_refuse(
                        why,
                        "the kernel lets nobody take a function's place in %s; where --without=%s is given "
                        "to load, the others can have a policy",
                        target->name, carrier);
        return r == 0 || oomslice_refuse_step(why, "looking at", target->name, r);
}

static bool find_targets(const char *pins, char why[static OOMSLICE_WHY_MAX]) {
        const struct oomslice_carrier *carrier;

        for (carrier = oomslice_carriers; carrier->name; carrier++) {
                char path[PATH_MAX];
                struct dirent *entry;
                bool good = true;
                DIR *directory;

                if (snprintf(path, sizeof(path), "%s/%s", pins, carrier->name) >= (int)sizeof(path))
                        return oomslice_refuse_step(why, "looking below", pins, ENAMETOOLONG);
                directory = opendir(path);
                if (!directory && errno == ENOENT)
                        continue;
                if (!directory)
                        return oomslice_refuse_step(why, "looking at", path, errno);
                while (good && (entry = readdir(directory)))
                        if (strncmp(entry->d_name, "program-", strlen("program-")) == 0)
                                good = add_target(path, carrier->name, entry->d_name, why);
                closedir(directory);
                if (!good)
                        return false;
        }
        if (targets_count == 0)
                return oomslice_refuse(
                        why, "no program that chooses is loaded (systemctl start oomslice-bpf.service)");
        return true;
}

/* The program for the function; whatever else the file has stays out. */
static struct bpf_program *wanted(struct bpf_object *object) {
        struct bpf_program *program, *found = NULL;

        bpf_object__for_each_program(program, object) {
                const char *section = bpf_program__section_name(program);
                const char *slash = strchr(section, '/');

                if (bpf_program__type(program) == BPF_PROG_TYPE_EXT && slash &&
                    strcmp(slash + 1, function) == 0 && !found)
                        found = program;
                else
                        bpf_program__set_autoload(program, false);
        }
        return found;
}

static bool share_maps(struct bpf_object *object, struct bpf_object *first,
                       char why[static OOMSLICE_WHY_MAX]) {
        struct bpf_map *map, *made;

        bpf_object__for_each_map(map, object) {
                int r;

                made = bpf_object__find_map_by_name(first, bpf_map__name(map));
                /* Variables are each copy's own: what they begin with is set while loading. */
                if (!made || bpf_map__is_internal(map))
                        continue;
                r = bpf_map__reuse_fd(map, bpf_map__fd(made));
                if (r < 0)
                        return oomslice_refuse_step(why, "sharing the map", bpf_map__name(map), r);
        }
        return true;
}

static bool load_copies(const char *file, char why[static OOMSLICE_WHY_MAX]) {
        for (size_t i = 0; i < targets_count; i++) {
                struct target *target = &targets[i];
                struct bpf_program *program;
                int r;

                target->object = bpf_object__open_file(file, NULL);
                if (!target->object)
                        return oomslice_refuse_step(why, "reading", file, errno);
                program = wanted(target->object);
                if (!program)
                        return oomslice_refuse(why, "%s has no function in a section freplace/%s", file,
                                               function);
                if (i > 0 && !share_maps(target->object, targets[0].object, why))
                        return false;
                r = bpf_program__set_attach_target(program, target->program, function);
                if (r == 0)
                        r = bpf_object__load(target->object);
                if (r < 0)
                        return oomslice_refuse_step(why, "it does not fit into", target->name, r);
        }
        return true;
}

static bool attach_copies(const char *directory, char why[static OOMSLICE_WHY_MAX]) {
        struct bpf_map *map;

        if (mkdir(directory, OOMSLICE_PINS_DIRECTORY_MODE) < 0 ||
            chmod(directory, OOMSLICE_PINS_DIRECTORY_MODE) < 0)
                return oomslice_refuse_step(why, "making", directory, errno);
        for (size_t i = 0; i < targets_count; i++) {
                struct target *target = &targets[i];
                struct bpf_program *program = wanted(target->object);
                struct bpf_link *link = bpf_program__attach_freplace(program, 0, NULL);
                int r;

                if (!link)
                        return oomslice_refuse_step(why, "attaching to", target->name, errno);
                r = oomslice_pins_pin(directory, "link", target->name, bpf_link__fd(link),
                                      OOMSLICE_PINS_LINK_MODE);
                if (r == 0)
                        r = oomslice_pins_pin(directory, "program", target->name, bpf_program__fd(program),
                                              OOMSLICE_PINS_PROGRAM_MODE);
                bpf_link__destroy(link);
                if (r < 0)
                        return oomslice_refuse_step(why, "pinning", target->name, r);
        }
        bpf_object__for_each_map(map, targets[0].object) {
                int r = bpf_map__is_internal(map)
                                ? 0
                                : oomslice_pins_pin(directory, "map", bpf_map__name(map), bpf_map__fd(map),
                                                    OOMSLICE_PINS_MAP_MODE);

                if (r < 0)
                        return oomslice_refuse_step(why, "pinning the map", bpf_map__name(map), r);
        }
        return true;
}

static void forget_targets(void) {
        while (targets_count > 0) {
                targets_count--;
                bpf_object__close(targets[targets_count].object);
                close(targets[targets_count].program);
        }
}

static bool policy_directory(const char *pins, char directory[static PATH_MAX]) {
        return snprintf(directory, PATH_MAX, "%s/policy", pins) < PATH_MAX;
}

int oomslice_replace(const char *pins, const char *file) {
        char directory[PATH_MAX], why[OOMSLICE_WHY_MAX] = "";
        bool removed = false, done;
        int r;

        oomslice_refuse_listen();
        if (!policy_directory(pins, directory))
                return oomslice_say_failed("%s: the path is too long", pins);
        done = find_targets(pins, why) && load_copies(file, why);
        if (done) {
                /* It fits: now the place is made free for it. */
                r = oomslice_pins_remove(directory);
                removed = r == 0;
                done = removed ? attach_copies(directory, why)
                               : oomslice_refuse_step(why, "removing", directory, r);
                if (!done && removed)
                        oomslice_pins_remove(directory);
        }
        for (size_t i = 0; done && i < targets_count; i++)
                printf("in force in %s\n", targets[i].name);
        forget_targets();
        if (!done)
                return oomslice_say_failed("%s: %s. %s", file, why,
                                           removed ? "No policy is in force"
                                                   : "What was in force before stays");
        return oomslice_say_all();
}

int oomslice_replace_remove(const char *pins) {
        char directory[PATH_MAX];
        int r;

        if (!policy_directory(pins, directory))
                return oomslice_say_failed("%s: the path is too long", pins);
        r = oomslice_pins_remove(directory);
        return r < 0 ? oomslice_say_failed("%s: cannot be removed: %s", directory, strerror(-r)) : 0;
}

int oomslice_replace_show(const char *pins) {
        char directory[PATH_MAX];
        struct dirent *entry;
        bool any = false;
        DIR *listing;

        if (!policy_directory(pins, directory))
                return oomslice_say_failed("%s: the path is too long", pins);
        listing = opendir(directory);
        while (listing && (entry = readdir(listing))) {
                if (strncmp(entry->d_name, "link-", strlen("link-")) != 0)
                        continue;
                printf("in force in %s\n", entry->d_name + strlen("link-"));
                any = true;
        }
        if (listing)
                closedir(listing);
        if (!any)
                puts("no policy is in force: units are chosen by priority and size");
        return oomslice_say_all();
}
