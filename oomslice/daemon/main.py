# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole life of oomsliced: start, follow systemd, keep the core supplied, answer on the bus, stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oomslice import __version__
from oomslice.actions.client import ActionsClient
from oomslice.actions.messages import DEFAULT_SOCKET as ACTIONS_SOCKET
from oomslice.bus.service import BusService
from oomslice.carriers.bpf import CHOICE, OBSERVE, SIGNS, BpfCarrier
from oomslice.carriers.core import CoreCarrier
from oomslice.carriers.kernel import KernelCarrier
from oomslice.carriers.model import Carrier
from oomslice.carriers.oom_ops import OomOpsCarrier
from oomslice.carriers.oomd import OomdCarrier
from oomslice.carriers.prekill import PrekillCarrier
from oomslice.carriers.reportwatch import ReportWatch
from oomslice.carriers.score_adj import DEFAULT_SOCKET as SCORES_SOCKET
from oomslice.carriers.score_adj import ScoreAdjCarrier
from oomslice.carriers.slices import SliceValues
from oomslice.cgroups.tree import CgroupTree
from oomslice.cgroups.watch import CgroupWatch
from oomslice.daemon.backend import DaemonBackend, Status
from oomslice.daemon.collector import Collector
from oomslice.daemon.commands import Commands
from oomslice.daemon.core_link import CoreLink
from oomslice.daemon.follow import follow_oomd, follow_units
from oomslice.daemon.missed import MissedKills
from oomslice.daemon.notify import notify, notify_reloading, watchdog
from oomslice.daemon.on_decision import OnDecision
from oomslice.daemon.owners import Owners
from oomslice.daemon.planner import Planner
from oomslice.daemon.requests import RequestHandler
from oomslice.daemon.started import StartedUnits
from oomslice.daemon.tell import UnitJournal
from oomslice.decisions.bpfkills import BpfKills
from oomslice.decisions.facts import Facts
from oomslice.decisions.journal import JournalSender
from oomslice.decisions.kernel import KernelKills
from oomslice.decisions.record import Decision
from oomslice.decisions.ring import Ring
from oomslice.decisions.store import DecisionStore
from oomslice.errors import CgroupError, ChannelError, OomsliceError, PlanError, StoreError
from oomslice.plan.channel import DEFAULT_SOCKET
from oomslice.units.client import UnitsClient

log = logging.getLogger("oomsliced")

SETTLE_SEC = 0.02
"""Units come in bursts (a target, a session): one plan for a burst, but no unit waits longer than this for its plan."""
ANNOUNCE_RETRY_SEC = 5.0
FOLLOW_SEC = 10.0
"""After a decision its figures are stored once more, with how the memory came back."""
READY_SEC = 30.0
"""After this long without a first plan the service counts as started: the core acts on its stored one."""
RETRY_SEC = 0.5
"""Pause when systemd did not answer or a plan was refused: the last plan goes on meanwhile."""


