/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns the table of units and its text. A text is taken as a whole or not at all; who wrote it is not trusted further
 * than that: numbers are within bounds, and paths lead nowhere but down.
 */
#define _GNU_SOURCE
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Takes the next word of a line; NULL at its end. */
static char *word(char **linep) {
        char *at = *linep;

        if (!at || *at == '\0')
                return NULL;
        *linep = strchr(at, ' ');
        if (*linep)
                *(*linep)++ = '\0';
        return at;
}

static bool number(const char *text, int64_t least, int64_t most, int64_t *valuep) {
        char *end;

        if (!text || (*text != '-' && (*text < '0' || *text > '9')))
                return false;
        errno = 0;
        *valuep = strtoll(text, &end, 10);
        return errno == 0 && end != text && *end == '\0' && *valuep >= least && *valuep <= most;
}

static bool adjustment(const char *text, int16_t *adjp) {
        int64_t value;

        if (!number(text, OOMSLICE_SCORES_LEAST, OOMSLICE_SCORES_MOST, &value))
                return false;
        *adjp = (int16_t)value;
        return true;
}

static bool goes_down(const char *path) {
        if (!path || path[0] != '/')
                return false;
        for (const char *at = path; at; at = strchr(at + 1, '/'))
                if (at[1] == '\0' || at[1] == '/' ||
                    (at[1] == '.' && at[2] == '.' && (!at[3] || at[3] == '/')))
                        return false;
        return true;
}

static int take_unit(struct oomslice_scores *scores, const char *kind, char *line) {
        struct oomslice_scored_unit unit = {.watch = -1, .kept = strcmp(kind, "keep") == 0};
        bool slice = strcmp(kind, "slice") == 0;
        const char *adj;
        int64_t id, group = 0;
        int r;

        if (!number(word(&line), 1, INT64_MAX, &id))
                return -EINVAL;
        if (!unit.kept) {
                adj = word(&line);
                unit.wanted = adj && strcmp(adj, "-") != 0;
                if (unit.wanted && !adjustment(adj, &unit.adj))
                        return -EINVAL;
                if (!adjustment(word(&line), &unit.baseline) || !number(word(&line), 0, 1, &group))
                        return -EINVAL;
        }
        /* The root is a slice as well. */
        if (!goes_down(line) && !(slice && line && strcmp(line, "/") == 0))
                return -EINVAL;
        unit.id = (uint64_t)id;
        unit.group = group == 1;
        unit.path = strdup(line);
        if (!unit.path)
                return -ENOMEM;
        r = slice ? oomslice_scores_insert_slice(scores, &unit) : oomslice_scores_insert(scores, &unit);
        if (r < 0)
                free(unit.path);
        return r == -EEXIST ? -EINVAL : r;
}

static int take_line(struct oomslice_scores *scores, char *line) {
        const char *kind = word(&line);
        struct oomslice_scored_unit *unit;
        struct oomslice_scored_process process;
        int64_t id, start;
        int16_t adj;

        if (!kind)
                return -EINVAL;
        if (strcmp(kind, "unit") == 0 || strcmp(kind, "keep") == 0 || strcmp(kind, "slice") == 0)
                return take_unit(scores, kind, line);
        if (!number(word(&line), 1, INT64_MAX, &id))
                return -EINVAL;
        if (strcmp(kind, "process") == 0) {
                if (id > INT32_MAX || !number(word(&line), 0, INT64_MAX, &start) ||
                    !adjustment(word(&line), &adj))
                        return -EINVAL;
                process = (struct oomslice_scored_process){(int32_t)id, adj, (uint64_t)start};
                return oomslice_scores_remember(scores, process);
        }
        unit = oomslice_scores_find(scores, (uint64_t)id);
        if (!unit)
                return -EINVAL;
        if (strcmp(kind, "group") == 0)
                unit->group_set = true;
        else if (strcmp(kind, "old") == 0 && adjustment(word(&line), &adj))
                oomslice_scored_unit_had(unit, adj);
        else
                return -EINVAL;
        return 0;
}

int oomslice_scores_parse(struct oomslice_scores *scoresp, const char *text, size_t size) {
        struct oomslice_scores scores = {0};
        char *copy, *line, *end;
        int r = 0, count = 0;

        /* A NUL would hide what is behind it, and a line that was cut off could mean something else. */
        if (memchr(text, '\0', size) || (size > 0 && text[size - 1] != '\n'))
                return -EBADMSG;
        copy = strndup(text, size);
        scores.units = calloc(OOMSLICE_SCORES_ROOM, sizeof(*scores.units));
        if (!copy || !scores.units)
                r = -ENOMEM;
        for (line = copy; r == 0 && line && *line; line = end) {
                end = strchr(line, '\n');
                *end++ = '\0';
                count++;
                r = take_line(&scores, line);
                if (r == -EINVAL)
                        r = count;
        }
        free(copy);
        if (r != 0) {
                oomslice_scores_free(&scores);
                return r;
        }
        oomslice_scores_free(scoresp);
        *scoresp = scores;
        return 0;
}

