# SPDX-License-Identifier: LGPL-2.1-or-later
"""The socket of the running core: plans taken and refused, clients that come, go, hang and lie."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from oomslice._core import ffi, lib
from tests.core.client import Client, message
from tests.core.plans import SEALS, Domain, memfd
from tests.core.rig import Records, Scene, name, wait_until

F_SEAL_WRITE = 0x8


def offset(structure: str, field: str) -> int:
    return ffi.offsetof(structure, field)


def open_all(paths: list[Path]) -> list[int]:
    return [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]


def test_greeting_brings_ring_and_eventfd_and_no_plan(scene: Scene) -> None:
    with scene.core.client() as client:
        hello = client.hello()
    assert hello.message.type == lib.OOMSLICE_MESSAGE_HELLO_REPLY
    assert (hello.message.generation, hello.message.count, len(hello.fds)) == (0, 2, 2)
    assert Records(hello.fds[0]).next() is None
    assert hello.state.units == 0
    for fd in hello.fds:
        os.close(fd)


def test_taken_plan_is_counted_and_given_back_in_the_greeting(scene: Scene) -> None:
    scene.add("a.service")
    scene.hand_over(domains=[Domain(0), Domain(1)])
    with scene.core.client() as client:
        hello = client.hello()
    assert (hello.message.generation, hello.message.count, len(hello.fds)) == (1, 3, 3)
    assert (hello.state.units, hello.state.domains) == (2, 2)
    assert hello.state.features & lib.OOMSLICE_FEATURE_CGROUP_KILL
    assert hello.state.features & lib.OOMSLICE_FEATURE_MRELEASE
    plan = Path(f"/proc/self/fd/{hello.fds[2]}").read_bytes()
    scene.generation = 0
    assert plan == scene.plan(domains=[Domain(0), Domain(1)]).encode()
    for fd in hello.fds:
        os.close(fd)


def test_plan_of_a_thousand_units_is_taken_in_batches(scene: Scene) -> None:
    for index in range(999):
        scene.add(f"{index:03}.service", processes=1 if index == 700 else 0)
    records = scene.hand_over()
    assert scene.core.poke().units == 1000
    scene.shortage()
    assert name(records.wait().victim_name) == "700.service"


def corrupt(data: bytes, structure: str, field: str, value: bytes) -> bytes:
    at = offset(structure, field)
    return data[:at] + value + data[at + len(value) :]


HEADER = "struct oomslice_plan_header"
BAD_PLANS: dict[str, tuple[Any, int, int]] = {
    # How the plan is spoilt, the seals it gets, and what the core says to it.
    "unsealed": (lambda data: data, SEALS & ~F_SEAL_WRITE, lib.OOMSLICE_PLAN_E_SEALS),
    "empty": (lambda data: b"", SEALS, lib.OOMSLICE_PLAN_E_SIZE),
    "oversized": (lambda data: bytes(lib.OOMSLICE_PLAN_SIZE_MAX + 1), SEALS, lib.OOMSLICE_PLAN_E_SIZE),
    "torn": (lambda data: data[:-1], SEALS, lib.OOMSLICE_PLAN_E_SIZE),
    "other magic": (lambda data: b"X" + data[1:], SEALS, lib.OOMSLICE_PLAN_E_MAGIC),
    "other version": (
        lambda data: corrupt(data, HEADER, "version", b"\x09"),
        SEALS,
        lib.OOMSLICE_PLAN_E_VERSION,
    ),
    "flipped bit": (lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], SEALS, lib.OOMSLICE_PLAN_E_CHECKSUM),
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_bad_plan_is_refused_and_the_old_one_stays_in_force(scene: Scene, what: str) -> None:
    spoil, seals, result = BAD_PLANS[what]
    scene.add("a.service", processes=1)
    records = scene.hand_over()
    with scene.core.client() as client:
        plan_fd = memfd(spoil(scene.plan().encode()), seals)
        client.begin(plan_fd, 2)
        os.close(plan_fd)
        reply = client.receive().message
        assert (reply.type, reply.status, reply.generation) == (lib.OOMSLICE_MESSAGE_PLAN_REPLY, result, 2)
        # What was under way for it is passed over without a second answer.
        client.descriptors(0, open_all(scene.paths), 2)
        client.send(message(lib.OOMSLICE_MESSAGE_PLAN_COMMIT, generation=2))
        assert client.state().units == 2
        assert client.hello().message.generation == 1
    scene.shortage()
    assert records.wait().plan_generation == 1


def spoilt_units(scene: Scene, what: str) -> tuple[int, int]:
    """Makes the scene's units wrong; expected result and detail."""
    if what == "priority":
        scene.units[1].priority = 1001
        return lib.OOMSLICE_PLAN_E_BOUNDS, 1
    if what == "parent":
        scene.units[1].parent = 1
        return lib.OOMSLICE_PLAN_E_PARENT, 1
    if what == "name":
        scene.units[1].name = ""
        return lib.OOMSLICE_PLAN_E_NAME, 1
    assert what == "twice"
    scene.units[1].cgroup_id = scene.units[0].cgroup_id
    return lib.OOMSLICE_PLAN_E_BOUNDS, 1


