/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once
/* What the programs of `choice` are given, and where they leave their answers. */
#include "chosen.h"
#include "process_found.h"

struct oomslice_question {
        uint64_t domain; /* id of a cgroup: 1 is the root */
        uint64_t tried;  /* id of one that shall not be chosen, 0: there is none */
        struct oomslice_chosen chosen;
        struct oomslice_process process; /* of the choice, the largest */
};
