/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the plan in force and the tables of descriptors that belong to it. There are two of everything: one in
 * force and one being taken; a commit swaps a pointer. Descriptors of a cgroup that is in both plans are kept, so
 * a new plan of a thousand units opens only what changed.
 *
 * Promises: nothing is changed by a plan that is refused; a plan in force is checked, mapped read-only from a
 * sealed memfd, locked, and complete. Never reads what the plan says before oomslice_plan_check() accepted it.
 */
#define _GNU_SOURCE
#include "force.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cgroup.h"
#include "event.h"
#include "lock.h"
#include "psi.h"
#include "token.h"

enum { SPARE_DESCRIPTORS = 512 };

static _Alignas(OOMSLICE_LOCK_PAGE) struct oomslice_held held_tables[2][OOMSLICE_PLAN_UNITS_MAX];
static _Alignas(OOMSLICE_LOCK_PAGE) uint16_t order_tables[2][OOMSLICE_PLAN_UNITS_MAX];
static _Alignas(OOMSLICE_LOCK_PAGE) bool inherited_tables[2][OOMSLICE_PLAN_UNITS_MAX];
static struct oomslice_force slots[2];
static struct oomslice_force *_Atomic in_force; /* NULL before the first plan; the watchdog reads it, too */
static struct oomslice_force *taking;           /* NULL while no plan is being taken */
static int epoll = -1;
static int proc = -1;
static const char machine_pressure[] = "pressure/memory";

void oomslice_force_init(int epoll_fd, int proc_fd) {
        epoll = epoll_fd;
        proc = proc_fd;
        for (int i = 0; i < 2; i++) {
                slots[i].held = held_tables[i];
                slots[i].order = order_tables[i];
                slots[i].inherited = inherited_tables[i];
                oomslice_lock_table(held_tables[i], sizeof(held_tables[i]));
                oomslice_lock_table(order_tables[i], sizeof(order_tables[i]));
                oomslice_lock_table(inherited_tables[i], sizeof(inherited_tables[i]));
        }
}

const struct oomslice_force *oomslice_force_get(void) {
        return in_force;
}

static void close_descriptor(int *fdp) {
        if (*fdp >= 0)
                close(*fdp);
        *fdp = -1;
}

/* Gives back everything of a plan but what the other one shares (`kept`: its flags, NULL for nothing). */
static void release(struct oomslice_force *force, const bool *kept) {
        for (uint32_t i = 0; i < force->added; i++)
                if (!kept || !kept[i])
                        oomslice_held_close(&force->held[i]);
        for (uint32_t i = 0; i < OOMSLICE_PLAN_DOMAINS_MAX; i++) {
                close_descriptor(&force->domains[i].trigger_fd);
                close_descriptor(&force->domains[i].figures_fd);
        }
        close_descriptor(&force->sign_fd);
        close_descriptor(&force->plain_sign_fd);
        close_descriptor(&force->thrash.trigger_fd);
        close_descriptor(&force->thrash.figures_fd);
        if (force->map)
                munmap(force->map, force->size);
        force->map = NULL;
        close_descriptor(&force->fd);
        force->added = 0;
}

static void lock_tables(const struct oomslice_force *force, uint32_t units) {
        oomslice_lock_used(force->held, sizeof(held_tables[0]), units * sizeof(force->held[0]));
        oomslice_lock_used(force->order, sizeof(order_tables[0]), units * sizeof(force->order[0]));
        oomslice_lock_used(force->inherited, sizeof(inherited_tables[0]),
                           units * sizeof(force->inherited[0]));
}

void oomslice_force_lock(void) {
        for (int i = 0; i < 2; i++)
                lock_tables(&slots[i], &slots[i] == in_force ? slots[i].plan.header->units_count : 0);
}

void oomslice_force_abort(void) {
        if (!taking)
                return;
        release(taking, taking->inherited);
        lock_tables(taking, 0);
        taking = NULL;
}

static uint64_t id_at(const struct oomslice_force *force, uint32_t position) {
        return force->plan.units[force->order[position]].cgroup_id;
}

/*
 * Shell sort: nothing to recurse into, nothing to allocate. An id that is there twice would have its descriptors
 * closed twice, and the second time they may be another's.
 */
static int make_order(struct oomslice_force *force, uint32_t *detailp) {
        uint32_t count = force->plan.header->units_count;

        for (uint32_t i = 0; i < count; i++)
                force->order[i] = (uint16_t)i;
        for (uint32_t gap = count / 2; gap > 0; gap /= 2)
                for (uint32_t i = gap; i < count; i++)
                        for (uint32_t j = i; j >= gap && id_at(force, j - gap) > id_at(force, j); j -= gap) {
                                uint16_t other = force->order[j];

                                force->order[j] = force->order[j - gap];
                                force->order[j - gap] = other;
                        }
        for (uint32_t i = 1; i < count; i++)
                if (id_at(force, i - 1) == id_at(force, i)) {
                        *detailp = force->order[i];
                        return OOMSLICE_PLAN_E_BOUNDS;
                }
        return OOMSLICE_PLAN_OK;
}

