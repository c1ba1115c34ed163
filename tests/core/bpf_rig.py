# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests and figures of the BPF programs stand on: oomslice-bpf built from this tree, and this machine's own kernel
with the program `choice` in it, if it lets that in. It is loaded below a BPF file system of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from oomslice.carriers.slices import SliceValues
from oomslice.cgroups.tree import CgroupTree
from oomslice.policy.model import Policy, PolicyUnit
from tests.core.rig import Tree, cgroup2_mount
from tests.unit.policies import policy, unit

TOP = Path(__file__).resolve().parents[2]


class UnavailableError(Exception):
    """This machine cannot do that. The text says why."""


def build_programs(directory: Path) -> Path:
    """Builds oomslice-bpf; the folder with it and with the objects. Raises UnavailableError."""
    for tool in ("clang", "gcc"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not installed")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"}
    setup = subprocess.run(
        ["meson", "setup", directory, TOP, "-Dsystem=enabled", "-Dbpf=auto", "-Dman=disabled"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert setup.returncode == 0, setup.stdout + setup.stderr
    if "oomslice-bpf and the BPF programs are left out" in setup.stdout:
        raise UnavailableError("bpftool or libbpf-dev is not installed")
    made = subprocess.run(
        ["ninja", "-C", directory, "bpf/oomslice-bpf"], capture_output=True, text=True, env=environment, check=False
    )
    assert made.returncode == 0, made.stdout
    assert "warning:" not in made.stdout.replace("ninja: warning:", ""), made.stdout
    return directory / "bpf"


class Kernel:
    """This machine's kernel with the program `choice` in it, and a plan for cgroups of the caller."""

    def __init__(self, program: Path, directory: Path, tree: Tree) -> None:
        self._program = program
        self.pins = directory / "pins"
        self.report = directory / "report"
        self.policies = directory / "policies"
        self.said = ""
        self.tree = tree
        self.cgroups = CgroupTree(tree.mount)
        self.values = SliceValues(self.cgroups, self.pins)

    def load(self) -> str:
        """What `load` says of choice."""
        self.said = self._run("load")
        return next(line for line in self.said.splitlines() if line.startswith("choice: "))

    def choose(self, cgroup: Path, *options: str) -> dict[str, Any]:
        """The answer."""
        answer: dict[str, Any] = json.loads(self._run("--json", *options, "choose", str(cgroup)))
        return answer

    def follow(self, units: list[PolicyUnit], generation: int) -> Policy:
        """Gives the kernel a plan of these units."""
        made = policy(*units)
        top = replace(made.units[0], path="/", cgroup_id=self.tree.mount.stat().st_ino)
        made = replace(made, units=(top, *made.units[1:]))
        descriptors = [self.cgroups.open(planned.path) for planned in made.units]
        try:
            self.values.follow(made, descriptors, generation)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return made

    def unit(self, name: str, priority: int = 0, **options: Any) -> PolicyUnit:
        """A unit with a cgroup and a process of its own."""
        directory = self.tree.make(name)
        self.tree.populate(directory)
        return replace(
            unit(name, directory.stat().st_ino, 0, priority, **options),
            path=f"/{self.tree.root.name}/{name}",
        )

    def status(self) -> dict[str, Any]:
        """What `status` says."""
        said: dict[str, Any] = json.loads(self._run("--json", "status"))
        return said

    def policy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command of that name, whatever comes of it."""
        return subprocess.run(self._command("policy", *arguments), check=False, capture_output=True, text=True)

    def _command(self, *arguments: str) -> list[str]:
        places = (f"--pins={self.pins}", f"--report={self.report}", f"--policies={self.policies}")
        return [str(self._program), *places, *arguments]

    def _run(self, *arguments: str) -> str:
        return subprocess.run(self._command(*arguments), check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def open_kernel(program: Path, directory: Path) -> Iterator[Kernel]:
    """The kernel, until the end of the block. Raises UnavailableError."""
    mount = cgroup2_mount()
    if mount is None or not str(mount).startswith("/sys/fs/cgroup") or os.geteuid() != 0:
        raise UnavailableError("needs root and cgroup v2 below /sys/fs/cgroup")
    pins = directory / "pins"
    pins.mkdir()
    if subprocess.run(["mount", "-t", "bpf", "bpf", pins], capture_output=True, check=False).returncode != 0:
        raise UnavailableError("a BPF file system cannot be mounted here")
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: subprocess.run(["umount", pins], check=True))
        tree = Tree(mount)
        stack.callback(tree.close)
        kernel = Kernel(program, directory, tree)
        stack.callback(kernel.values.close)
        said = kernel.load()
        if said != "choice: active":
            raise UnavailableError(f"this kernel takes no such program: {said}")
        yield kernel
