/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * oomslice-bpf: puts the BPF programs into the kernel, takes them out, says what is there. It does not stay: pins keep the
 * programs, so they outlive this process, oomslice-core and oomsliced. The only part of oomslice with CAP_BPF.
 */
#define _GNU_SOURCE
#include <bpf/btf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "carrier.h"
#include "choose.h"
#include "load.h"
#include "policycommand.h"
#include "refuse.h"
#include "report.h"
#include "say.h"

enum { RUNS_MAX = 1000000, WITHOUT_MAX = 8 };

static const char *without[WITHOUT_MAX];
static size_t without_count;

static struct oomslice_places places = {.pins = "/run/oomslice/bpf",
                                        .report = "/run/oomslice/bpf.status",
                                        .policies = "/etc/oomslice/bpf-policy"};

static const char help[] =
        "oomslice-bpf [OPTIONS] load | unload | status | check\n"
        "oomslice-bpf [OPTIONS] choose [CGROUP]\n"
        "oomslice-bpf [OPTIONS] policy [FILE | --remove]\n"
        "\n"
        "Puts the BPF programs of oomslice into the kernel. oomslice-bpf.service does that; by hand it is of use to see\n"
        "what this kernel can do and why.\n"
        "\n"
        "  load    load what this kernel has the means for, attach and pin it; what was loaded before is replaced. What\n"
        "          cannot be loaded is said with the reason and is no failure\n"
        "  unload  remove all of it\n"
        "  status  for each set of programs whether it is active, how often it acted (hits), how often it should have\n"
        "          run and could not (missed), and how many of its records found no room (lost)\n"
        "\n"
        "  check   for each set of programs whether this kernel has what it needs. Nothing is loaded\n"
        "  choose  whom the programs would choose now below a cgroup, by its path as systemd-cgls(1) has it; without one\n"
        "          for the machine. Nobody is killed\n"
        "  policy  which policy of your own is in force; makes the BPF function in the object FILE a part of all programs that\n"
        "          choose, for which units are chosen, skipped, or left to the plan, and keeps it for load; or removes it\n"
        "\n"
        "  --btf=FILE     check: the types of another kernel, as /sys/kernel/btf/vmlinux has them\n"
        "  --json         status and choose as JSON\n"
        "  --runs=N       choose: let it run N times and say how long it takes\n"
        "  --without=NAME load: leave these programs out\n"
        "  --verbose      load, policy: all that the kernel says of programs that it refuses\n"
        "  --pins=DIR     a directory on a BPF file system (default: /run/oomslice/bpf)\n"
        "  --policies=DIR where the policy is kept (default: /etc/oomslice/bpf-policy)\n"
        "  --report=FILE  where load leaves what it did (default: /run/oomslice/bpf.status)\n"
        "  --help, --version\n"
        "\n"
        "Exit status: 0; 1 if something failed, 2 if this was called wrongly. Manual: man oomslice-bpf\n";

static bool is_left_out(const char *name) {
        for (size_t i = 0; i < without_count; i++)
                if (strcmp(without[i], name) == 0)
                        return true;
        return false;
}

static bool leave_out(const char *name) {
        const struct oomslice_carrier *carrier;

        for (carrier = oomslice_carriers; carrier->name; carrier++)
                if (strcmp(carrier->name, name) == 0 && without_count < WITHOUT_MAX) {
                        without[without_count++] = name;
                        return true;
                }
        fprintf(stderr,
                "oomslice-bpf: --without=%s: there are no such programs; status lists those that there are\n",
                name);
        return false;
}

/* What a kernel with these types has the means for. Loads nothing. */
static int check(const char *types) {
        const struct oomslice_carrier *carrier;
        struct btf *btf;

        oomslice_refuse_listen();
        btf = types ? btf__parse(types, NULL) : btf__load_vmlinux_btf();

        if (!btf)
                return oomslice_say_failed("%s: no type information: %s", types ? types : "this kernel",
                                           strerror(errno));
        for (carrier = oomslice_carriers; carrier->name; carrier++) {
                char why[OOMSLICE_WHY_MAX] = "";
                bool can = oomslice_carrier_possible(carrier, btf, why);

                printf("%s: %s%s%s\n", carrier->name, can ? "possible" : "not possible", can ? "" : ": ",
                       why);
        }
        btf__free(btf);
        return oomslice_say_all();
}

