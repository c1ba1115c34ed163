/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Each is the command `policy` in one of its forms, and returns its exit status. */

/* Puts the program in the object file `file` in the place of the scoring function of all programs that choose. */
int oomslice_replace(const char *pins, const char *file);
/* Takes it out again. */
int oomslice_replace_remove(const char *pins);
/* Says where one is in force. */
int oomslice_replace_show(const char *pins);
