/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plan's format: writing its envelope and checking every byte of it.
 *
 * Promises: after oomslice_plan_check() returned OK, every index, offset and enum in the plan is in range, so
 * that no later reader has to look twice. Never writes to a plan it checks, never allocates, and assumes
 * nothing of the sender: the extended part is less trusted than the core.
 */
#define _GNU_SOURCE
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "hash.h"

static const char magic[8] = {'O', 'O', 'M', 'S', 'L', 'P', 'L', 'N'};

enum {
        UNIT_FLAGS_ALL = OOMSLICE_UNIT_CANDIDATE | OOMSLICE_UNIT_PROTECTED | OOMSLICE_UNIT_SELF |
                         OOMSLICE_UNIT_LEFT_TO_OOMD | OOMSLICE_UNIT_DRY_RUN | OOMSLICE_UNIT_TAKEN,
        UNIT_FLAGS_UNTAKABLE = OOMSLICE_UNIT_PROTECTED | OOMSLICE_UNIT_SELF | OOMSLICE_UNIT_LEFT_TO_OOMD |
                               OOMSLICE_UNIT_CANDIDATE,
        SEALS_ALL = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
};

/* The arrays follow one another without padding, and each starts aligned. */
_Static_assert(sizeof(struct oomslice_plan_header) % alignof(struct oomslice_plan_unit) == 0,
               "units are aligned");
_Static_assert(sizeof(struct oomslice_plan_unit) % alignof(struct oomslice_plan_domain) == 0,
               "domains are aligned");
_Static_assert(sizeof(struct oomslice_plan_domain) % alignof(struct oomslice_plan_step) == 0,
               "steps are aligned");

/* Each step of FNV-1a is a bijection of the state, so a change of one single byte never goes unseen. */
static uint64_t checksum(const void *data, size_t size) {
        static const uint64_t zero = 0;
        const size_t before = offsetof(struct oomslice_plan_header, checksum);
        const size_t after = before + sizeof(zero);
        uint64_t hash;

        hash = oomslice_hash(OOMSLICE_HASH_START, data, before);
        hash = oomslice_hash(hash, &zero, sizeof(zero));
        return oomslice_hash(hash, (const unsigned char *)data + after, size - after);
}

/* What the counts of a header add up to. 64 bits hold the sum of any four 32-bit counts times 64. */
static uint64_t size_by_counts(const struct oomslice_plan_header *header) {
        return sizeof(*header) + (uint64_t)header->units_count * sizeof(struct oomslice_plan_unit) +
               (uint64_t)header->domains_count * sizeof(struct oomslice_plan_domain) +
               (uint64_t)header->steps_count * sizeof(struct oomslice_plan_step) + header->names_size;
}

static int size_is_possible(uint64_t size) {
        return size >= sizeof(struct oomslice_plan_header) && size <= OOMSLICE_PLAN_SIZE_MAX;
}

/* A mapped memfd is always aligned; another address is a mistake of the caller, not of the plan. */
static int is_aligned(const void *data) {
        return (uintptr_t)data % alignof(struct oomslice_plan_header) == 0;
}

int oomslice_plan_finish(void *data, size_t size) {
        struct oomslice_plan_header *header = data;

        if (!data || !is_aligned(data))
                return -EINVAL;
        if (!size_is_possible(size) || size_by_counts(header) != size)
                return OOMSLICE_PLAN_E_SIZE;

        memcpy(header->magic, magic, sizeof(magic));
        header->version = OOMSLICE_PLAN_VERSION;
        header->header_size = sizeof(*header);
        header->size = size;
        header->checksum = checksum(data, size);
        return OOMSLICE_PLAN_OK;
}

/* The kernel's own limits of a trigger (kernel/sched/psi.c: WINDOW_MIN_US, WINDOW_MAX_US, psi_trigger_create()). */
static int psi_trigger_is_valid(const struct oomslice_psi_trigger *trigger) {
        if (trigger->reserved != 0)
                return 0;
        switch (trigger->kind) {
        case OOMSLICE_PSI_NONE:
                return trigger->stall_us == 0 && trigger->window_us == 0;
        case OOMSLICE_PSI_SOME:
        case OOMSLICE_PSI_FULL:
                return trigger->window_us >= OOMSLICE_PSI_WINDOW_MIN_US &&
                       trigger->window_us <= OOMSLICE_PSI_WINDOW_MAX_US && trigger->stall_us > 0 &&
                       trigger->stall_us <= trigger->window_us;
        default:
                return 0;
        }
}

