# SPDX-License-Identifier: LGPL-2.1-or-later
"""Keeps the core supplied: connects, collects what it decided, hands over the newest plan, and again after it died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from oomslice.carriers.shared import SharedMaps
from oomslice.daemon.backend import Status
from oomslice.daemon.planner import Prepared
from oomslice.daemon.requests import RequestHandler
from oomslice.decisions.ring import Ring
from oomslice.errors import ChannelError, OomsliceError, PlanError, RefusedError
from oomslice.plan.channel import CoreChannel, Hello
from oomslice.plan.encode import plan_names, plan_reserve, plan_texts, read_plan, seal

log = logging.getLogger("oomsliced")

RETRY_SEC = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to connect: the core is back within a tenth of a second if it is coming back at all."""

RESERVE_LOOKS_SEC = (1.0, 6.0, 30.0)
"""Pauses before the core is asked for its state again while it does not hold its reserve: it takes that when all has
been calm for some seconds. Then no more: at rest nobody wakes it, and a shortage that lasts has decisions to come."""

NAMES_MAX = 10_000
"""Of so many cgroups, those of earlier plans included, the names are kept."""


class Told(Protocol):
    """Who is told of what happens before a decision is complete: see BusService."""

    def pressure(self, domain: str, begins: bool) -> None: ...

    def steps(self, decision: str, unit: str, steps: Sequence[tuple[str, str]]) -> None: ...


