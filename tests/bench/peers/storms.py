# SPDX-License-Identifier: LGPL-2.1-or-later
"""The storms, and what would be right in each. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STORM = "/opt/vmtest/storm"
FILES = "/run/bench/files"
"""A tmpfs larger than the memory and all swap."""
DATABASE_MB = 1000
HOT_MB = 96
MEMORY_MB = 2048
SWAP_MB = 512


@dataclass(frozen=True, slots=True)
class Storm:
    """One way of using up memory, by the unit hog.service."""

    name: str
    what: str
    """For the reader of the table."""
    command: str
    """Arguments of programs/storm.c after the name of the file that it waits for."""
    seconds: int
    """When a run ends at the latest."""
    victim: str
    """`hog`: it must die. `hog or none`: nobody else may. `none`: nobody may, the machine gets along."""

    @property
    def ends_early(self) -> bool:
        """Whether there is nothing more to be seen once somebody is dead."""
        return self.victim == "hog"

    def right(self, swap: str) -> str:
        """`victim` with that kind of swap. Random data gains nothing in zram: there is no half of it to stay in."""
        return "hog or none" if self.victim == "none" and swap == "zram" else self.victim

    @property
    def is_left_behind(self) -> bool:
        """Whether what it has used up stays used up when it is dead."""
        return self.name == "tmpfs"


STORMS = {
    storm.name: storm
    for storm in (
        Storm("fast", "one process, 200 MiB/s", "grow 200 0", 60, "hog"),
        Storm("slow", "one process, 20 MiB/s", "grow 20 0", 180, "hog"),
        Storm("many", "80 processes in one unit, 200 MiB/s together", "grow 200 80", 90, "hog"),
        Storm("tree", "a parent and 8 children, 200 MiB/s together", "grow 200 8", 60, "hog"),
        Storm(
            "file", "8 % of memory left, and 600 MiB of a file read at random", "file 8 600 /dev/vda", 25, "hog or none"
        ),
        Storm(
            "tmpfs", "a file in a tmpfs, 100 MiB/s; who dies gives nothing back", f"tmpfs 100 {FILES}/storm", 60, "hog"
        ),
        Storm("static", "stops with 12 % of memory left or half of the swap", "static 12", 45, "none"),
    )
}

SWAPS = {
    "none": "no swap",
    "disk": f"{SWAP_MB} MiB of swap on a disk",
    "zram": "zram of half of the memory",
}