static int time_is_valid(uint64_t time_us) {
        return time_us <= (uint64_t)OOMSLICE_PLAN_TIME_MAX_S * UINT64_C(1000000);
}

static int check_header(const struct oomslice_plan_header *header, size_t size) {
        const struct oomslice_machine *machine = &header->machine;

        if (memcmp(header->magic, magic, sizeof(magic)) != 0)
                return OOMSLICE_PLAN_E_MAGIC;
        if (header->version != OOMSLICE_PLAN_VERSION || header->header_size != sizeof(*header))
                return OOMSLICE_PLAN_E_VERSION;
        if (header->size != size)
                return OOMSLICE_PLAN_E_SIZE;
        if (header->checksum != checksum(header, size))
                return OOMSLICE_PLAN_E_CHECKSUM;
        if (size_by_counts(header) != size)
                return OOMSLICE_PLAN_E_SIZE;
        if (header->units_count < 1 || header->units_count > OOMSLICE_PLAN_UNITS_MAX ||
            header->domains_count < 1 || header->domains_count > OOMSLICE_PLAN_DOMAINS_MAX ||
            header->steps_count > OOMSLICE_PLAN_STEPS_MAX)
                return OOMSLICE_PLAN_E_BOUNDS;
        if (machine->mark_kills > 1)
                return OOMSLICE_PLAN_E_BOUNDS;
        /* Generation 0 is "no plan yet" to the core. */
        if (header->generation == 0)
                return OOMSLICE_PLAN_E_GENERATION;
        if (machine->available_min > machine->available_watch || machine->death_deadline_us == 0 ||
            !time_is_valid(machine->death_deadline_us) || !psi_trigger_is_valid(&machine->sign) ||
            !psi_trigger_is_valid(&machine->thrash))
                return OOMSLICE_PLAN_E_BOUNDS;
        return OOMSLICE_PLAN_OK;
}

/*
 * A name starts where the names start or right after the NUL of another: units may share a name (two users'
 * app.slice), but none may pass off the end of another's name as its own.
 */
static int name_is_valid(const char *names, uint32_t names_size, uint32_t offset) {
        uint32_t left, length;

        if (offset >= names_size || (offset > 0 && names[offset - 1] != '\0'))
                return 0;
        left = names_size - offset;
        if (left > OOMSLICE_UNIT_NAME_MAX)
                left = OOMSLICE_UNIT_NAME_MAX;
        length = (uint32_t)strnlen(names + offset, left);
        return length > 0 && length < left;
}

static bool step_is_valid(const struct oomslice_plan *plan, const struct oomslice_plan_step *step) {
        bool text = false, amount = false;

        switch (step->kind) {
        case OOMSLICE_STEP_PURGE:
        case OOMSLICE_STEP_START:
                if (step->text == OOMSLICE_PLAN_NO_TEXT)
                        return false;
                text = true;
                break;
        case OOMSLICE_STEP_CHECKPOINT:
                text = true;
                break;
        case OOMSLICE_STEP_THROTTLE:
                if (step->amount < 1 || step->amount > 100)
                        return false;
                amount = true;
                break;
        case OOMSLICE_STEP_RECLAIM:
                amount = true;
                break;
        case OOMSLICE_STEP_KILL:
        case OOMSLICE_STEP_TERMINATE:
        case OOMSLICE_STEP_FREEZE:
        case OOMSLICE_STEP_WARN:
                break;
        default:
                return false;
        }
        if (step->text != OOMSLICE_PLAN_NO_TEXT &&
            (!text || step->text < 0 ||
             !name_is_valid(plan->names, plan->header->names_size, (uint32_t)step->text)))
                return false;
        return (amount || step->amount == 0) && time_is_valid(step->delay_us);
}

static bool check_ladder(const struct oomslice_plan *plan, const struct oomslice_plan_unit *unit) {
        if (unit->kill_scope > OOMSLICE_SCOPE_PROCESS || unit->steps_count > OOMSLICE_LADDER_STEPS_MAX ||
            unit->steps_first > plan->header->steps_count ||
            unit->steps_count > plan->header->steps_count - unit->steps_first)
                return false;
        for (uint32_t i = 0; i < unit->steps_count; i++) {
                const struct oomslice_plan_step *step = &plan->steps[unit->steps_first + i];

                if (!step_is_valid(plan, step) || (i > 0 && step->delay_us < step[-1].delay_us) ||
                    (step->kind == OOMSLICE_STEP_KILL && i + 1U < unit->steps_count))
                        return false;
        }
        return true;
}

