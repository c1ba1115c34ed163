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

static int take_unit(struct oomslice_scores *scores, char *line) {
        struct oomslice_scored_unit unit = {.watch = -1};
        const char *adj;
        int64_t id, group;

        if (scores->units_count == OOMSLICE_SCORES_UNITS_MAX)
                return -E2BIG;
        if (!number(word(&line), 1, INT64_MAX, &id))
                return -EINVAL;
        adj = word(&line);
        unit.wanted = adj && strcmp(adj, "-") != 0;
        if (unit.wanted && !adjustment(adj, &unit.adj))
                return -EINVAL;
        if (!adjustment(word(&line), &unit.baseline) || !number(word(&line), 0, 1, &group) ||
            !goes_down(line))
                return -EINVAL;
        /* By id, so that they are found again; whoever sends them has sorted them. */
        if (scores->units_count > 0 && scores->units[scores->units_count - 1].id >= (uint64_t)id)
                return -EINVAL;
        unit.id = (uint64_t)id;
        unit.group = group == 1;
        unit.path = strdup(line);
        if (!unit.path)
                return -ENOMEM;
        scores->units[scores->units_count++] = unit;
        return 0;
}

static int take_line(struct oomslice_scores *scores, char *line) {
        const char *kind = word(&line);
        struct oomslice_scored_unit *unit;
        struct oomslice_scored_process process;
        int64_t id, start;
        int16_t adj;

        if (!kind)
                return -EINVAL;
        if (strcmp(kind, "unit") == 0)
                return take_unit(scores, line);
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
        scores.units = calloc(OOMSLICE_SCORES_UNITS_MAX, sizeof(*scores.units));
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
        free(scores->units);
        free(scores->processes);
        *scores = (struct oomslice_scores){0};
}

struct oomslice_scored_unit *oomslice_scores_find(const struct oomslice_scores *scores, uint64_t id) {
        size_t first = 0, count = scores->units_count;

        while (count > 0) {
                size_t half = count / 2;

                if (scores->units[first + half].id == id)
                        return &scores->units[first + half];
                if (scores->units[first + half].id < id) {
                        first += half + 1;
                        count -= half + 1;
                } else
                        count = half;
        }
        return NULL;
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