void oomslice_scores_free(struct oomslice_scores *scores) {
        for (size_t i = 0; i < scores->units_count; i++)
                free(scores->units[i].path);
        for (size_t i = 0; i < scores->slices_count; i++)
                free(scores->slices[i].path);
        free(scores->units);
        free(scores->slices);
        free(scores->processes);
        *scores = (struct oomslice_scores){0};
}

/* Where the unit of this id is, or would be. */
static size_t place_of(const struct oomslice_scores *scores, uint64_t id) {
        size_t first = 0, count = scores->units_count;

        while (count > 0) {
                size_t half = count / 2;

                if (scores->units[first + half].id < id) {
                        first += half + 1;
                        count -= half + 1;
                } else
                        count = half;
        }
        return first;
}

struct oomslice_scored_unit *oomslice_scores_find(const struct oomslice_scores *scores, uint64_t id) {
        size_t place = place_of(scores, id);

        return place < scores->units_count && scores->units[place].id == id ? &scores->units[place] : NULL;
}

int oomslice_scores_insert(struct oomslice_scores *scores, const struct oomslice_scored_unit *unit) {
        size_t place = place_of(scores, unit->id);

        if (place < scores->units_count && scores->units[place].id == unit->id)
                return -EEXIST;
        if (scores->units_count == OOMSLICE_SCORES_ROOM)
                return -E2BIG;
        memmove(scores->units + place + 1, scores->units + place,
                (scores->units_count - place) * sizeof(*unit));
        scores->units[place] = *unit;
        scores->units_count++;
        return 0;
}

int oomslice_scores_insert_slice(struct oomslice_scores *scores, const struct oomslice_scored_unit *slice) {
        if (scores->slices_count == OOMSLICE_SCORES_SLICES_MAX)
                return -E2BIG;
        if (scores->slices_count == scores->slices_room) {
                size_t room = scores->slices_room ? 2 * scores->slices_room : 16;
                struct oomslice_scored_unit *more = reallocarray(scores->slices, room, sizeof(*more));

                if (!more)
                        return -ENOMEM;
                scores->slices = more;
                scores->slices_room = room;
        }
        scores->slices[scores->slices_count++] = *slice;
        return 0;
}

void oomslice_scores_remove(struct oomslice_scores *scores, size_t index) {
        free(scores->units[index].path);
        scores->units_count--;
        memmove(scores->units + index, scores->units + index + 1,
                (scores->units_count - index) * sizeof(*scores->units));
}

void oomslice_scores_remove_slice(struct oomslice_scores *scores, size_t index) {
        free(scores->slices[index].path);
        scores->slices[index] = scores->slices[--scores->slices_count];
}

struct oomslice_scored_process *oomslice_scores_process(const struct oomslice_scores *scores, int32_t pid,
                                                        uint64_t start) {
        for (size_t i = 0; i < scores->processes_count; i++)
                if (scores->processes[i].pid == pid && scores->processes[i].start == start)
                        return &scores->processes[i];
        return NULL;
}

int oomslice_scores_remember(struct oomslice_scores *scores, struct oomslice_scored_process process) {
        struct oomslice_scored_process *known = oomslice_scores_process(scores, process.pid, process.start);

        if (known) {
                known->adj = process.adj;
                return 0;
        }
        if (scores->processes_count == scores->processes_room) {
                size_t room = scores->processes_room ? 2 * scores->processes_room : 64;
                struct oomslice_scored_process *more = reallocarray(scores->processes, room, sizeof(*more));

                if (!more)
                        return -ENOMEM;
                scores->processes = more;
                scores->processes_room = room;
        }
        scores->processes[scores->processes_count++] = process;
        return 0;
}

void oomslice_scored_unit_had(struct oomslice_scored_unit *unit, int16_t adj) {
        if (oomslice_scored_unit_gave(unit, adj))
                return;
        if (unit->old_count == OOMSLICE_SCORES_OLD_MAX) {
                memmove(unit->old, unit->old + 1, sizeof(unit->old) - sizeof(unit->old[0]));
                unit->old_count--;
        }
        unit->old[unit->old_count++] = adj;
}

bool oomslice_scored_unit_gave(const struct oomslice_scored_unit *unit, int adj) {
        for (uint8_t i = 0; i < unit->old_count; i++)
                if (unit->old[i] == adj)
                        return true;
        return false;
}

void oomslice_scored_unit_succeed(struct oomslice_scored_unit *from, struct oomslice_scored_unit *to) {
        to->applied = from->applied && from->wanted == to->wanted && from->adj == to->adj &&
                      from->group == to->group && from->baseline == to->baseline &&
                      from->strict == to->strict && !from->kept;
        to->group_set = from->group_set;
        to->noted = from->noted;
        for (uint8_t i = 0; i < from->old_count; i++)
                oomslice_scored_unit_had(to, from->old[i]);
        to->watch = from->watch;
        from->watch = -1;
        to->looks = from->looks;
        to->look_at = from->look_at;
}
