# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metrics: what is counted, how it is written, and that Prometheus can read it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.decisions.statistics import BOUNDS_SEC, LATENCIES, OTHER, UNITS_MAX, Figures, Histogram, Key, Tally
from oomslice.decisions.store import DecisionStore
from oomslice.errors import BusError, StoreError
from oomslice.metrics.exposition import Family, Point, exposition, number
from oomslice.metrics.gather import gather, pressure_families
from tests.unit.promtool import promtool
from tests.unit.test_cli_render import CARRIERS, DECISION, STATE

DOCS = Path(__file__).parents[2] / "docs"
PRESSURE = (
    "some avg10=12.50 avg60=1.00 avg300=0.10 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n"
)
FIGURES = {"MemoryTotal": 2**34, "MemoryAvailable": 2**30, "MemoryAvailableLimit": 2**31, "SwapTotal": 0, "SwapFree": 0}


class FakeManager:
    """Answers as the daemon would."""

    def __init__(self, unit: str = "hog.service", fail: bool = False) -> None:
        self.unit = unit
        self.fail = fail

    async def get(self, name: str) -> Any:
        if self.fail:
            raise BusError("no")
        return {"State": STATE, "Carriers": CARRIERS, "ConfigurationErrors": [], "Version": "0.1.0"}[name]

    async def call(self, name: str, *arguments: Any) -> Any:
        assert name == "GetStatistics"
        buckets = [[bound, 2] for bound in BOUNDS_SEC]
        decisions = [[self.unit, "kill", "core", "freed", 2], ["a.service", "freeze", "core", "held", 1]]
        latencies = [[name, buckets, 3, 61.25] for name in ("trigger_to_signal", "signal_to_death")]
        return [decisions, latencies, FIGURES]


def text(manager: FakeManager | None, folder: Path) -> str:
    """What would be scraped, with pressure of the test's own."""
    (folder / "memory").write_text(PRESSURE)
    return exposition(asyncio.run(gather(manager, folder / "memory")))


def test_figures_are_written_with_their_labels(tmp_path: Path) -> None:
    lines = text(FakeManager(), tmp_path).splitlines()
    assert "oomslice_up 1" in lines
    assert "oomslice_armed 1" in lines
    assert 'oomslice_decisions_total{unit="hog.service",step="kill",carrier="core",outcome="freed"} 2' in lines
    assert f"oomslice_memory_headroom_bytes {2**30 - 2**31}" in lines
    assert 'oomslice_pressure_stall_seconds_total{kind="some"} 1.5' in lines
    assert 'oomslice_pressure_avg10_ratio{kind="some"} 0.125' in lines
    assert 'oomslice_trigger_to_signal_seconds_bucket{le="0.001"} 2' in lines
    assert 'oomslice_trigger_to_signal_seconds_bucket{le="+Inf"} 3' in lines
    assert "oomslice_trigger_to_signal_seconds_sum 61.25" in lines
    assert 'oomslice_carrier_active{carrier="core"} 1' in lines


def test_a_daemon_that_does_not_answer_is_told_as_down(tmp_path: Path) -> None:
    for manager in (None, FakeManager(fail=True)):
        lines = text(manager, tmp_path).splitlines()
        assert "oomslice_up 0" in lines
        assert any(line.startswith("oomslice_pressure") for line in lines)
        assert not any(line.startswith("oomslice_decisions") for line in lines)


@pytest.mark.parametrize("content", [None, "", "some nonsense\n", "\xff"])
def test_without_pressure_there_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "memory").write_text(content, encoding="latin-1")
    assert "pressure" not in exposition(pressure_families(tmp_path / "memory"))


def test_prometheus_finds_nothing_wrong(tmp_path: Path) -> None:
    for unit in ("hog.service", 'a"b\\c\nd{}.service', "מלך.service"):
        promtool("check", "metrics", text=text(FakeManager(unit), tmp_path))
    promtool("check", "metrics", text=text(None, tmp_path))


def test_prometheus_would_find_what_is_wrong() -> None:
    with pytest.raises(AssertionError):
        promtool("check", "metrics", text='a{b="c"d"} 1\n')


@given(st.text(max_size=30))
def test_a_label_is_one_line_whatever_it_holds(value: str) -> None:
    made = exposition([Family("name", "gauge", "help", [Point(1, {"label": value})])])
    assert len(made.split("\n")) == 4
    found = re.fullmatch(r'name\{label="((?:[^"\\\n]|\\.)*)"\} 1', made.split("\n")[2])
    assert found
    escapes = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
    assert re.sub(r"\\.", lambda match: escapes[match[0]], found[1]) == value


def test_numbers_are_as_go_reads_them() -> None:
    assert [number(value) for value in (0, 2.0**40, 0.1, math.inf, -math.inf, 1e300)] == [
        "0",
        "1099511627776",
        "0.1",
        "+Inf",
        "-Inf",
        "1e+300",
    ]


