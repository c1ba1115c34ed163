# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the core and the BPF programs in the machine tell each other by the page that they share (core/pulse.h).

Owns the scripts that read it inside, and a watcher that notes when the kernel gave a sign and when the core looked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .lab import Lab

WITHOUT_FAULTS = "/etc/systemd/system/oomslice-core.service.d/50-test.conf"
DEAF = "machine:\n  sign: full 450ms/500ms\n"
"""Pressure figures that come too late for any sign."""
DEAF_NSEC = 450_000_000
"""No sooner than so long after memory ran short does the kernel tell of such pressure."""
WATCHER = "pulse-watcher"
WATCHED = "/run/oomtest/watched"

MAPPED = """
import ctypes, json, mmap, os, struct, sys, time
from oomslice._core import ffi, lib
shared = "/run/oomslice/bpf/shared/map-"
fd = lib.oomslice_pinned_open((shared + "pulse").encode())
page = mmap.mmap(fd, mmap.PAGESIZE)
pulse = ffi.cast("struct oomslice_pulse *", ffi.from_buffer(page))
"""
LOOK = f"""{MAPPED}
ring = lib.oomslice_pinned_open((shared + "signs").encode())
consumer = struct.unpack_from("=Q", mmap.mmap(ring, mmap.PAGESIZE, prot=mmap.PROT_READ))[0]
data = mmap.mmap(ring, 3 * mmap.PAGESIZE, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
produced = struct.unpack_from("=Q", data)[0]
signs = []
for at in range(max(0, produced - 4096 + 32), produced, 32):
    signs.append(struct.unpack_from("=8xI4xQQ", data, mmap.PAGESIZE + at % 4096))
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 0):
    time.sleep(0.05)
    pulse.asked_nsec = time.monotonic_ns()
names = ("asked_nsec", "beat_nsec", "busy_until_nsec", "quiet_until_nsec", "available_min", "available_watch")
print(json.dumps({{**{{name: getattr(pulse, name) for name in names}}, "unread": produced - consumer, "signs": signs}}))
"""
WATCH = f"""{MAPPED}
# Memory runs short while this goes on, and processors are wanted. It comes after the core, and needs little.
ctypes.CDLL(None).mlockall(3)
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
given, open_, out = pulse.signalled_nsec, False, os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(out, b"begun\\n")
now = time.monotonic_ns()
while True:
    time.sleep(0.0005)
    before, now = now, time.monotonic_ns()
    signalled = pulse.signalled_nsec
    if signalled not in (0, given):
        given, open_ = signalled, True
        os.write(out, b"sign %d\\n" % given)
    looked = pulse.beat_nsec
    if open_ and looked >= given:
        open_ = False
        os.write(out, b"look %d %d\\n" % (looked, now - before))
"""


def look(lab: Lab) -> dict[str, Any]:
    """What the programs and the core share: fields of the pulse, bytes of the ring that were not read, and the last
    signs as kind, CLOCK_MONOTONIC in ns and what they took for available."""
    lab.machine.put("/run/oomtest/look.py", LOOK)
    seen: dict[str, Any] = json.loads(lab.machine.check("python3 /run/oomtest/look.py"))
    return seen


@contextlib.contextmanager
def only_signs(lab: Lab) -> Iterator[None]:
    """A core that neither page faults nor pressure wake in time."""
    lab.write(WITHOUT_FAULTS, "[Service]\nCapabilityBoundingSet=~CAP_PERFMON CAP_SYS_ADMIN\n")
    lab.configure(DEAF)
    try:
        lab.machine.check("systemctl daemon-reload; systemctl restart oomslice-core.service", timeout=120)
        lab.settle()
        assert "page-faults" in lab.property("State")["CoreFeaturesMissing"]
        yield
    finally:
        lab.machine.check(
            f"rm {WITHOUT_FAULTS}; systemctl daemon-reload; systemctl restart oomslice-core.service", timeout=120
        )


@dataclass(frozen=True, slots=True)
class Look:
    """A sign, and when the core looked at the memory after it; CLOCK_MONOTONIC in ns, 0: it did not.

    For `unseen_nsec` before that was seen nobody had read the page: there may have been a look before, in that time.
    """

    signalled_nsec: int
    looked_nsec: int = 0
    unseen_nsec: int = 0

    @property
    def delay_nsec(self) -> int:
        """From one to the other."""
        return self.looked_nsec - self.signalled_nsec


def looks_of(text: str) -> list[Look]:
    """What the watcher wrote."""
    looks: list[Look] = []
    for line in text.splitlines():
        what, *numbers = line.split()
        if what == "sign":
            looks.append(Look(int(numbers[0])))
        elif what == "look":
            looks[-1] = Look(looks[-1].signalled_nsec, int(numbers[0]), int(numbers[1]))
    return looks


class Watcher:
    """Notes each sign with the first look after it, in a process inside that reads the page 2000 times a second."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def looks(self) -> list[Look]:
        """All so far."""
        return looks_of(self._lab.machine.check(f"cat {WATCHED}"))


@contextlib.contextmanager
def watcher(lab: Lab) -> Iterator[Watcher]:
    """One that runs until the end of the block."""
    lab.machine.put("/run/oomtest/watch.py", WATCH)
    lab.machine.check(f"rm -f {WATCHED}")
    lab.drop_in(f"{WATCHER}.service", "Protect=yes")
    lab.start(WATCHER, f"/usr/bin/python3 /run/oomtest/watch.py {WATCHED}")
    lab.machine.wait_for("the pulse is watched", lambda: "begun" in lab.machine.run(f"cat {WATCHED}").out, 60, 0.3)
    try:
        yield Watcher(lab)
    finally:
        lab.machine.run(f"systemctl stop {WATCHER}.service")
