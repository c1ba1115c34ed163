# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which system calls the core makes: all that it needs are allowed, and what is allowed is needed or explained.

There are two lists, that of the unit for the whole life and that of core/seccomp.c for the armed core. Both are held
against what strace sees of a life with everything in it.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oomslice._core import lib
from tests.core.bpf_maps import Pulse
from tests.core.client import message
from tests.core.plans import Domain
from tests.core.rig import CORE, Core, Scene, name, scenes, wait_until

UNIT = CORE.parent / "units" / "oomslice-core.service"
TRIGGER = (lib.OOMSLICE_PSI_FULL, 1_900_000, 2_000_000)


@pytest.fixture
def scene(programs: Callable[[str], Path], mount: Path, tmp_path: Path) -> Iterator[Scene]:
    """A core as it is shipped, under strace; its log is tmp_path/strace.*."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    wrapper = tmp_path / "traced"
    # The environment tells the core its own process id, so strace has to be the child (-D).
    wrapper.write_text(f'#!/bin/sh\nexec {strace} -D -ff -o {tmp_path}/strace {programs("static")} "$@"\n', "ascii")
    wrapper.chmod(0o755)
    (tmp_path / "strace.none").write_text("", "ascii")
    yield from scenes(Core(wrapper, tmp_path, mount), mount)


def tell_programs(scene: Scene) -> None:
    """Maps of BPF programs come, and are kept for the core after this one."""
    with Pulse() as pulse, scene.core.client() as client:
        client.send(message(lib.OOMSLICE_MESSAGE_PROGRAMS, count=2), pulse.maps)
        assert client.receive().message.status == 0
        pulse.ring.sign()
        wait_until(lambda: pulse.ring.unread == 0)


def live(scene: Scene) -> None:
    """Start, plans, decisions of all kinds, death and rebirth, end."""
    (scene.core.meminfo.parent / "pressure").symlink_to("/proc/pressure")
    scene.core.stop(signal.SIGKILL)
    scene.core.options = ["--sys-root", "/sys"]
    scene.core.start()
    scene.add("a.service", -100, processes=3)
    scene.tree.populate(scene.tree.make("a.service/inner"))
    scene.add("one.service", -50, processes=3)
    scene.units[-1].kill_scope = lib.OOMSLICE_SCOPE_PROCESS
    for pid in scene.tree.pids(scene.paths[-1]):
        (scene.core.meminfo.parent / str(pid)).symlink_to(f"/proc/{pid}")
    scene.add("ladder.service", -40, processes=1)
    scene.units[-1].ladder = (
        (lib.OOMSLICE_STEP_RECLAIM, 1 << 20, 0, ""),
        (lib.OOMSLICE_STEP_THROTTLE, 50, 1000, ""),
        (lib.OOMSLICE_STEP_TERMINATE, 0, 2000, ""),
        (lib.OOMSLICE_STEP_KILL, 0, 500_000, ""),
    )
    scene.add("still.service", -30, processes=1)
    scene.units[-1].ladder = ((lib.OOMSLICE_STEP_FREEZE, 0, 0, ""),)
    domains = [Domain(0), Domain(1, trigger=TRIGGER)]
    fields = {"domains": domains, "sign": TRIGGER, "thrash": TRIGGER, "deadline_us": 1_000_000}
    scene.hand_over(**fields)
    records = scene.hand_over(**fields, reserve=2 << 20, mark_kills=1)
    wait_until(lambda: scene.core.poke().reserve_bytes == 2 << 20)
    tell_programs(scene)
    scene.tree.populate(scene.tree.make("young.service"))
    scene.shortage()
    seen: set[str] = set()
    while "young.service" not in seen:
        seen.add(name(records.wait(30).victim_name))
    assert {"a.service", "one.service", "still.service"} <= seen
    scene.core.set_memory(8192)
    scene.core.poke()
    scene.core.stop(signal.SIGKILL)
    scene.core.start()
    assert scene.core.poke().units == len(scene.units)
    scene.core.stop()
    release: list[str | Path] = ["--cgroup-root", scene.core.mount, "--undo-file", scene.core.undo, "--release"]
    subprocess.run([scene.core.program, *release], check=True)
    scene.core.start()


def calls(directory: Path) -> tuple[set[str], set[str], list[str]]:
    """Names of all system calls of all threads; of those after the filter was set; lines with what it refused."""
    all_calls: set[str] = set()
    armed: set[str] = set()
    refused: list[str] = []
    for log in directory.glob("strace.*"):
        text = log.read_text("utf-8", "replace")
        names = set(re.findall(r"^(\w+)\(", text, re.M))
        all_calls |= names
        if "execve(" in text:
            text = text.partition("seccomp(SECCOMP_SET_MODE_FILTER")[2]
            armed |= set(re.findall(r"^(\w+)\(", text, re.M))
        else:
            armed |= names
        # Without CAP_SYS_RESOURCE this one is refused by the kernel itself.
        refused += [line for line in re.findall(r"^.* = -1 EPERM.*$", text, re.M) if "PR_SET_IO_FLUSHER" not in line]
    return all_calls, armed, refused


def allowed_by_unit() -> tuple[set[str], set[str]]:
    """What the unit allows, and what of it has its reason in a comment: "#   NAME[, NAME]: REASON"."""
    text = UNIT.read_text("utf-8")
    names = " ".join(re.findall(r"^SystemCallFilter=(.*)$", text, re.M)).split()
    argued = re.findall(r"^#   ([a-z0-9_, ]+): ", text, re.M)
    return set(names), {word for line in argued for word in line.replace(",", " ").split()}


def allowed_by_filter() -> tuple[set[str], set[str]]:
    """The same of core/seccomp.c; there the reason follows on the line."""
    text = (CORE / "seccomp.c").read_text("utf-8")
    names = set(re.findall(r"^ +ALLOW(?:_ONLY|_BUT|_REQUESTS)?\((\w+)", text, re.M))
    return names, set(re.findall(r"ALLOW\((\w+)\), */\*", text))


def test_unit_allows_what_is_used_and_nothing_without_a_reason(scene: Scene, tmp_path: Path) -> None:
    live(scene)
    used, armed, refused = calls(tmp_path)
    assert not refused
    names, argued = allowed_by_unit()
    assert not {word for word in names if word.startswith(("@", "~"))}, "a list, not a group"
    assert used <= names
    assert names - used <= argued, "allowed, not used, and not explained"
    assert argued <= names

    names, argued = allowed_by_filter()
    assert len(armed) > 15 and armed <= names
    assert names - armed <= argued, "allowed, not used, and not explained"
    assert names <= allowed_by_unit()[0]


def test_armed_core_has_the_filter_in_every_thread(
    programs: Callable[[str], Path], mount: Path, tmp_path: Path
) -> None:
    for scene in scenes(Core(programs("static"), tmp_path, mount), mount):
        scene.hand_over()
        tasks = list(Path(f"/proc/{scene.core.pid}/task").iterdir())
        assert len(tasks) > 5
        for task in tasks:
            status = (task / "status").read_text("ascii")
            assert re.findall(r"^(Seccomp|NoNewPrivs):\s+(\d)$", status, re.M) == [
                ("NoNewPrivs", "1"),
                ("Seccomp", "2"),
            ]


def test_filter_refuses_what_it_does_not_list(tmp_path: Path) -> None:
    source = tmp_path / "tries.c"
    source.write_text(
        """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <sys/socket.h>
        #include <unistd.h>
        #include "seccomp.h"
        int main(void) {
                int root = open("/dev", O_RDONLY | O_DIRECTORY);

                if (oomslice_seccomp_install() < 0)
                        return 2;
                if (openat(root, "null", O_RDONLY) < 0)
                        return 3;
                if (open("/dev/null", O_RDONLY) >= 0 || errno != EPERM)
                        return 4;
                if (socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || errno != EPERM)
                        return 5;
                if (fork() >= 0 || errno != EPERM)
                        return 6;
                return execl("/bin/true", "true", (char *)0) == 0 || errno != EPERM ? 7 : 0;
        }
        """,
        encoding="ascii",
    )
    program = tmp_path / "tries"
    subprocess.run(["gcc", "-static", f"-I{CORE}", source, CORE / "seccomp.c", "-o", program], check=True)
    status = subprocess.run([program], check=False).returncode
    if status == 2:
        pytest.skip("this kernel or architecture has no filter")
    assert status == 0