@pytest.mark.parametrize("what", ["priority", "parent", "name", "twice"])
def test_plan_with_a_bad_unit_is_refused_and_the_unit_named(scene: Scene, what: str) -> None:
    scene.add("a.service")
    expected = spoilt_units(scene, what)
    with scene.core.client() as client:
        plan_fd = memfd(scene.plan().encode())
        client.begin(plan_fd)
        os.close(plan_fd)
        reply = client.receive().message
        assert (reply.status, reply.detail) == expected


def test_plan_with_a_bad_domain_is_refused(scene: Scene) -> None:
    with scene.core.client() as client:
        reply = client.send_plan(scene.plan(domains=[Domain(0), Domain(0)]), scene.paths)
    assert (reply.status, reply.detail) == (lib.OOMSLICE_PLAN_E_DOMAIN, 1)


@pytest.mark.parametrize("generation", [1, 2])
def test_plan_that_is_not_newer_is_refused(scene: Scene, generation: int) -> None:
    scene.generation = 1
    scene.hand_over()  # the second one
    with scene.core.client() as client:
        scene.generation = generation - 1
        reply = client.send_plan(scene.plan(), scene.paths)
    assert reply.status == lib.OOMSLICE_PLAN_E_GENERATION


def test_descriptor_of_another_cgroup_is_refused_and_named(scene: Scene) -> None:
    scene.add("a.service")
    scene.add("b.service")
    scene.paths[2] = scene.paths[1]
    with scene.core.client() as client:
        reply = client.send_plan(scene.plan(), scene.paths)
    assert (reply.status, reply.detail) == (lib.OOMSLICE_PLAN_E_CGROUP, 2)


def test_descriptor_that_is_no_cgroup_is_refused(scene: Scene, tmp_path: Path) -> None:
    scene.add("a.service")
    scene.paths[1] = tmp_path
    with scene.core.client() as client:
        reply = client.send_plan(scene.plan(), scene.paths)
    assert (reply.status, reply.detail) == (lib.OOMSLICE_PLAN_E_CGROUP, 1)


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_plan_without_one_descriptor_per_unit_is_refused(scene: Scene, sent: int) -> None:
    scene.add("a.service")
    with scene.core.client() as client:
        plan_fd = memfd(scene.plan().encode())
        client.begin(plan_fd)
        os.close(plan_fd)
        fds = open_all([scene.paths[0]] * 1 + [scene.paths[1]] * 2)[:sent]
        if fds:
            client.descriptors(0, fds)
        client.send(message(lib.OOMSLICE_MESSAGE_PLAN_COMMIT, generation=1))
        assert client.receive().message.status == lib.OOMSLICE_PLAN_E_DESCRIPTORS
        assert client.state().units == 0
        for fd in fds:
            os.close(fd)


def test_messages_out_of_order_are_refused(scene: Scene) -> None:
    with scene.core.client() as client:
        assert client.commit().message.status == lib.OOMSLICE_PLAN_E_SEQUENCE
        client.descriptors(0, [0])
        assert client.receive().message.status == lib.OOMSLICE_PLAN_E_SEQUENCE
        client.send(message(lib.OOMSLICE_MESSAGE_PLAN_COMMIT))  # passed over
        client.send(message(lib.OOMSLICE_MESSAGE_PLAN_BEGIN))  # without a plan
        assert client.receive().message.status == lib.OOMSLICE_PLAN_E_SEQUENCE