/* True if what is below this unit dies with it. */
static bool is_takable(const struct oomslice_plan *plan, int32_t unit) {
        return plan->units[unit].flags & (OOMSLICE_UNIT_CANDIDATE | OOMSLICE_UNIT_TAKEN);
}

static int check_unit(const struct oomslice_plan *plan, uint32_t index) {
        const struct oomslice_plan_unit *unit = &plan->units[index];

        if (index == 0 ? unit->parent != -1 : unit->parent < 0 || (uint32_t)unit->parent >= index)
                return OOMSLICE_PLAN_E_PARENT;
        /* Killing a candidate kills all below it, so another unit there would die without being chosen: it must
         * say so, and must not be one that is never to die. */
        if (index > 0 && is_takable(plan, unit->parent) != !!(unit->flags & OOMSLICE_UNIT_TAKEN))
                return OOMSLICE_PLAN_E_PARENT;
        if ((unit->flags & OOMSLICE_UNIT_TAKEN) && (unit->flags & UNIT_FLAGS_UNTAKABLE))
                return OOMSLICE_PLAN_E_PARENT;
        if (index > 0 && (plan->units[unit->parent].flags & OOMSLICE_UNIT_CANDIDATE) &&
            plan->units[unit->parent].kill_scope != OOMSLICE_SCOPE_SUBTREE)
                return OOMSLICE_PLAN_E_PARENT;
        if (unit->cgroup_id == 0 || unit->priority < OOMSLICE_PRIORITY_MIN ||
            unit->priority > OOMSLICE_PRIORITY_MAX || (unit->flags & ~(uint32_t)UNIT_FLAGS_ALL))
                return OOMSLICE_PLAN_E_BOUNDS;
        if (!name_is_valid(plan->names, plan->header->names_size, unit->name_offset))
                return OOMSLICE_PLAN_E_NAME;
        return check_ladder(plan, unit) ? OOMSLICE_PLAN_OK : OOMSLICE_PLAN_E_LADDER;
}

static int check_domain(const struct oomslice_plan *plan, uint32_t index) {
        const struct oomslice_plan_domain *domain = &plan->domains[index];

        if (domain->unit < 0 || (uint32_t)domain->unit >= plan->header->units_count ||
            (index == 0) != (domain->unit == 0))
                return OOMSLICE_PLAN_E_DOMAIN;
        for (uint32_t i = 0; i < index; i++)
                if (plan->domains[i].unit == domain->unit)
                        return OOMSLICE_PLAN_E_DOMAIN;
        if (domain->rank_by > OOMSLICE_RANK_REFAULT ||
            (domain->flags & ~(uint32_t)(OOMSLICE_DOMAIN_DRY_RUN | OOMSLICE_DOMAIN_LOWER)) ||
            (index == 0 && (domain->flags & OOMSLICE_DOMAIN_LOWER)) || domain->reserved != 0 ||
            !time_is_valid(domain->cooldown_us) || !psi_trigger_is_valid(&domain->trigger))
                return OOMSLICE_PLAN_E_DOMAIN;
        return OOMSLICE_PLAN_OK;
}

int oomslice_plan_check(const void *data, size_t size, struct oomslice_plan *planp, uint32_t *detailp) {
        struct oomslice_plan plan;
        int result;

        *detailp = 0;
        if (!data || !is_aligned(data))
                return -EINVAL;
        if (!size_is_possible(size))
                return OOMSLICE_PLAN_E_SIZE;

        plan.header = data;
        result = check_header(plan.header, size);
        if (result != OOMSLICE_PLAN_OK)
                return result;
        plan.units = (const struct oomslice_plan_unit *)(plan.header + 1);
        plan.domains = (const struct oomslice_plan_domain *)(plan.units + plan.header->units_count);
        plan.steps = (const struct oomslice_plan_step *)(plan.domains + plan.header->domains_count);
        plan.names = (const char *)(plan.steps + plan.header->steps_count);

        for (uint32_t i = 0; i < plan.header->units_count; i++) {
                result = check_unit(&plan, i);
                if (result != OOMSLICE_PLAN_OK) {
                        *detailp = i;
                        return result;
                }
        }
        for (uint32_t i = 0; i < plan.header->domains_count; i++) {
                result = check_domain(&plan, i);
                if (result != OOMSLICE_PLAN_OK) {
                        *detailp = i;
                        return result;
                }
        }
        *planp = plan;
        return OOMSLICE_PLAN_OK;
}