class Daemon:
    """All parts of oomsliced, wired together."""

    def __init__(self, options: argparse.Namespace) -> None:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
        self._tree = CgroupTree(Path(options.cgroup_root))
        self._tree.check()
        self._units = UnitsClient(timeout=30.0)
        self._planner = Planner(self._tree, self._units)
        self._status = Status()
        self._store = DecisionStore(
            Path(options.state) / "decisions.sqlite", self._planner.configuration.limits.decisions_max
        )
        self._kernel = KernelKills(self._tree.root, self._store, boot_id, self._kernel_killed, facts=Facts())
        self._observe = BpfCarrier("observe", OBSERVE, acts=False, problem=lambda: self._kernel.bpf_error)
        self._slices = SliceValues(self._tree)
        self._prekill = PrekillCarrier(
            BpfKills(
                self._tree.root,
                self._store,
                boot_id,
                self._bpf_killed,
                self._memory,
                lambda: self._slices.generation,
            ),
            lambda: self._planner.configuration.carriers.prekill,
            lambda: self._slices.error,
        )
        scores = ScoreAdjCarrier(
            self._tree,
            lambda: self._planner.configuration.carriers.score_adj,
            self.carriers_changed,
            path=options.scores_socket,
        )
        self._oomd = OomdCarrier(
            boot_id, lambda: "systemd-oomd.service" in self._planner.other_daemons, self._oomd_killed
        )
        self._carriers: tuple[Carrier, ...] = (
            CoreCarrier(lambda: self._status.core, lambda: self._status.refused),
            scores,
            KernelCarrier(self._kernel),
            self._observe,
            BpfCarrier("signs", SIGNS, acts=False, problem=lambda: self._core.maps_error),
            self._prekill,
            BpfCarrier("choice", CHOICE, acts=False, chooses=True, problem=lambda: self._slices.error),
            OomOpsCarrier(),
            self._oomd,
        )
        self._again: asyncio.TimerHandle | None = None
        self._told: list[dict[str, Any]] = []
        """what the bus was told of the carriers"""
        self._actions = ActionsClient(options.actions_socket)
        self._commands = Commands(self._actions, self._replan, self.reload, lambda: self._core)
        self._backend = DaemonBackend(
            self._planner, self._store, self._status, self._commands, self._carriers, scores.described
        )
        self._bus = BusService(self._backend)
        self._journal = JournalSender()
        self._on_decision = OnDecision(self._actions)
        self._started = StartedUnits(self._bus.configuration_changed)
        self._status.start_problems = lambda: self._started.problems
        self._requests = RequestHandler(self._actions, self._bus.warn, self._cgroup_path)
        self._unit_journal = UnitJournal(self._actions, self._planner.has_room)
        self._owners = Owners()
        self._collector = Collector(
            self._store,
            self._journal,
            boot_id,
            self._tell,
            self._on_decision.start,
            self._bus.decision_undone,
            self._unit_journal,
            self._owners.named,
        )
        self._status.dropped = self._dropped
        self._core = CoreLink(
            options.socket,
            self._status,
            self._collect,
            self.units_changed,
            self._requests,
            self.carriers_changed,
            self._bus,
        )
        self._missed = MissedKills(
            self._oomd.kills, self._store, self._owners.named, self._oomd_missed, self._journal_error
        )
        self._watch = CgroupWatch(self._tree, self.units_changed)
        self._reports = ReportWatch(self.units_changed)
        self._changed = asyncio.Event()
        self._stored = asyncio.Event()
        self._full = True
        self._planned: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        reloads: set[asyncio.Task[None]] = set()

        def hang_up() -> None:
            task = loop.create_task(self._reload_for_systemd())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        await self._bus.start()
        self.units_changed(full=True)
        first_plan = self._next_plan()
        tasks = [
            loop.create_task(work)
            for work in (
                self._core.run(),
                self._make_plans(),
                self._announce(),
                follow_units(self.units_changed),
                follow_oomd(self._oomd.heard, self._oomd_error),
                self._look_for_missed(first_plan),
                watchdog(),
            )
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first_plan, READY_SEC)
        notify("READY=1", f"STATUS={self._status_text()}")
        await stop.wait()
        notify("STOPPING=1")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close()

    def units_changed(self, *, full: bool = False) -> None:
        """Something about the units is new; `full`: settings may be, too (daemon-reload)."""
        self._full = self._full or full
        self._changed.set()

    async def reload(self) -> None:
        """Reads YAML and units again; returns when the plan they make is in force or refused. Raises PlanError."""
        self._planner.reload()
        await self._replan()
        await self._bus.configuration_changed()

    async def _replan(self) -> None:
        """Reads units and their settings again; returns when the plan they make is in force. Raises PlanError."""
        self.units_changed(full=True)
        await self._next_plan()
        if self._status.plan_error:
            raise PlanError(self._status.plan_error)

    async def _reload_for_systemd(self) -> None:
        notify_reloading()
        try:
            await self.reload()
        except OomsliceError as error:
            log.error("reload: %s", error)
        notify("READY=1", f"STATUS={self._status_text()}")

    def _next_plan(self) -> asyncio.Future[None]:
        planned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._planned.append(planned)
        return planned

    async def _make_plans(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE_SEC)
            self._changed.clear()
            full, self._full = self._full, False
            waiting, self._planned = self._planned, []
            try:
                await self._make_plan(full)
            except OomsliceError as error:
                if str(error) != self._status.plan_error:
                    log.error("no new plan: %s", error)
                self._status.plan_error = str(error)
                self._full = self._full or full
                await asyncio.sleep(RETRY_SEC)
                self._changed.set()
            for planned in waiting:
                if not planned.done():
                    planned.set_result(None)

    async def _make_plan(self, full: bool) -> None:
        problems = self._planner.problems
        prepared = await self._planner.prepare(full=full)
        policy = prepared.policy
        await self._core.offer(prepared)
        self._plan_again(self._planner.again_sec)
        self._on_decision.follow(policy)
        self._owners.follow(policy)
        self._started.follow(self._planner.written(), full=full)
        self._slices.follow(policy, prepared.descriptors, prepared.generation)
        for carrier in self._carriers:
            carrier.follow(policy, prepared.descriptors)
        self._watch.follow(policy)
        if self._planner.problems != problems:
            for problem in self._planner.problems:
                if problem not in problems:
                    log.warning("%s", problem)
            await self._bus.configuration_changed()
        self._tell_carriers(self._backend.carriers())
        await self._bus.state_changed()

    def _plan_again(self, after_sec: float | None) -> None:
        """A policy that could not be used may be later."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if after_sec is not None:
            self._again = asyncio.get_running_loop().call_later(after_sec, self.units_changed)

    def carriers_changed(self) -> None:
        """A carrier came, went, or has acted: the bus is told, unless it knows."""
        states = self._backend.carriers()
        if states != self._told:
            self._tell_carriers(states)
            self._bus.carriers_changed()

    def _tell_carriers(self, states: list[dict[str, Any]]) -> None:
        """The journal is told of those that came, went, or cannot act for another reason; the bus is about to be."""
        before = {state["Name"]: state for state in self._told}
        for state in states:
            known = before.get(state["Name"], {})
            another_reason = not state["Active"] and state["Detail"] != known.get("Detail")
            if state["Active"] != known.get("Active") or another_reason:
                self._journal.send_carrier(state["Name"], state["Active"], state["Detail"], state["LastError"])
        self._told = states

    def _collect(self, ring: Ring, names: dict[int, str], texts: dict[int, dict[str, list[str]]]) -> None:
        if not ring.pending:
            return
        # A unit that is younger than the plan is known to neither: what the tree says now is better than its number.
        names = {**self._tree.names(), **names}
        if self._collector.collect(ring, names, texts):
            self._stored.set()
            asyncio.get_running_loop().call_later(FOLLOW_SEC, self._follow, ring, names)

    def _follow(self, ring: Ring, names: dict[int, str]) -> None:
        # The core may have died meanwhile: then what came after the decision is not known.
        with contextlib.suppress(ChannelError):
            self._collector.follow(ring, names)

    async def _announce(self) -> None:
        while True:
            told = await self._collector.announce()
            # While journald is stuck there is a reason to look again without a new decision.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stored.wait(), None if told else ANNOUNCE_RETRY_SEC)
            self._stored.clear()
            await self._core.refresh()
            self.carriers_changed()

    def _kernel_killed(self, _: Decision) -> None:
        self._observe.look()
        self._stored.set()

    def _memory(self) -> tuple[int, int]:
        try:
            memory = self._tree.memory()
        except CgroupError:
            return 0, 0
        return memory.total, memory.swap_total

    def _bpf_killed(self, _: Decision) -> None:
        self._prekill.look()
        self._stored.set()

    def _oomd_killed(self, decision: Decision) -> bool:
        try:
            self._store.add(self._owners.named(decision))
        except StoreError as error:
            log.error("a kill of systemd-oomd (%s) is not recorded: %s", decision.victim, error)
            return False
        self._stored.set()
        self._missed.look()
        return True

    async def _look_for_missed(self, first_plan: asyncio.Future[None]) -> None:
        """A plan knows the priority of who was killed; without one it is looked for all the same."""
        await asyncio.wait([first_plan], timeout=READY_SEC)
        await self._missed.run()

    def _oomd_missed(self, count: int) -> None:
        self._oomd.missed(count)
        self._stored.set()

    def _journal_error(self, error: str) -> None:
        if error != self._oomd.journal_error:
            self._oomd.journal_error = error
            self.carriers_changed()

    def _oomd_error(self, error: str) -> None:
        if not error:
            self._missed.look()  # since when the bus could not be heard
        if error != self._oomd.listening_error:
            self._oomd.listening_error = error
            self.carriers_changed()

    async def _tell(self, decision: Decision) -> None:
        await self._bus.decision_made(decision)
        self._commands.decided(decision)

    def _cgroup_path(self, cgroup_id: int) -> str:
        """Where the cgroup of a unit of the plan is, below the cgroup root; empty if the plan has none of this id."""
        policy = self._planner.policy
        return next((unit.path for unit in policy.units if unit.cgroup_id == cgroup_id), "") if policy else ""

    def _dropped(self) -> tuple[int, int, int]:
        return self._bus.signals_dropped, self._bus.replies_dropped, self._journal.dropped

    def _status_text(self) -> str:
        policy = self._planner.policy
        if self._status.plan_error or policy is None:
            return f"No new plan: {self._status.plan_error or 'systemd has not answered yet'}"
        if self._status.core is None:
            return "Waiting for oomslice-core"
        return f"Plan {self._status.core.generation}: {len(policy.units)} units, {len(policy.domains)} domains"

    async def _close(self) -> None:
        self._started.close()
        self._core.close()
        self._requests.close()
        self._collector.close()
        self._unit_journal.close()
        self._actions.close()
        for carrier in self._carriers:
            carrier.close()
        self._slices.close()
        self._watch.close()
        self._reports.close()
        await self._bus.stop()
        await self._units.close()
        await self._planner.close()
        self._store.close()


class _JournalFormatter(logging.Formatter):
    """Puts sd-daemon(3)'s level prefix before each line when the journal reads our standard error."""

    _LEVELS = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))

    def format(self, record: logging.LogRecord) -> str:
        level = next(number for limit, number in self._LEVELS if record.levelno >= limit)
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of oomsliced. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="oomsliced",
        description="The extended part of oomslice: makes plans for oomslice-core, answers on the bus. Run by systemd.",
    )
    parser.add_argument("--socket", default=DEFAULT_SOCKET, help="socket of the core (default: %(default)s)")
    parser.add_argument(
        "--actions-socket", default=ACTIONS_SOCKET, help="socket of oomslice-actions (default: %(default)s)"
    )
    parser.add_argument(
        "--scores-socket", default=SCORES_SOCKET, help="socket of oomslice-scores (default: %(default)s)"
    )
    parser.add_argument("--cgroup-root", default="/sys/fs/cgroup", help="cgroup v2 mount point (default: %(default)s)")
    parser.add_argument(
        "--state",
        default=os.environ.get("STATE_DIRECTORY", "/var/lib/oomslice"),
        help="directory of the decision store (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="say more in the log")
    parser.add_argument("--version", action="version", version=f"oomsliced {__version__}")
    options = parser.parse_args(arguments)
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_JournalFormatter("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, handlers=[handler])
    try:
        return asyncio.run(_main(options))
    except OomsliceError as error:
        log.error("%s", error)
        return 1


async def _main(options: argparse.Namespace) -> int:
    await Daemon(options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