int oomslice_force_begin(int plan_fd, bool newer_only, uint32_t *detailp) {
        static uint32_t tag;
        int r;

        oomslice_force_abort();
        *detailp = 0;
        taking = in_force == &slots[0] ? &slots[1] : &slots[0];
        taking->tag = ++tag & 0xffffff;
        taking->fd = plan_fd;
        taking->map = NULL;
        taking->added = 0;
        taking->sign_fd = taking->plain_sign_fd = -1;
        taking->thrash = (struct oomslice_force_domain){-1, -1, 0};
        for (uint32_t i = 0; i < OOMSLICE_PLAN_DOMAINS_MAX; i++)
                taking->domains[i] = (struct oomslice_force_domain){-1, -1, 0};

        r = oomslice_plan_check_seals(plan_fd, &taking->size);
        if (r != OOMSLICE_PLAN_OK)
                goto fail;
        taking->map = mmap(NULL, taking->size, PROT_READ, MAP_SHARED | MAP_POPULATE, plan_fd, 0);
        if (taking->map == MAP_FAILED) {
                taking->map = NULL;
                r = -errno;
                goto fail;
        }
        /* Refused by RLIMIT_MEMLOCK only where mlockall() was, too: the feature LOCKED is then already off. */
        (void)mlock(taking->map, taking->size);
        r = oomslice_plan_check(taking->map, taking->size, &taking->plan, detailp);
        if (r != OOMSLICE_PLAN_OK)
                goto fail;
        if (newer_only && in_force && taking->plan.header->generation <= in_force->plan.header->generation) {
                r = OOMSLICE_PLAN_E_GENERATION;
                goto fail;
        }
        lock_tables(taking, taking->plan.header->units_count);
        r = make_order(taking, detailp);
        if (r != OOMSLICE_PLAN_OK)
                goto fail;
        return OOMSLICE_PLAN_OK;

fail:
        oomslice_force_abort();
        return r;
}

/* Which files of a unit may be needed: a ladder's only by those who can be chosen. */
static uint32_t files_for(const struct oomslice_plan *plan, const struct oomslice_plan_unit *unit) {
        /* Right below the root: what the kernel keeps for it is nobody else's, see withheld.c. */
        uint32_t files = unit->parent == 0 ? OOMSLICE_HELD_MIN : 0;

        if (!(unit->flags & OOMSLICE_UNIT_CANDIDATE))
                return files;
        files |= OOMSLICE_HELD_CANDIDATE;
        for (uint32_t i = 0; i < unit->steps_count; i++)
                files |= oomslice_held_files_of_step(plan->steps[unit->steps_first + i].kind);
        return files;
}

/* Fills held[unit] from the plan in force if that has the cgroup with all its files, else from `fd`. */
static int add_unit(uint32_t unit, int fd) {
        const struct oomslice_plan_unit *planned = &taking->plan.units[unit];
        uint32_t files = files_for(&taking->plan, planned);
        uint64_t id;
        int32_t old;
        int r;

        taking->inherited[unit] = false;
        oomslice_held_init(&taking->held[unit]);
        if (fd < 0)
                return OOMSLICE_PLAN_OK;
        r = oomslice_cgroup_id(fd, &id);
        if (r == -ENOTSUP || r == -ENOTDIR || (r == 0 && id != planned->cgroup_id))
                return OOMSLICE_PLAN_E_CGROUP;
        if (r < 0)
                return r;
        old = in_force ? oomslice_force_find(in_force, id) : -1;
        if (old >= 0 && oomslice_held_is_complete(&in_force->held[old], files)) {
                taking->held[unit] = in_force->held[old];
                taking->inherited[unit] = true;
                return OOMSLICE_PLAN_OK;
        }
        r = oomslice_held_open(&taking->held[unit], fd, files);
        if (r == -ENODEV || r == -ENOENT)
                return OOMSLICE_PLAN_OK; /* removed since the plan was made: verdict GONE */
        if (r == 0)
                oomslice_held_prefault(&taking->held[unit]);
        return r;
}