int oomslice_plan_check_seals(int fd, size_t *sizep) {
        struct stat status;
        int seals;

        seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0)
                /* EINVAL: a file that cannot be sealed at all */
                return errno == EINVAL ? (int)OOMSLICE_PLAN_E_SEALS : -errno;
        if ((seals & SEALS_ALL) != SEALS_ALL)
                return OOMSLICE_PLAN_E_SEALS;
        if (fstat(fd, &status) < 0)
                return -errno;
        if (status.st_size < 0 || !size_is_possible((uint64_t)status.st_size))
                return OOMSLICE_PLAN_E_SIZE;
        *sizep = (size_t)status.st_size;
        return OOMSLICE_PLAN_OK;
}

static int has_unit(const struct oomslice_plan *plan, int32_t unit) {
        return unit >= 0 && (uint32_t)unit < plan->header->units_count;
}

int oomslice_plan_is_below(const struct oomslice_plan *plan, int32_t unit, int32_t ancestor) {
        if (!has_unit(plan, unit) || !has_unit(plan, ancestor))
                return 0;
        /* Parents come first, so this ends, and an index below the ancestor's cannot lead to it. */
        while (unit > ancestor)
                unit = plan->units[unit].parent;
        return unit == ancestor;
}

int oomslice_plan_pays_for(const struct oomslice_plan *plan, const struct oomslice_plan_domain *domain,
                           int32_t unit, int32_t priority) {
        if (!(domain->flags & OOMSLICE_DOMAIN_LOWER))
                return oomslice_plan_is_below(plan, unit, domain->unit);
        return priority < plan->units[domain->unit].priority &&
               !oomslice_plan_is_below(plan, unit, domain->unit) &&
               !oomslice_plan_is_below(plan, domain->unit, unit);
}

const char *oomslice_plan_name(const struct oomslice_plan *plan, int32_t unit) {
        return has_unit(plan, unit) ? plan->names + plan->units[unit].name_offset : "";
}

const char *oomslice_plan_step_text(const struct oomslice_plan *plan, const struct oomslice_plan_step *step) {
        return step->text == OOMSLICE_PLAN_NO_TEXT ? "" : plan->names + step->text;
}

const char *oomslice_plan_result_text(int result) {
        if (result < 0)
                return "a system call failed";
        switch ((enum oomslice_plan_result)result) {
        case OOMSLICE_PLAN_OK:
                return "plan is good";
        case OOMSLICE_PLAN_E_SEALS:
                return "plan is not in a memfd sealed against writing, growing, shrinking and further seals";
        case OOMSLICE_PLAN_E_SIZE:
                return "plan is too small, too large, or not of the size it says";
        case OOMSLICE_PLAN_E_MAGIC:
                return "this is not a plan";
        case OOMSLICE_PLAN_E_VERSION:
                return "plan has a version that is not understood";
        case OOMSLICE_PLAN_E_CHECKSUM:
                return "checksum of the plan is wrong";
        case OOMSLICE_PLAN_E_BOUNDS:
                return "a count, priority, flag or limit of the plan is out of range";
        case OOMSLICE_PLAN_E_PARENT:
                return "a unit of the plan comes before its parent, or is below a candidate";
        case OOMSLICE_PLAN_E_NAME:
                return "name of a unit of the plan is empty, too long or outside the plan";
        case OOMSLICE_PLAN_E_DOMAIN:
                return "a domain of the plan has a unit, ranking, trigger or cooldown out of range, or is there twice";
        case OOMSLICE_PLAN_E_GENERATION:
                return "plan is not newer than the one in force";
        case OOMSLICE_PLAN_E_DESCRIPTORS:
                return "plan did not come with one cgroup descriptor per unit";
        case OOMSLICE_PLAN_E_CGROUP:
                return "a descriptor is not the cgroup that the plan names";
        case OOMSLICE_PLAN_E_SEQUENCE:
                return "messages of a plan came out of order";
        case OOMSLICE_PLAN_E_LADDER:
                return "a step or ladder of the plan is out of range";
        }
        return "unknown result";
}

int oomslice_plan_is_harsh(uint32_t kind) {
        return kind == OOMSLICE_STEP_TERMINATE || kind == OOMSLICE_STEP_CHECKPOINT ||
               kind == OOMSLICE_STEP_KILL;
}