def test_other_version_of_the_protocol_is_told_so_and_left(scene: Scene) -> None:
    with scene.core.client() as client:
        client.send(message(lib.OOMSLICE_MESSAGE_HELLO, version=99))
        assert client.receive().message.status == -93  # EPROTONOSUPPORT
        with pytest.raises(ConnectionResetError):
            client.receive()


@pytest.mark.parametrize("nonsense", [b"x", b"y" * 4096, message(77)])
def test_client_that_talks_nonsense_is_dropped_and_the_core_goes_on(scene: Scene, nonsense: bytes) -> None:
    with scene.core.client() as client:
        client.send(nonsense, [0])
        with pytest.raises((ConnectionResetError, TimeoutError)):
            client.receive()
    assert scene.core.poke().units == 0


def test_newer_connection_replaces_the_older_with_its_half_a_plan(scene: Scene) -> None:
    scene.add("a.service")
    with scene.core.client() as old:
        plan_fd = memfd(scene.plan().encode())
        old.begin(plan_fd)
        os.close(plan_fd)
        with scene.core.client() as new:
            assert new.state().units == 0
            with pytest.raises(OSError):
                old.commit()
            reply = new.send_plan(scene.plan(), scene.paths)
            assert reply.status == 0


def test_client_that_does_not_read_is_dropped_and_blocks_nobody(scene: Scene) -> None:
    unit = scene.add("a.service", processes=1)
    records = scene.hand_over()
    with scene.core.client() as stuck:
        with pytest.raises(OSError):
            for _ in range(100_000):
                stuck.send(message(lib.OOMSLICE_MESSAGE_STATE))
        scene.shortage()
        assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED
    assert scene.alive(unit) == 0


def test_many_plans_leak_no_descriptor_and_no_mapping(scene: Scene) -> None:
    process = Path(f"/proc/{scene.core.pid}")

    def figures() -> tuple[int, int]:
        maps = (process / "maps").read_text(encoding="ascii")
        return len(list((process / "fd").iterdir())), maps.count("test-plan")

    scene.add("a.service")
    with scene.core.client() as client:
        client.send_plan(scene.plan(domains=[Domain(0), Domain(1)]), scene.paths)
        before = figures()
        for index in range(20):
            gone = scene.add(f"{index}.service")
            assert client.send_plan(scene.plan(domains=[Domain(0), Domain(1)]), scene.paths).status == 0
            scene.units.pop()
            scene.paths.pop()
            assert client.send_plan(scene.plan(domains=[Domain(0), Domain(1)]), scene.paths).status == 0
            gone.rmdir()
            plan_fd = memfd(scene.plan().encode())
            client.begin(plan_fd)  # and never ended
            os.close(plan_fd)
        assert client.state().units == 2
        client.send(message(lib.OOMSLICE_MESSAGE_PLAN_BEGIN))
        client.receive()
        assert figures() == before


def test_unit_kept_over_plans_can_still_be_killed(scene: Scene) -> None:
    unit = scene.add("a.service", processes=3)
    scene.hand_over()
    scene.add("b.service", 10)
    scene.hand_over()
    scene.units.pop()
    scene.paths.pop()
    records = scene.hand_over()
    scene.shortage()
    record = records.wait()
    assert (record.outcome, record.plan_generation) == (lib.OOMSLICE_OUTCOME_FREED, 3)
    assert scene.alive(unit) == 0


def test_connection_that_goes_while_a_victim_dies_does_no_harm(scene: Scene) -> None:
    scene.add("a.service", processes=150)
    records = scene.hand_over()
    client = scene.core.client()
    scene.core.set_memory(50)
    client.send(message(lib.OOMSLICE_MESSAGE_STATE))
    client.socket.shutdown(socket.SHUT_RDWR)
    client.socket.close()
    assert records.wait().outcome == lib.OOMSLICE_OUTCOME_FREED
    wait_until(lambda: scene.core.poke().decisions >= 1)


def test_client_class_reports_a_closed_connection(scene: Scene) -> None:
    with Client(scene.core.path) as client:
        client.state()
        scene.core.stop()
        with pytest.raises(ConnectionResetError):
            client.receive()
    scene.core.start()