class CoreLink:
    """`collect(ring, names, texts)` is called whenever the ring may hold something; `names` maps cgroup ids to unit
    names, and `texts` to what stands in the steps of their ladders.
    `refused()` is called when a reconnected core does not take the plan that was kept for it: a newer one is needed.
    `requests` does what the core asks for in the ring. `changed()` is called when it came, went or took a plan;
    `told` hears of what happens before a decision is complete. `maps`: those of BPF programs, which the core has to
    know."""

    def __init__(
        self,
        path: str,
        status: Status,
        collect: Callable[[Ring, dict[int, str], dict[int, dict[str, list[str]]]], None],
        refused: Callable[[], None],
        requests: RequestHandler,
        changed: Callable[[], None] = lambda: None,
        told: Told | None = None,
        maps: SharedMaps | None = None,
    ) -> None:
        self._path = path
        self._status = status
        self._collect = collect
        self._refused = refused
        self._requests = requests
        self._changed = changed
        self._told = told
        self._maps = maps or SharedMaps()
        self._shared: tuple[int, ...] | None = None
        self.maps_error = ""
        """why the core did not take the maps of BPF programs the last time it did not"""
        self._channel: CoreChannel | None = None
        self._ring: Ring | None = None
        self._event_fd = -1
        self._prepared: Prepared | None = None
        self._in_force = 0
        self._names: dict[int, str] = {}
        self._texts: dict[int, dict[str, list[str]]] = {}
        self._pressed: frozenset[int] = frozenset()
        self._handover = asyncio.Lock()
        self._reserve = 0
        self._looks: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Stays connected until cancelled."""
        attempt = 0
        while True:
            channel = CoreChannel(self._path)
            closed = asyncio.Event()
            channel.on_closed = closed.set
            try:
                hello = await channel.connect()
                attempt = 0
                self._adopt(channel, hello)
                try:
                    await self._hand_over()
                except PlanError as error:
                    log.warning("%s", error)
                    self._refused()
                await closed.wait()
                log.warning("the connection to oomslice-core is gone")
            except OomsliceError as error:
                if attempt == 0:
                    log.warning("%s", error)
            finally:
                self._drop(channel)
            await asyncio.sleep(RETRY_SEC[min(attempt, len(RETRY_SEC) - 1)])
            attempt += 1

    async def offer(self, prepared: Prepared) -> None:
        """Takes over the newest plan and hands it to the core, now or as soon as there is one. Raises PlanError."""
        old, self._prepared = self._prepared, prepared
        if old is not None:
            old.close()
        if self._channel is not None:
            await self._hand_over()

    async def refresh(self) -> None:
        """Asks the core for its state, so that the bus answers with fresh figures."""
        if self._channel is not None:
            with contextlib.suppress(ChannelError):
                self._status.core = await self._channel.state()
                self._look_again()

    async def act(self, cgroup_id: int, step: tuple[int, int, bytes], uid: int) -> str:
        """Has one step begun upon a unit, on behalf of a user; the decision's id. Raises RefusedError, ChannelError."""
        if self._channel is None or self._ring is None:
            raise ChannelError("oomslice-core is not connected: systemctl status oomslice-core.service")
        ring = self._ring.id
        return f"{ring:016x}-{await self._channel.act(cgroup_id, step, uid)}"

    async def release(self, cgroup_id: int) -> None:
        """Has what steps did to a cgroup undone. Raises RefusedError, ChannelError."""
        if self._channel is None:
            raise ChannelError("oomslice-core is not connected: systemctl status oomslice-core.service")
        await self._channel.release(cgroup_id)

    def collect(self) -> None:
        """Empties the ring into the store."""
        if self._ring is not None:
            self._collect(self._ring, self._names, self._texts)

    def close(self) -> None:
        """Lets go of the plan's descriptors; the connection ends with run()."""
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def _adopt(self, channel: CoreChannel, hello: Hello) -> None:
        self._channel = channel
        self._in_force = hello.generation
        if hello.plan_fd >= 0:
            # Candidates are recorded by id only; after our restart the core's own plan is what still knows their names.
            try:
                self._know(read_plan(hello.plan_fd))
            finally:
                os.close(hello.plan_fd)
        self._event_fd = hello.event_fd
        self._ring = Ring(hello.ring_fd)
        asyncio.get_running_loop().add_reader(self._event_fd, self._ring_rang)
        self._requests.adopt(self._ring)
        self._observe()
        self.collect()

    def _ring_rang(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._event_fd, 8)
        # First what the core waits for.
        self._requests.serve()
        self._observe()
        self.collect()

    def _observe(self) -> None:
        """Tells of what changes while a decision is being carried out: pressure, and steps that are over."""
        if self._told is None:
            return
        pressed = self._ring.pressed if self._ring is not None else frozenset()
        for id in sorted(pressed ^ self._pressed):
            self._told.pressure(self._names.get(id, f"cgroup:{id}"), id in pressed)
        self._pressed = pressed
        self._status.pressed = sorted(self._names.get(id, f"cgroup:{id}") for id in pressed)
        for begun in self._ring.begun() if self._ring is not None else ():
            self._told.steps(begun.id, begun.victim, begun.steps)

    async def _hand_over(self) -> None:
        async with self._handover:
            prepared, channel = self._prepared, self._channel
            if channel is not None:
                await self._share(channel)
            if prepared is None or channel is None:
                return
            if prepared.generation > self._in_force:
                self.collect()
                plan_fd = seal(prepared.data)
                try:
                    await channel.send_plan(plan_fd, len(prepared.data), prepared.generation, prepared.descriptors)
                except PlanError as error:
                    self._status.plan_error = self._status.refused = str(error)
                    raise
                finally:
                    os.close(plan_fd)
                self._know(prepared.data)
                self._in_force = prepared.generation
                self._status.plan_error = ""
            self._status.core = await channel.state()
            self._look_again()
        self._changed()

    async def _share(self, channel: CoreChannel) -> None:
        """Has the core use the maps of the programs that are loaded now. oomslice-bpf.service is a unit, so there is a
        plan, and this is called, whenever it starts or stops."""
        with self._maps.open() as (descriptors, ids):
            if ids == self._shared:
                return
            try:
                await channel.send_programs(descriptors)
            except RefusedError as error:
                self.maps_error = f"the core does not use the maps of the programs: {error}"
                log.warning("%s", self.maps_error)
            self._shared = ids

    def _look_again(self) -> None:
        """Follows the reserve until it is held, or for a while."""
        if self._looks is not None:
            self._looks.cancel()
        self._looks = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        for pause in RESERVE_LOOKS_SEC:
            if self._status.core is None or self._status.core.reserve_bytes == self._reserve or self._channel is None:
                return
            await asyncio.sleep(pause)
            if self._channel is not None:
                with contextlib.suppress(ChannelError):
                    self._status.core = await self._channel.state()

    def _know(self, plan: bytes) -> None:
        self._reserve = plan_reserve(plan)
        # What the plan before said is kept: its last decision may be in the ring already.
        if len(self._names) >= NAMES_MAX:
            self._names, self._texts = {}, {}
        self._names.update(plan_names(plan))
        self._texts.update(plan_texts(plan))

    def _drop(self, channel: CoreChannel) -> None:
        channel.close()
        self._channel = None
        self._shared = None
        self._status.core = None
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
        if self._event_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._event_fd)
            os.close(self._event_fd)
            self._event_fd = -1
        if self._ring is not None:
            self._requests.drop()
            self._ring.close()
            self._ring = None
            self._observe()
        self._changed()