int oomslice_force_add(uint32_t first, const int *fds, uint32_t count, uint32_t *detailp) {
        int r = OOMSLICE_PLAN_OK;

        *detailp = first;
        if (!taking)
                return OOMSLICE_PLAN_E_SEQUENCE;
        if (first != taking->added || count > taking->plan.header->units_count - first)
                r = OOMSLICE_PLAN_E_DESCRIPTORS;
        for (uint32_t i = 0; i < count && r == OOMSLICE_PLAN_OK; i++) {
                *detailp = first + i;
                r = add_unit(first + i, fds[i]);
                taking->added++;
        }
        if (r != OOMSLICE_PLAN_OK)
                oomslice_force_abort();
        return r;
}

int32_t oomslice_force_find(const struct oomslice_force *force, uint64_t cgroup_id) {
        uint32_t low = 0, high = force->plan.header->units_count;

        while (low < high) {
                uint32_t middle = (low + high) / 2;

                if (id_at(force, middle) == cgroup_id)
                        return force->order[middle];
                if (id_at(force, middle) < cgroup_id)
                        low = middle + 1;
                else
                        high = middle;
        }
        return -1;
}

/* Moves the trigger of the plan before if it is the same, else makes one. A failure costs the trigger alone. */
static int arm(int *old_fdp, bool same, int directory, const char *path,
               const struct oomslice_psi_trigger *trigger, struct oomslice_event event,
               int (*opened)(int, const char *, const struct oomslice_psi_trigger *)) {
        int fd;

        if (trigger->kind == OOMSLICE_PSI_NONE)
                return -1;
        if (old_fdp && *old_fdp >= 0 && same) {
                fd = *old_fdp;
                *old_fdp = -1;
        } else
                fd = opened(directory, path, trigger);
        if (fd >= 0 && oomslice_event_set(epoll, fd, EPOLLPRI, event) < 0)
                close_descriptor(&fd);
        return fd < 0 ? -1 : fd;
}

static bool triggers_equal(const struct oomslice_psi_trigger *a, const struct oomslice_psi_trigger *b) {
        return a->kind == b->kind && a->stall_us == b->stall_us && a->window_us == b->window_us;
}

/* What the trigger counts, from the file of its figures; 0 if that cannot be read. */
static uint64_t stalled(int figures_fd, const struct oomslice_psi_trigger *trigger) {
        struct oomslice_psi_trigger_figures figures;

        if (figures_fd < 0 || oomslice_psi_read(figures_fd, &figures) < 0)
                return 0;
        return trigger->kind == OOMSLICE_PSI_FULL ? figures.full_total_us : figures.some_total_us;
}

/*
 * A trigger that was made without CAP_SYS_RESOURCE begins to count at a sum that the kernel keeps for those made with
 * it, and that may be old (psi_trigger_create() in kernel/sched/psi.c, since Linux 6.5): its first firings may be for
 * stalls long before. So none counts until as much as it is set to has been lost since it was made.
 */
static bool is_real(struct oomslice_force_domain *armed, const struct oomslice_psi_trigger *trigger) {
        if (armed->total_us != UINT64_MAX && armed->figures_fd >= 0 &&
            stalled(armed->figures_fd, trigger) < armed->total_us + trigger->stall_us)
                return false;
        armed->total_us = UINT64_MAX;
        return true;
}

bool oomslice_force_is_stalled(uint32_t domain) {
        return is_real(&in_force->domains[domain], &in_force->plan.domains[domain].trigger);
}

bool oomslice_force_is_thrashing(void) {
        return is_real(&in_force->thrash, &in_force->plan.header->machine.thrash);
}

/* Arms with the figures noted before; `old` is what the plan before has of it, NULL for nothing. */
static void arm_noted(struct oomslice_force_domain *armed, struct oomslice_force_domain *old, bool same,
                      int directory, const char *path, const struct oomslice_psi_trigger *trigger,
                      struct oomslice_event event) {
        armed->figures_fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
        armed->total_us = stalled(armed->figures_fd, trigger);
        if (old && old->trigger_fd >= 0 && same)
                armed->total_us = old->total_us;
        armed->trigger_fd =
                arm(old ? &old->trigger_fd : NULL, same, directory, path, trigger, event, oomslice_psi_open);
}

