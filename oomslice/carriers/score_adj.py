# SPDX-License-Identifier: LGPL-2.1-or-later
"""The carrier `score_adj`: has oomslice-scores give processes the oom_score_adj by which the kernel follows the plan.

What anybody gets is worked out by policy.scores, from the plan and from what units use at the time: with every plan,
and when memory is short, because then units grow. oomslice-scores is not started where there is nothing to give. What
is in force stays if oomsliced ends, as the core's plan does.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import logging
import os
import re
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from oomslice.carriers.model import CarrierState
from oomslice.cgroups.tree import CgroupTree
from oomslice.errors import CgroupError, KernelError
from oomslice.kernel import PsiTrigger, psi_trigger
from oomslice.policy.model import Policy
from oomslice.policy.scores import Scores, SliceScore, UnitScore, scores
from oomslice.settings.model import PressureTrigger, PsiKind

LOGGER = logging.getLogger("oomsliced")

DEFAULT_SOCKET = "/run/oomslice/scores.sock"
DEFAULT_STATE = "/run/oomslice/scores"
PRESSURE = "/proc/pressure/memory"
TRIGGER = PressureTrigger(PsiKind.SOME, 200_000, 2_000_000)
"""When units are measured again between two plans. Without privileges windows are multiples of two seconds."""
COARSE_PERMILLE = 5
"""A unit with less than this of RAM and swap, page cache counted in, is not looked at more closely."""
ANSWER_SEC = 30.0
RETRY_SEC = (0.2, 1.0, 5.0)
"""Pauses before the table is sent again after the service ended. Then with the next plan."""
ANSWER_MAX = 1024
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ANSWER = re.compile(r"units=(\d+) hits=(\d+) missed=(\d+) line=(\d+) error=(.*)", re.DOTALL)


class ScoreAdjCarrier:
    """`enabled()` is what the configuration says; `changed()` is called when `state` has news."""

    def __init__(
        self,
        tree: CgroupTree,
        enabled: Callable[[], bool],
        changed: Callable[[], None],
        *,
        path: str = DEFAULT_SOCKET,
        state_path: str = DEFAULT_STATE,
        pressure: str = PRESSURE,
    ) -> None:
        self._tree = tree
        self._enabled = enabled
        self._changed = changed
        self._path = path
        self._state_path = Path(state_path)
        self._pressure = pressure
        self._policy: Policy | None = None
        self._scores = Scores()
        self._worked_out = False
        self._planned = False
        """there is a plan since the last table"""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._answered: asyncio.Future[None] | None = None
        self._in_force: bytes | None = None
        self._attempts = 0
        self._retry: asyncio.TimerHandle | None = None
        self._trigger: PsiTrigger | None = None
        self._epoll: select.epoll | None = None
        self._hits = 0
        self._missed = 0
        self._lost = ""
        self._last_error = ""

    def state(self) -> CarrierState:
        """Active while all that is to be given is given, which may be nothing."""
        given = sum(unit.adj is not None for unit in self._scores.units)
        active = False
        if not self._enabled():
            detail = "switched off: carriers: score-adj: no"
        elif not self._worked_out:
            detail = "there is no plan yet"
        elif self._lost:
            detail = self._lost
        elif not self._scores.wanted:
            active, detail = True, "every unit has priority 0: nobody needs another oom_score_adj"
        elif not self._in_force:
            detail = "oomslice-scores has not answered yet"
        else:
            active = True
            detail = f"{given} unit{'' if given == 1 else 's'} got an oom_score_adj by priority"
            if not self._scores.strict:
                detail += "; they are too large for a strict order"
        return CarrierState("score_adj", active, True, detail, self._hits, self._missed, self._last_error)

    def follow(self, policy: Policy, descriptors: Sequence[int]) -> None:
        """Works out what everybody gets, and sends it if that is news."""
        self._policy = policy
        self._planned = True
        self._attempts = 0
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="scores")
            self._listen_for_pressure()

    def described(self, cgroup_id: int) -> tuple[int | None, str]:
        """What the processes of a unit get, None if they keep what they have, and why."""
        for unit in self._scores.units:
            if unit.cgroup_id == cgroup_id:
                return (unit.adj if self._enabled() else None), unit.reason
        return None, ""

    def close(self) -> None:
        """Ends the connection."""
        for task in (self._task, self._reader):
            if task is not None:
                task.cancel()
        if self._retry is not None:
            self._retry.cancel()
        if self._epoll is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        if self._trigger is not None:
            self._trigger.close()
            self._trigger = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            policy = self._policy
            assert policy is not None
            try:
                before = self.state()
                if self._enabled():
                    self._scores = await asyncio.to_thread(self._measured, policy)
                    self._worked_out = True
                    wanted = table(self._scores) if self._scores.wanted else b""
                else:
                    self._scores = Scores()
                    wanted = b""
                await self._bring_in_force(wanted)
                self._lost = ""
            except (OSError, CgroupError) as error:
                self._fail(f"oomslice-scores cannot be reached: {getattr(error, 'strerror', None) or error}")
            if self.state() != before:
                self._changed()

    def _measured(self, policy: Policy) -> Scores:
        memory = self._tree.memory()
        total = memory.total + memory.swap_total
        coarse = total * COARSE_PERMILLE // 1000
        holds = {unit.parent for unit in policy.units}
        sizes = {
            unit.cgroup_id: self._tree.process_bound(unit.path, coarse)
            for number, unit in enumerate(policy.units)
            if number not in holds and not unit.self_
        }
        return scores(policy, sizes, total, self._scores)

    async def _bring_in_force(self, wanted: bytes) -> None:
        """Raises OSError."""
        # The same again with every plan: what systemd has just set of a unit (memory.oom.group) is put right.
        planned, self._planned = self._planned, False
        if wanted == self._in_force and not (wanted and planned):
            return
        # Nothing to give, and nobody has anything from an oomsliced before us: then nobody has to be started for it.
        if not wanted and self._in_force is None and not self._state_path.exists():
            return
        connection = self._connected()
        memfd = os.memfd_create("oomslice-scores", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memfd, "wb", closefd=False) as file:
                file.write(wanted)
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALS)
            self._answered = asyncio.get_running_loop().create_future()
            connection.sendmsg([b"table"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memfd]))])
        finally:
            os.close(memfd)
        try:
            async with asyncio.timeout(ANSWER_SEC):
                await self._answered
        except TimeoutError:
            self._drop()
            raise
        self._in_force = wanted

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(
                socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                raise
            self._socket = connection
            self._reader = asyncio.get_running_loop().create_task(self._read(connection), name="scores-answers")
        return self._socket

    async def _read(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(connection, ANSWER_MAX):
                self._take_answer(data.decode(errors="replace"))
        if self._socket is connection:
            self._reader = None
            self._drop()
            self._fail("oomslice-scores has ended")
            self._changed()

    def _take_answer(self, text: str) -> None:
        match = _ANSWER.fullmatch(text)
        if match is None:
            LOGGER.error("oomslice-scores said what is no answer: %r", text)
            return
        before = self.state()
        self._hits, self._missed = int(match[2]), int(match[3])
        self._last_error = match[5] or self._last_error
        if self._answered is not None and not self._answered.done():
            if int(match[4]):
                self._answered.set_exception(OSError(0, f"line {match[4]} of the table was refused"))
                return
            self._answered.set_result(None)
            self._attempts = 0
        elif self.state() != before:
            self._changed()

    def _drop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._in_force = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError(0, "it has ended"))

    def _fail(self, reason: str) -> None:
        if reason != self._lost:
            LOGGER.warning("%s: the kernel's own killer does not follow the priorities", reason)
        self._lost = self._last_error = reason
        if self._attempts < len(RETRY_SEC) and self._policy is not None:
            if self._retry is not None:
                self._retry.cancel()
            self._retry = asyncio.get_running_loop().call_later(RETRY_SEC[self._attempts], self._wake.set)
            self._attempts += 1

    def _listen_for_pressure(self) -> None:
        try:
            self._trigger = psi_trigger(self._pressure, TRIGGER)
            self._epoll = select.epoll()
            # asyncio waits for readable files only, and this one is never that.
            self._epoll.register(self._trigger.fileno(), select.EPOLLPRI)
        except (KernelError, OSError) as error:
            LOGGER.info("no pressure figures, so units are measured with each plan only: %s", error)
            return
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._pressed)

    def _pressed(self) -> None:
        assert self._epoll is not None
        if any(happened & select.EPOLLERR for _, happened in self._epoll.poll(0)):
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._wake.set()


def table(given: Scores) -> bytes:
    """What oomslice-scores takes, see scores/table.h."""
    lines = [
        (unit.cgroup_id, _line("unit", unit) if unit.touched else f"keep {unit.cgroup_id} {unit.path}\n")
        for unit in given.units
        if unit.path.isprintable()
    ]
    lines += [(slice_.cgroup_id, _line("slice", slice_)) for slice_ in given.slices if slice_.path.isprintable()]
    lines += [(number, f"keep {number} {path}\n") for number, path in given.kept.items() if path.isprintable()]
    return "".join(line for _, line in sorted(lines)).encode()


def _line(kind: str, score: UnitScore | SliceScore) -> str:
    adj = "-" if score.adj is None else str(score.adj)
    return f"{kind} {score.cgroup_id} {adj} {score.baseline} {int(score.group)} {score.path}\n"
