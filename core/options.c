/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns what is said to a person: options, help, and complaints while starting. Plain writes, because stdio would
 * be locked into memory for good.
 */
#define _GNU_SOURCE
#include "options.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef OOMSLICE_VERSION
#define OOMSLICE_VERSION "unknown"
#endif

static const char help[] =
        "Usage: oomslice-core [OPTION...]\n"
        "Acts when the machine or a slice runs out of memory, by the plan that oomsliced hands over.\n"
        "Started by oomslice-core.service; needs root.\n"
        "\n"
        "  --socket PATH        listen here (default: /run/oomslice/core.sock) unless systemd passes a socket\n"
        "  --cgroup-root DIR    the cgroup v2 hierarchy (default: /sys/fs/cgroup)\n"
        "  --proc-root DIR      meminfo and pressure/memory are read from here (default: /proc)\n"
        "  --sys-root DIR       processors and huge pages are read from here (default: /sys)\n"
        "  --undo-file FILE     what has to be undone is written down here (default: /run/oomslice/undo)\n"
        "  --release            undo what a core that has ended left behind, and exit\n"
        "  --dry-run            decide and record, but kill nobody\n"
        "  --version            print the version and exit\n"
        "  --help               print this and exit\n";

static void say(int fd, const char *a, const char *b, const char *c, const char *d) {
        const struct iovec parts[] = {
                {(char *)a, strlen(a)},
                {(char *)b, strlen(b)},
                {(char *)c, strlen(c)},
                {(char *)d, strlen(d)},
        };

        (void)!writev(fd, parts, 4); /* nobody listening: nobody to tell */
}

void oomslice_options_complain(const char *what, int error) {
        const char *reason = strerrordesc_np(error < 0 ? -error : error);

        say(STDERR_FILENO, "oomslice-core: ", what, ": ", reason ? reason : "unknown error");
        say(STDERR_FILENO, "\n", "", "", "");
}

/* The value of "--name VALUE" or "--name=VALUE" at arguments[*atp], or NULL if that is another option. */
static const char *value_of(const char *name, int count, char **arguments, int *atp) {
        const char *argument = arguments[*atp];
        size_t length = strlen(name);

        if (strncmp(argument, name, length) != 0)
                return NULL;
        if (argument[length] == '=')
                return argument + length + 1;
        if (argument[length] == '\0' && *atp + 1 < count)
                return arguments[++*atp];
        return NULL;
}

int oomslice_options_parse(int count, char **arguments, struct oomslice_options *optionsp) {
        *optionsp = (struct oomslice_options){
                .socket = "/run/oomslice/core.sock",
                .cgroup_root = "/sys/fs/cgroup",
                .proc_root = "/proc",
                .sys_root = "/sys",
                .undo = "/run/oomslice/undo",
        };
        for (int i = 1; i < count; i++) {
                const char *value;

                if ((value = value_of("--socket", count, arguments, &i)))
                        optionsp->socket = value;
                else if ((value = value_of("--cgroup-root", count, arguments, &i)))
                        optionsp->cgroup_root = value;
                else if ((value = value_of("--proc-root", count, arguments, &i)))
                        optionsp->proc_root = value;
                else if ((value = value_of("--sys-root", count, arguments, &i)))
                        optionsp->sys_root = value;
                else if ((value = value_of("--undo-file", count, arguments, &i)))
                        optionsp->undo = value;
                else if (strcmp(arguments[i], "--release") == 0)
                        optionsp->release = true;
                else if (strcmp(arguments[i], "--dry-run") == 0)
                        optionsp->dry_run = true;
                else if (strcmp(arguments[i], "--version") == 0) {
                        say(STDOUT_FILENO, "oomslice-core ", OOMSLICE_VERSION, "\n", "");
                        return 1;
                } else if (strcmp(arguments[i], "--help") == 0) {
                        say(STDOUT_FILENO, help, "", "", "");
                        return 1;
                } else {
                        say(STDERR_FILENO,
                            "oomslice-core: not an option, or its value is missing: ", arguments[i],
                            " (see --help)\n", "");
                        return -EINVAL;
                }
        }
        return 0;
}
