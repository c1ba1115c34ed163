# SPDX-License-Identifier: LGPL-2.1-or-later
"""What --json of each verb prints has the keys that oomslicectl(1) says it has, and none besides."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from oomslice.actions import restore
from oomslice.bus.interface import MANAGER
from oomslice.cgroups.tree import CgroupTree
from oomslice.cli import record
from oomslice.cli.main import VERBS, main
from tests.bus.rig import PrivateBus
from tests.bus.test_cli import oomslicectl
from tests.bus.test_every_verb import CALLS, ID, directory, service
from tests.unit.manual import section
from tests.unit.test_whatif import falling

__all__ = ["directory"]  # a fixture

pytestmark = [pytest.mark.bus, pytest.mark.skipif(os.geteuid() != 0, reason="only root may act, and that is tried too")]
MORE: Mapping[str, tuple[str, ...]] = {
    "simulate": (
        "--trace {directory}/trace.gz --set batch.slice:Priority=5",
        "--trace {directory}/trace.gz --storm fast:job.service",
    ),
    "replay": ("{directory}/trace.gz --set machine:available-min=0.5%",),
}
"""Calls whose answers look otherwise than those of CALLS do."""
BY_HAND = frozenset({"record", "restore"})
"""Verbs that need cgroup v2, or a dump of processes: their answers are had without."""
ANY = frozenset({"labels", "extra", "Sources"})
"""Under these keys are names of labels, of carriers' own figures, and of settings."""
VALUES = frozenset({"climbs", "killed", "held", "dry-run", "no-candidate", "DaemonStarted", "DaemonStopped", "UNIT"})
"""Words of the section that are no keys."""
REFERENCES = {
    "*GetSlice*": "SETTINGS OF A UNIT",
    "*GetDecision*": "RECORD OF A DECISION",
    "*State*": "STATE",
}
"""What an entry refers to -> the section of org.oomslice1(5) that has the keys."""
PRESSURE = frozenset({"some10", "some60", "full10", "full60"})


def entry(verb: str) -> str:
    """What the manual says of a verb's JSON."""
    found = re.search(rf"^\*{verb}\*\n((?:\t.*\n)+)", section("oomslicectl.1", "JSON"), re.MULTILINE)
    assert found, f"oomslicectl(1) says nothing of the JSON of {verb}"
    return found[1]


def words(text: str) -> set[str]:
    return {word.replace("\\", "") for word in re.findall(r"(?<![\w\\])_([A-Za-z][\w\\-]*?)_(?!\w)", text)}


def referred(text: str) -> set[str]:
    """Keys that are described elsewhere."""
    found: set[str] = set()
    for verb in re.findall(r"as for \*(\w+)\*", text):
        found |= words(entry(verb)) | referred(entry(verb))
    for reference, title in REFERENCES.items():
        if reference in text:
            found |= words(section("org.oomslice1.5", title))
    if "arguments of the signal" in " ".join(text.split()):
        found |= {argument.name for signal in MANAGER.signals for argument in signal.arguments}
    return found


def keys(data: Any) -> Iterator[str]:
    """Every key of every object in it."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            if key not in ANY:
                yield from keys(value)
    elif isinstance(data, list):
        for item in data:
            yield from keys(item)


def compare(verb: str, printed: set[str]) -> None:
    text = entry(verb)
    own = words(text) - VALUES
    if not Path("/proc/pressure/memory").exists():
        own -= PRESSURE
    assert printed <= own | referred(text), "not in the manual"
    assert own <= printed, "in the manual only"


def test_every_verb_has_an_entry_and_nothing_else_has() -> None:
    heads = re.findall(r"^\*(\w+)\*$", section("oomslicectl.1", "JSON"), re.MULTILINE)
    assert sorted(heads) == sorted(VERBS)


@pytest.mark.parametrize("verb", sorted(set(CALLS) - BY_HAND))
def test_json_has_the_keys_of_the_manual(bus: PrivateBus, directory: Path, verb: str) -> None:
    calls = [call.arguments for call in CALLS[verb] if call.json] + list(MORE.get(verb, ()))

    async def ask() -> set[str]:
        printed: set[str] = set()
        serving = await service(bus, verb)
        try:
            for arguments in calls:
                _, output, errors = await oomslicectl(
                    bus.address, verb, *arguments.format(directory=directory).split(), "--json"
                )
                assert output, errors
                printed |= set(keys(json.loads(output)))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        return printed

    compare(verb, asyncio.run(ask()))


def test_json_of_record_has_the_keys_of_the_manual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CgroupTree, "check", lambda self: None)
    monkeypatch.setattr(record.Looks, "next", lambda self: falling()[0])
    assert main(["record", str(tmp_path / "t.gz"), "--interval", "0.05", "--duration", "0.1", "--json"]) == 0
    compare("record", set(keys(json.loads(capsys.readouterr().out))))


def test_json_of_restore_has_the_keys_of_the_manual(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restored = restore.Restored("job-restored.service", "job.service", 12, "/var/lib/oomslice-checkpoints/x")
    monkeypatch.setattr(restore, "restore", lambda id, directory: restored)
    assert main(["restore", ID, "--json"]) == 0
    compare("restore", set(keys(json.loads(capsys.readouterr().out))))