def test_the_dashboard_asks_for_metrics_that_exist_by_labels_that_they_have(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text(PRESSURE)
    families = {family.name: family for family in asyncio.run(gather(FakeManager(), tmp_path / "memory"))}
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [item["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    assert len(expressions) > 10
    latencies = {f"oomslice_{name}_seconds" for name in LATENCIES}
    asked = set()
    for expression in expressions:
        for name in re.findall(r"oomslice_\w+", expression):
            histogram = name.removesuffix("_bucket")
            assert (name != histogram) == (histogram in latencies), name
            asked.add(name)
            if histogram in latencies:
                assert f"rate({name}" in expression
                continue
            family = families[name]
            has = {label for point in family.points for label in point.labels} | {"instance"}
            grouped = re.findall(r"by \(([^)]*)\)", expression)
            wanted = {label.strip() for group in grouped for label in group.split(",")}
            wanted |= set(re.findall(r"[{,](\w+)=", expression))
            assert wanted <= has, expression
            if not expression.startswith("label_values"):
                assert (family.kind == "counter") == bool(re.search(r"(rate|increase)\(" + name, expression)), (
                    expression
                )
    assert asked >= {"oomslice_up", "oomslice_memory_headroom_bytes", "oomslice_decisions_total"}
    rules = [
        {"record": f"test:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
        if not expression.startswith("label_values")
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "rules.json"))


class FakeStore:
    """Has as many decisions as it is told."""

    def __init__(self, decisions: Sequence[Figures]) -> None:
        self.decisions = list(decisions)
        self.reads = 0

    def figures(self, after: int, limit: int) -> list[Figures]:
        self.reads += 1
        return [one for one in self.decisions if one.number > after][:limit]


def figures(number: int, unit: str = "hog.service", **values: Any) -> Figures:
    """A kill that took 1 ms to the signal, 10 ms to death, 40 ms until the memory was back."""
    return Figures(number, unit, "kill", "core", "freed", 1_000_000, 1_001_000, 1_011_000, 1_040_000)._replace(**values)


def test_decisions_are_counted_once_and_go_on() -> None:
    store = FakeStore([figures(number) for number in range(1, 1201)])
    tally = Tally(store)
    key = Key("hog.service", "kill", "core", "freed")
    assert tally.read().decisions == {key: 1200}
    assert tally.read().decisions == {key: 1200}
    store.decisions = [figures(1201)]  # the older ones are no longer kept
    assert tally.read().decisions == {key: 1201}


def test_latencies_are_of_what_happened() -> None:
    store = FakeStore([figures(1), figures(2, signal_usec=0), figures(3, trigger_usec=0), figures(4, death_usec=5)])
    latencies = Tally(store).read().latencies
    assert [latencies[name].count for name in latencies] == [2, 2, 3]
    assert latencies["signal_to_death"].sum_sec == pytest.approx(0.02)
    bucket = dict(zip(BOUNDS_SEC, latencies["signal_to_death"].counts, strict=True))
    assert (bucket[0.005], bucket[0.01], bucket[60.0]) == (0, 2, 2)


def test_a_bound_belongs_to_its_bucket_and_what_is_longer_than_all_to_none() -> None:
    histogram = Histogram().with_value(0.001).with_value(1000)
    assert histogram.counts == (1,) * len(BOUNDS_SEC)
    assert histogram.count == 2


def test_there_are_only_so_many_names_of_units() -> None:
    store = FakeStore([figures(number, f"unit-{number}.service") for number in range(1, 3 * UNITS_MAX)])
    counted = Tally(store).read().decisions
    assert len(counted) == UNITS_MAX + 1
    assert counted[Key(OTHER, "kill", "core", "freed")] == 2 * UNITS_MAX - 1
    scopes = FakeStore([figures(number, f"app-firefox-{number}.scope") for number in range(1, 500)])
    assert list(Tally(scopes).read().decisions) == [Key("app-firefox-N.scope", "kill", "core", "freed")]


def test_a_real_store_has_what_is_counted(tmp_path: Path) -> None:
    with DecisionStore(tmp_path / "decisions.sqlite", 2) as store:
        tally = Tally(store)
        assert tally.read().decisions == {}
        for number in range(1, 6):
            store.add(dataclasses.replace(DECISION, id=f"a-{number}", realtime_usec=number))
        # Two are kept; who asked in time has counted the others.
        assert sum(tally.read().decisions.values()) == 2
        store.add(dataclasses.replace(DECISION, id="a-6", realtime_usec=6, victim="", outcome="no-candidate"))
        read = tally.read()
        assert read.decisions == {
            Key("hog.service", "kill", "core", "freed"): 2,
            Key("", "kill", "core", "no-candidate"): 1,
        }
        assert read.latencies["trigger_to_signal"].sum_sec == pytest.approx(3 * 0.0009)
        for number, data in enumerate(("no JSON", "[1]", '{"victim": 5, "trigger_usec": "x"}', "[" * 100_000)):
            store._run(
                lambda connection, values=(f"bad-{number}", data): connection.execute(
                    "INSERT INTO decisions (id, realtime_usec, data) VALUES (?, 7, ?)", values
                )
            )
        assert tally.read().decisions == {**read.decisions, Key("", "", "", ""): 3, Key("5", "", "", ""): 1}


def test_a_store_that_fails_is_asked_again() -> None:
    store = FakeStore([figures(1)])
    tally = Tally(store)

    def broken(after: int, limit: int) -> list[Figures]:
        raise StoreError("disk full")

    good, store.figures = store.figures, broken  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        tally.read()
    store.figures = good  # type: ignore[method-assign]
    assert sum(tally.read().decisions.values()) == 1