static int status(bool json) {
        const struct oomslice_carrier *carrier;

        if (json)
                fputs("{\"programs\": [", stdout);
        for (carrier = oomslice_carriers; carrier->name; carrier++) {
                struct oomslice_carrier_figures figures;
                bool active = oomslice_carrier_loaded(carrier, places.pins, &figures);
                char why[OOMSLICE_WHY_MAX] = "";

                if (!active && !oomslice_report_why(places.report, carrier->name, why, sizeof(why)))
                        snprintf(why, sizeof(why),
                                 "nothing is loaded (systemctl start oomslice-bpf.service)");
                if (json) {
                        printf("%s{\"name\": \"%s\", \"active\": %s, \"why\": ",
                               carrier == oomslice_carriers ? "" : ", ", carrier->name,
                               active ? "true" : "false");
                        oomslice_say_json(why);
                        printf(", \"hits\": %llu, \"missed\": %llu, \"lost\": %llu}",
                               (unsigned long long)figures.hits, (unsigned long long)figures.missed,
                               (unsigned long long)figures.lost);
                } else if (active)
                        printf("%s: active: %s; hits %llu, missed %llu, lost %llu\n", carrier->name,
                               carrier->summary, (unsigned long long)figures.hits,
                               (unsigned long long)figures.missed, (unsigned long long)figures.lost);
                else
                        printf("%s: not active: %s\n", carrier->name, why);
        }
        if (json) {
                fputs("], \"policy\": ", stdout);
                oomslice_policy_print_json(&places);
                puts("}");
        } else if (oomslice_report_find_policy(places.report, &(struct oomslice_report_policy){0})) {
                fputs("policy: ", stdout);
                return oomslice_policy_show(&places);
        }
        return oomslice_say_all();
}

/* One at a time changes what is loaded. Held until the end of this process. */
static void take_turn(void) {
        int directory = open(places.pins, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (directory >= 0)
                (void)flock(directory, LOCK_EX);
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                {"btf", required_argument, NULL, 'b'},      {"json", no_argument, NULL, 'j'},
                {"policies", required_argument, NULL, 'o'}, {"pins", required_argument, NULL, 'p'},
                {"remove", no_argument, NULL, 'x'},         {"report", required_argument, NULL, 'r'},
                {"runs", required_argument, NULL, 'n'},     {"verbose", no_argument, NULL, 'v'},
                {"help", no_argument, NULL, 'h'},           {"version", no_argument, NULL, 'V'},
                {"without", required_argument, NULL, 'w'},  {NULL, 0, NULL, 0},
        };
        const char *verb, *types = NULL;
        bool json = false, removes = false;
        unsigned long runs = 0;
        char *end;
        int option, arguments;

        while ((option = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
                switch (option) {
                case 'b':
                        types = optarg;
                        break;
                case 'j':
                        json = true;
                        break;
                case 'v':
                        oomslice_refuse_verbose = true;
                        break;
                case 'p':
                        places.pins = optarg;
                        break;
                case 'o':
                        places.policies = optarg;
                        break;
                case 'n':
                        runs = strtoul(optarg, &end, 10);
                        if (!*optarg || *end || runs == 0 || runs > RUNS_MAX) {
                                fputs("oomslice-bpf: --runs wants a number from 1 to 1000000\n", stderr);
                                return 2;
                        }
                        break;
                case 'x':
                        removes = true;
                        break;
                case 'w':
                        if (!leave_out(optarg))
                                return 2;
                        break;
                case 'r':
                        places.report = optarg;
                        break;
                case 'h':
                        fputs(help, stdout);
                        return 0;
                case 'V':
                        puts("oomslice-bpf " OOMSLICE_VERSION);
                        return 0;
                default:
                        fputs("oomslice-bpf --help says what there is\n", stderr);
                        return 2;
                }
        }
        arguments = argc - optind;
        verb = arguments > 0 ? argv[optind] : "";
        if (strcmp(verb, "choose") == 0 && arguments <= 2)
                return oomslice_choose(places.pins, arguments == 2 ? argv[optind + 1] : "/", json, runs);
        if (strcmp(verb, "policy") == 0 && arguments + removes <= 2) {
                if (!removes && arguments == 1)
                        return oomslice_policy_show(&places);
                take_turn();
                return removes ? oomslice_policy_remove(&places)
                               : oomslice_policy_put(&places, argv[optind + 1]);
        }
        if (arguments == 1 && !removes) {
                if (strcmp(verb, "load") == 0)
                        return take_turn(), oomslice_load(&places, is_left_out);
                if (strcmp(verb, "unload") == 0)
                        return take_turn(), oomslice_unload(&places);
                if (strcmp(verb, "status") == 0)
                        return status(json);
                if (strcmp(verb, "check") == 0)
                        return check(types);
        }
        fprintf(stderr, "oomslice-bpf: %s; oomslice-bpf --help says more\n",
                arguments == 0 ? "a command is needed: load, unload, status, check, choose or policy"
                               : "that is no command, or has too many arguments");
        return 2;
}
