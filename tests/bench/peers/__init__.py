# SPDX-License-Identifier: LGPL-2.1-or-later
"""`make bench-peers`: the kernel alone, the other daemons of Debian and oomslice, in the same machine, same storms.

storms.py and candidates.py say what is compared, disk.py makes the disks, stage.py does one run in a machine and keeps
what was seen in a file (trace.py). columns.py boils such files down to figures, goals.py says whether they are enough,
table.py and picture.py show them. A matrix of runs is complete when each of its files is there, so a call that was
killed is simply repeated."""
