/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns whose the maps of programs are. Shared ones (maps.h) and those of a policy are there once for all carriers: what
 * one of them writes the others read. The rest are the carrier's own. Programs that take the place of others get what those
 * have: the plan, who is dying, what nobody has read yet.
 */
#define _GNU_SOURCE
#include "reuse.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pins.h"

const char oomslice_reuse_shared[] = "shared", oomslice_reuse_policy[] = "policy";
static const char *const shared_maps[] = {"slices", "pulse", "signs", "policy_hits"};

static bool is_shared(const struct bpf_map *map) {
        for (size_t i = 0; i < sizeof(shared_maps) / sizeof(shared_maps[0]); i++)
                if (strcmp(bpf_map__name(map), shared_maps[i]) == 0)
                        return true;
        return false;
}

/* It came with the policy. */
static bool is_policys(const struct oomslice_loaded *loaded, const struct bpf_map *map) {
        return loaded->plain && !bpf_object__find_map_by_name(loaded->plain, bpf_map__name(map));
}

/* Variables of the programs, which keep them themselves; and what is attached as a whole. */
static bool is_internal(const struct bpf_map *map) {
        return bpf_map__is_internal(map) || bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS;
}

/* The directory of its pin below `pins`. */
static bool directory_of(const struct oomslice_loaded *loaded, const struct bpf_map *map, const char *pins,
                         char directory[static PATH_MAX]) {
        const char *name = is_shared(map)            ? oomslice_reuse_shared
                           : is_policys(loaded, map) ? oomslice_reuse_policy
                                                     : loaded->carrier->name;

        return snprintf(directory, PATH_MAX, "%s/%s", pins, name) < PATH_MAX;
}

/* A descriptor of the map that is there, or -1: there is none. */
static int find_map(const struct oomslice_loaded *loaded, const struct bpf_map *map,
                    const struct oomslice_load *load) {
        const char *name = bpf_map__name(map);
        char directory[PATH_MAX], path[PATH_MAX];
        bool shared = is_shared(map), policys = is_policys(loaded, map);

        for (size_t i = 0; (shared || policys) && i < load->before_count; i++) {
                const struct oomslice_loaded *before = &load->before[i];
                struct bpf_map *made =
                        before->object ? bpf_object__find_map_by_name(before->object, name) : NULL;

                if (made && is_policys(before, made) == policys)
                        return dup(bpf_map__fd(made));
        }
        if (!load->keeps || policys || !directory_of(loaded, map, load->pins, directory) ||
            !oomslice_pins_path(path, directory, "map", name))
                return -1;
        return bpf_obj_get(path);
}

/* What is pinned may be of another version of this program. */
static bool is_alike(const struct bpf_map *map, int fd) {
        struct bpf_map_info info = {0};
        __u32 size = sizeof(info);

        return bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == bpf_map__type(map) &&
               info.key_size == bpf_map__key_size(map) && info.value_size == bpf_map__value_size(map);
}

bool oomslice_reuse_maps(const struct oomslice_loaded *loaded, const struct oomslice_load *load,
                         char why[static OOMSLICE_WHY_MAX]) {
        struct bpf_map *map;

        bpf_object__for_each_map(map, loaded->object) {
                int fd, r;

                if (is_internal(map))
                        continue;
                /* Where a map is pinned is not the policy's to say. */
                if (is_policys(loaded, map))
                        bpf_map__set_pin_path(map, NULL);
                fd = find_map(loaded, map, load);
                if (fd < 0)
                        continue;
                if (!is_alike(map, fd)) {
                        close(fd);
                        return oomslice_refuse(
                                why,
                                "the map %s that is loaded is of another version (systemctl restart "
                                "oomslice-bpf.service)",
                                bpf_map__name(map));
                }
                r = bpf_map__reuse_fd(map, fd);
                close(fd);
                if (r < 0)
                        return oomslice_refuse_step(why, "sharing the map", bpf_map__name(map), r);
        }
        return true;
}

static bool pin(const struct oomslice_loaded *loaded, const struct bpf_map *map, const char *pins,
                char why[static OOMSLICE_WHY_MAX]) {
        char directory[PATH_MAX];
        int r;

        if (!directory_of(loaded, map, pins, directory))
                return oomslice_refuse_step(why, "pinning below", pins, ENAMETOOLONG);
        if ((mkdir(directory, OOMSLICE_PINS_DIRECTORY_MODE) < 0 && errno != EEXIST) ||
            chmod(directory, OOMSLICE_PINS_DIRECTORY_MODE) < 0)
                return oomslice_refuse_step(why, "making", directory, errno);
        r = oomslice_pins_pin(directory, "map", bpf_map__name(map), bpf_map__fd(map), OOMSLICE_PINS_MAP_MODE);
        return r == 0 || r == -EEXIST || oomslice_refuse_step(why, "pinning the map", bpf_map__name(map), r);
}

bool oomslice_reuse_pin_shared(const struct oomslice_loaded *loaded, const char *pins,
                               char why[static OOMSLICE_WHY_MAX]) {
        struct bpf_map *map;

        bpf_object__for_each_map(map, loaded->object) if (is_shared(map) &&
                                                          !pin(loaded, map, pins, why)) return false;
        return true;
}

bool oomslice_reuse_pin_own(const struct oomslice_loaded *loaded, const char *pins,
                            char why[static OOMSLICE_WHY_MAX]) {
        struct bpf_map *map;

        bpf_object__for_each_map(map, loaded->object) if (!is_shared(map) && !bpf_map__is_internal(map) &&
                                                          !pin(loaded, map, pins, why)) return false;
        return true;
}

/* What a variable of the programs begins with, or NULL. The compiler puts those that begin with 0 there. */
static void *variable(const struct bpf_object *object, const char *name, size_t size) {
        struct btf *btf = bpf_object__btf(object);
        int id = btf ? btf__find_by_name_kind(btf, ".bss", BTF_KIND_DATASEC) : -1;
        const struct btf_type *section = id < 0 ? NULL : btf__type_by_id(btf, (__u32)id);
        const struct btf_var_secinfo *place = section ? btf_var_secinfos(section) : NULL;
        struct bpf_map *map;

        for (int i = 0; section && i < btf_vlen(section); i++, place++) {
                const struct btf_type *type = btf__type_by_id(btf, place->type);

                if (!type || place->size != size ||
                    strcmp(btf__name_by_offset(btf, type->name_off), name) != 0)
                        continue;
                bpf_object__for_each_map(map, object) {
                        size_t all;
                        char *bytes;

                        if (!bpf_map__is_internal(map) || !strstr(bpf_map__name(map), ".bss"))
                                continue;
                        /* Once it is loaded, the memory that the programs have. const before libbpf 1.5. */
                        bytes = (char *)bpf_map__initial_value(map, &all);
                        if (bytes && place->offset + size <= all)
                                return bytes + place->offset;
                }
        }
        return NULL;
}

void oomslice_reuse_count(const struct oomslice_loaded *loaded) {
        struct bpf_map *map = bpf_object__find_map_by_name(loaded->object, "flights");
        __u32 *counter = variable(loaded->object, "in_flight", sizeof(*counter)), count = 0;
        __u64 key, *previous = NULL;

        if (!map || !counter)
                return;
        while (bpf_map_get_next_key(bpf_map__fd(map), previous, &key) == 0) {
                previous = &key;
                count++;
        }
        *counter = count;
}