static void arm_domain(struct oomslice_force *force, struct oomslice_force *old, uint32_t index) {
        const struct oomslice_plan_domain *domain = &force->plan.domains[index];
        const struct oomslice_event event = {OOMSLICE_EVENT_DOMAIN, force->tag, index};
        int directory = force->held[domain->unit].directory;
        struct oomslice_force_domain *noted = NULL;
        bool same = false;

        for (uint32_t i = 0; old && i < old->plan.header->domains_count; i++) {
                const struct oomslice_plan_domain *before = &old->plan.domains[i];

                if (old->plan.units[before->unit].cgroup_id != force->plan.units[domain->unit].cgroup_id)
                        continue;
                noted = &old->domains[i];
                same = triggers_equal(&before->trigger, &domain->trigger);
        }
        if (directory >= 0)
                arm_noted(&force->domains[index], noted, same, directory, "memory.pressure", &domain->trigger,
                          event);
        /* The root cgroup has no memory.pressure on every kernel; the machine's file has the same figures. */
        if (index == 0 && force->domains[0].figures_fd < 0)
                force->domains[0].figures_fd = openat(proc, machine_pressure, O_RDONLY | O_CLOEXEC);
        /* Once before it must be read. */
        (void)stalled(force->domains[index].figures_fd, &domain->trigger);
}

static void arm_all(struct oomslice_force *force, struct oomslice_force *old) {
        const struct oomslice_machine *machine = &force->plan.header->machine;
        const struct oomslice_machine *before = old ? &old->plan.header->machine : machine;
        const struct oomslice_event sign = {OOMSLICE_EVENT_SIGN, force->tag, 0};
        const struct oomslice_event thrash = {OOMSLICE_EVENT_THRASH, force->tag, 0};
        bool same = triggers_equal(&before->sign, &machine->sign);

        force->sign_fd = arm(old ? &old->sign_fd : NULL, same, proc, machine_pressure, &machine->sign, sign,
                             oomslice_psi_open);
        force->plain_sign_fd = arm(old ? &old->plain_sign_fd : NULL, same, proc, machine_pressure,
                                   &machine->sign, sign, oomslice_psi_open_plain);
        same = triggers_equal(&before->thrash, &machine->thrash);
        arm_noted(&force->thrash, old ? &old->thrash : NULL, same, proc, machine_pressure, &machine->thrash,
                  thrash);
        for (uint32_t i = 0; i < force->plan.header->domains_count; i++)
                arm_domain(force, old, i);
}

/* Lets the kernel grow the table of descriptors now, and not when a victim's pidfds are opened. */
static void reserve_descriptors(void) {
        int low, high;

        low = fcntl(epoll, F_DUPFD_CLOEXEC, 0);
        if (low < 0)
                return;
        high = fcntl(epoll, F_DUPFD_CLOEXEC, low + SPARE_DESCRIPTORS);
        close(low);
        if (high >= 0)
                close(high);
}

int oomslice_force_commit(uint32_t *detailp) {
        struct oomslice_force *old = in_force;

        *detailp = taking ? taking->added : 0;
        if (!taking)
                return OOMSLICE_PLAN_E_SEQUENCE;
        if (taking->added != taking->plan.header->units_count) {
                oomslice_force_abort();
                return OOMSLICE_PLAN_E_DESCRIPTORS;
        }

        *detailp = 0;
        arm_all(taking, old);
        in_force = taking;
        taking = NULL;
        oomslice_token_settle();
        if (old) {
                /* From here on what both share belongs to the new one alone: mark it in the old one's flags. */
                for (uint32_t i = 0; i < old->added; i++) {
                        int32_t unit = oomslice_force_find(in_force, old->plan.units[i].cgroup_id);

                        old->inherited[i] = unit >= 0 && in_force->inherited[unit];
                }
                release(old, old->inherited);
                lock_tables(old, 0);
        }
        reserve_descriptors();
        return OOMSLICE_PLAN_OK;
}

int oomslice_force_restore(int plan_fd, int root_fd, uint32_t *detailp) {
        int r;

        r = oomslice_force_begin(plan_fd, true, detailp);
        for (uint32_t i = 0; r == OOMSLICE_PLAN_OK && i < taking->plan.header->units_count; i++) {
                int fd = oomslice_cgroup_open_by_id(root_fd, taking->plan.units[i].cgroup_id);

                /* ESTALE: removed meanwhile. Anything else would make a plan in which everyone is gone. */
                if (fd < 0 && fd != -ESTALE && fd != -ENOENT) {
                        oomslice_force_abort();
                        return fd;
                }
                r = oomslice_force_add(i, &fd, 1, detailp);
                if (fd >= 0)
                        close(fd);
        }
        return r == OOMSLICE_PLAN_OK ? oomslice_force_commit(detailp) : r;
}

bool oomslice_force_has_memory(const struct oomslice_force *force) {
        for (uint32_t i = 0; i < force->added; i++)
                if (force->held[i].current >= 0 && force->held[i].stat >= 0)
                        return true;
        return false;
}

void oomslice_force_drop_trigger(uint32_t domain) {
        if (in_force && domain < OOMSLICE_PLAN_DOMAINS_MAX)
                close_descriptor(&in_force->domains[domain].trigger_fd);
}
