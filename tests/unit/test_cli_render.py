# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each verb of oomslicectl makes of the answers it gets."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import fields, replace
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomslice.cli import answers, decisions, explain, show, slices, standing, status
from oomslice.cli.standing import standings
from oomslice.cli.text import Terminal, display_width
from oomslice.decisions.planned import PLANNED
from oomslice.decisions.record import Candidate, Decision, StepTaken

MIB = 1024**2
START = 1_763_719_200_500_000  # 2025-11-21 10:00:00.500 UTC
TERMINAL = Terminal(now_usec=START + 65_000_000, timezone=UTC, boot_id="b" * 32)
NARROW = Terminal(width=80, now_usec=START, timezone=UTC)

DECISION = Decision(
    id="5f3a09c2e4b1d786-4",
    boot_id="b" * 32,
    carrier="core",
    trigger="memory-available",
    domain="-.slice",
    outcome="freed",
    realtime_usec=START,
    trigger_usec=7_000_000,
    decision_usec=7_000_400,
    signal_usec=7_000_900,
    death_usec=7_012_300,
    memory_back_usec=7_040_000,
    victim="hog.service",
    victim_cgroup_id=11,
    victim_priority=-200,
    victim_memory_before=300 * MIB,
    victim_memory_after=0,
    bytes_freed=299 * MIB,
    processes=80,
    pids=tuple(range(1000, 1064)),
    reaped=64,
    memory_total=1024 * MIB,
    memory_available=40 * MIB,
    memory_available_limit=41 * MIB,
    memory_available_after=345 * MIB,
    pressure_some_avg10=1.25,
    plan_generation=17,
    candidates=(
        Candidate("hog.service", 11, -200, 300 * MIB, "chosen"),
        Candidate("database.service", 12, 100, 600 * MIB, "eligible"),
        Candidate("sshd.service", 13, 0, 5 * MIB, "protected"),
    ),
    candidates_total=30,
)


def shown(decision: Decision, terminal: Terminal = TERMINAL) -> str:
    """As `show` prints it, by way of what the bus sends."""
    values = decision.to_dict()
    values["candidates"] = [tuple(candidate.values()) for candidate in values["candidates"]]
    return show.render(answers.decision(values), terminal)


def changed(**values: Any) -> Decision:
    """DECISION with other values."""
    return Decision.from_dict({**DECISION.to_dict(), **values})


def test_show_marks_the_choice_among_the_candidates() -> None:
    lines = [line for line in shown(DECISION).splitlines() if ".service" in line]
    marked = [line for line in lines if line.startswith("→")]
    assert len(marked) == 1
    assert marked[0].split() == ["→", "hog.service", "-200", "300", "MiB", "chosen"]
    assert any("database.service" in line and "eligible" in line for line in lines)
    assert "and 27 more" in shown(DECISION)


def test_show_says_of_the_plans_candidates_no_more_than_the_plan_knew() -> None:
    listed = (
        Candidate("hog.service", 11, -200, 300 * MIB, "chosen"),
        Candidate("database.service", 12, 100, 0, "planned"),
        Candidate("sshd.service", 13, 0, 0, "protected"),
    )
    text = shown(replace(DECISION, carrier="bpf", candidates=listed, extra={"candidates_from": "plan"}))
    marked = next(line for line in text.splitlines() if line.startswith("→"))
    assert marked.split() == ["→", "hog.service", "-200", "300", "MiB", "chosen"]
    other = next(line for line in text.splitlines() if "database.service" in line)
    assert other.split() == ["database.service", "100", "-", "may", "be", "chosen", "by", "the", "plan"]
    assert "not as the program in the kernel saw them" in text and "Of all, 30 could be chosen." in text
    assert "which ranked behind these" not in text
    unknown = shown(changed(carrier="bpf", candidates=()))
    assert "Candidates are not known: 30 units could be chosen" in unknown


def test_show_says_trigger_domain_figures_step_and_outcome() -> None:
    text = shown(DECISION)
    assert "memory-available (little memory available)" in text
    assert "-.slice (the machine)" in text
    assert "40 MiB of 1 GiB available, limit 41 MiB" in text
    assert "Swap: none" in text
    assert "some avg10 1.25 %" in text
    assert "kill, 80 processes (pid 1000, 1001" in text
    assert "memory of 64 taken back by process_mrelease" in text
    assert "freed: the victim is dead and its memory is back" in text
    assert "40 MiB before, 345 MiB after" in text
    assert "1 min ago" in text


def test_the_time_line_has_differences_in_milliseconds() -> None:
    rows = [line.split() for line in shown(DECISION).splitlines()[-5:]]
    assert rows == [
        ["trigger", "10:00:00.500", "0.0", "ms", "-"],
        ["decision", "10:00:00.500", "0.4", "ms", "0.4", "ms"],
        ["signal", "10:00:00.500", "0.9", "ms", "0.5", "ms"],
        ["death", "10:00:00.512", "12.3", "ms", "11.4", "ms"],
        ["memory", "back", "10:00:00.540", "40.0", "ms", "27.7", "ms"],
    ]


def test_what_did_not_happen_has_no_time() -> None:
    text = shown(changed(outcome="deadline", death_usec=0, memory_back_usec=0))
    assert text.splitlines()[-1].split() == ["memory", "back", "-", "-", "-"]
    assert "not back by the deadline" in text


LADDER = dataclasses.replace(
    DECISION,
    outcome="relieved",
    step="freeze",
    steps=(
        StepTaken("warn", "done", "", 0, 0, 7_000_500, 7_000_600, 300 * MIB, 300 * MIB),
        StepTaken("purge", "failed", "/run/cache", 0, 2, 7_001_000, 7_002_000, 300 * MIB, 300 * MIB),
        StepTaken("reclaim", "late", "", 64 * MIB, 0, 7_002_000, 9_002_000, 300 * MIB, 280 * MIB),
        StepTaken("throttle", "done", "", 210 * MIB, 0, 9_500_000, 9_500_100, 280 * MIB, 280 * MIB, 22_500_000),
        StepTaken("freeze", "done", "", 0, 0, 10_000_000, 10_000_010, 280 * MIB, 280 * MIB),
    ),
)


def test_show_has_a_line_for_each_step_with_effect_and_times() -> None:
    lines = shown(LADDER).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("STEP  "))
    rows = [re.split("  +", line.strip()) for line in lines[head : head + 6]]
    assert rows == [
        ["STEP", "BEGUN AFTER", "TOOK", "MEMORY", "LESS", "RESULT", "UNDONE"],
        ["warn", "0.5 ms", "0.1 ms", "300 MiB", "0 B", "done", "-"],
        ["purge:/run/cache", "1.0 ms", "1.0 ms", "300 MiB", "0 B", "failed: No such file or directory", "-"],
        ["reclaim of 64 MiB", "2.0 ms", "2.0 s", "300 MiB", "20 MiB", "late", "-"],
        ["throttle to 210 MiB", "2.5 s", "0.1 ms", "280 MiB", "0 B", "done", "after 13.0 s"],
        ["freeze", "3.0 s", "0.0 ms", "280 MiB", "0 B", "done", "still in force"],
    ]
    assert "relieved: the shortage was over before the end of the ladder" in shown(LADDER)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"outcome": "freed"}, "ended with the unit"),
        ({"outcome": "held"}, "still in force"),
        ({"boot_id": "a" * 32}, "ended with that boot"),
        ({"steps": (dataclasses.replace(LADDER.steps[4], undo_error=5),)}, "still in force (Input/output error)"),
        ({"steps": (dataclasses.replace(LADDER.steps[4], result="unavailable"),)}, " unavailable "),
    ],
)
def test_show_says_whether_a_step_is_still_in_force(values: dict[str, Any], text: str) -> None:
    assert text in shown(dataclasses.replace(LADDER, **values))


def test_a_narrow_terminal_keeps_what_the_steps_have_brought() -> None:
    lines = shown(LADDER, NARROW).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("STEP  "))
    assert all(display_width(line) <= 80 for line in lines[head : head + 6])
    assert "still in force" in lines[head + 5] and "20 MiB" in lines[head + 3]
    assert "purge:/run/cache" in lines[head + 2]


def test_a_kill_alone_needs_no_table_of_steps() -> None:
    assert "BEGUN AFTER" not in shown(dataclasses.replace(DECISION, steps=(StepTaken("kill", "done"),)))
    assert "BEGUN AFTER" not in shown(DECISION)


def test_show_says_scope_and_what_was_unusual() -> None:
    text = shown(dataclasses.replace(DECISION, kill_scope="subtree", flags=("restarting", "watchdog")))
    assert "Kill scope: subtree (with all units below it)" in text
    assert "came back again and again" in text and "the watchdog acted" in text
    assert "Kill scope" not in shown(DECISION)


def test_a_pressure_trigger_is_shown_as_it_was_written() -> None:
    text = shown(changed(trigger="pressure", pressure="some 150ms/1s", domain="batch.slice"))
    assert "PressureTrigger=some 150ms/1s fired" in text
    assert "(the machine)" not in text


def test_a_dry_run_says_that_nothing_was_done() -> None:
    text = shown(changed(outcome="dry-run", signal_usec=0, death_usec=0, memory_back_usec=0))
    assert "none; would have been: kill" in text
    assert "nothing was done" in text


def test_an_error_is_said_in_words() -> None:
    assert "Operation not permitted" in shown(changed(outcome="failed", error=1))


def test_another_boot_is_said() -> None:
    assert "earlier boot" not in shown(DECISION)
    assert "in an earlier boot" in shown(changed(boot_id="a" * 32))


def test_a_kernel_kill_is_not_shown_as_ours() -> None:
    kernel = Decision(
        id="5f3a-k3",
        boot_id="b" * 32,
        carrier="kernel",
        trigger="kernel-oom",
        domain="-.slice",
        outcome="killed-by-kernel",
        realtime_usec=START,
        trigger_usec=5,
        decision_usec=5,
        signal_usec=5,
        victim="database.service",
        pids=(4321,),
        processes=1,
        bytes_freed=3 * MIB,
        extra={"source": "kernel-log", "task": "postgres", "constraint": "CONSTRAINT_MEMCG", "oom_memcg": "/db.slice"},
    )
    text = shown(kernel)
    assert "kernel (the kernel decided by itself)" in text
    assert "the kernel's own OOM killer acted" in text
    assert "Candidates are not known" in text
    assert "Process: postgres" in text
    assert "the memory limit of a cgroup, /db.slice" in text
    assert "Known from: the kernel log" in text
    assert "3 MiB" in text
    assert "SINCE TRIGGER" not in text
    assert "priority" not in text.split("Choice:")[1].splitlines()[0]
    assert "By the plan" not in text
    text = shown(replace(kernel, agreement="against-plan", planned_victim="batch.service", victim_priority=7))
    assert "Choice: database.service, priority 7" in text
    assert "By the plan: against the plan: batch.service was to go first" in text
    text = shown(replace(kernel, agreement="as-planned"))
    assert "By the plan: as planned, nobody of a smaller priority lived" in text


def test_a_victim_that_a_bpf_policy_wanted_is_shown_as_such() -> None:
    assert "BPF policy" not in shown(changed(carrier="bpf"))
    assert "Policy: your BPF policy wanted it first" in shown(changed(carrier="bpf", extra={"policy": "kill"}))


def test_show_needs_no_field_but_survives_all_missing() -> None:
    assert "Outcome" in show.render({}, TERMINAL)


TEXT = st.text(max_size=30)
NUMBER = st.integers(min_value=0, max_value=2**64 - 1)
CANDIDATES = st.lists(st.tuples(TEXT, NUMBER, st.integers(-1000, 1000), NUMBER, TEXT), max_size=5)
STEPS_TAKEN = st.lists(
    st.fixed_dictionaries(
        {
            "step": TEXT | st.sampled_from(["kill", "freeze", "throttle", "reclaim", "purge"]),
            "result": TEXT | st.sampled_from(["done", "failed"]),
            "argument": TEXT,
            "error": st.integers(0, 2**31 - 1),
            "undo_error": st.integers(0, 2**31 - 1),
            **dict.fromkeys(
                ("amount", "begin_usec", "end_usec", "memory_before", "memory_after", "undone_usec"), NUMBER
            ),
        }
    ),
    max_size=12,
)


@given(
    values=st.fixed_dictionaries(
        {
            field.name: TEXT if field.type == "str" else NUMBER
            for field in fields(Decision)
            if field.type in ("str", "int")
        }
        | {"error": st.integers(0, 2**31 - 1), "pids": st.lists(st.integers(1, 2**31 - 1)), "candidates": CANDIDATES}
        | {"steps": STEPS_TAKEN, "flags": st.lists(TEXT)}
    )
)
def test_no_record_breaks_show_or_the_terminal(values: dict[str, Any]) -> None:
    text = show.render(answers.decision(values), NARROW)
    assert "\x1b" not in text
    assert all(line.isprintable() for line in text.split("\n"))


DOMAINS = [
    (
        "-.slice",
        [
            ("hog.service", -200, 300 * MIB, "chosen", "own", "lowest priority"),
            ("database.service", 100, 600 * MIB, "eligible", "inherited from high.slice", "higher priority"),
            ("sshd.service", 0, 5 * MIB, "protected", "rule ssh*.service", "Protect=yes"),
            ("system.slice", 0, 0, "container", "default", "holds other units"),
        ],
    ),
    ("empty.slice", []),
]


def test_explain_names_the_choice_and_a_reason_for_each() -> None:
    text = explain.render(answers.explanation(DOMAINS), TERMINAL)
    assert "-.slice (the machine): hog.service would be chosen, with priority -200, ranked by memory." in text
    assert "empty.slice: nobody may be chosen." in text
    chosen = next(line for line in text.splitlines() if "lowest priority" in line)
    assert chosen.split()[:5] == ["→", "hog.service", "-200", "300", "MiB"]
    assert "inherited from high.slice" in text
    assert "system.slice" not in text
    assert "1 unit without a say" in text
    assert "holds other units" in explain.render(answers.explanation(DOMAINS), TERMINAL, everything=True)


def test_explain_says_what_would_be_done_to_the_choice() -> None:
    domains = answers.explanation(DOMAINS)
    assert "What would be done" not in explain.render(domains, TERMINAL)
    domains[0] |= {"actions": "warn freeze@2s", "actions_origin": "inherited from low.slice", "kill_scope": "subtree"}
    text = explain.render(domains, TERMINAL)
    assert "What would be done: warn freeze@2s (inherited from low.slice)." in text
    assert "It would be taken as a whole." in text
    domains[0] |= {"actions": "kill", "actions_origin": "default", "kill_scope": "process"}
    text = explain.render(domains, TERMINAL)
    assert "What would be done" not in text and "Only its largest process would be killed." in text


def test_explain_of_a_unit_says_as_which_it_would_be_chosen_and_who_goes_before_it() -> None:
    domains = answers.explanation(DOMAINS)
    first, second = standings(domains, "hog.service")[0], standings(domains, "database.service")[0]
    assert (first["place"], first["places"], first["before"]) == (1, 2, [])
    assert (second["place"], [one["name"] for one in second["before"]]) == (2, ["hog.service"])
    text = standing.render([first], {}, TERMINAL)
    assert "-.slice (the machine): hog.service would be chosen." in text and "go before" not in text
    settings = {"Actions": "warn kill@2s", "ActionsOrigin": "default", "KillScope": "process", "DryRun": True}
    text = standing.render([second], settings, TERMINAL)
    assert "database.service would be number 2 of 2 to be chosen." in text
    assert "Why: higher priority" in text
    assert "Priority: 100  (inherited from high.slice)" in text and "Memory: 600 MiB" in text
    assert "Actions: warn kill@2s  (default)" in text
    assert "only its largest process is killed" in text and "nothing done" in text
    assert "1 unit would go before it:" in text and "hog.service" in text
    assert "With a priority of -201 it would go first." in text


def test_explain_of_a_unit_that_is_spared_says_why() -> None:
    domains = answers.explanation(DOMAINS)
    (spared,) = standings(domains, "sshd.service")
    assert spared["place"] == 0 and spared["before"] == []
    text = standing.render([spared], {"Actions": "kill"}, TERMINAL)
    assert "sshd.service would not be chosen." in text and "Why not: Protect=yes" in text
    assert "Actions" not in text
    assert standings(domains, "nginx.service") == []


def test_explain_of_a_unit_shortens_the_list_of_those_before_it() -> None:
    rows = [(f"u{number}.service", -1000, 9 - number, "eligible", "own", "") for number in range(20)]
    (last,) = standings(answers.explanation([("-.slice", rows)]), "u19.service")
    assert last["place"] == 20 and len(last["before"]) == 19
    text = standing.render([last], {}, TERMINAL)
    assert "u7.service" in text and "u8.service" not in text and "and 11 more." in text
    # There is no smaller one.
    assert "it would go first" not in text


def test_explain_shows_pages_for_refaults() -> None:
    domains = answers.explanation([("a.slice", [("b.service", 0, 512, "chosen", "own", "most refaults")])])
    domains[0]["rank_by"] = "refault"
    text = explain.render(domains, TERMINAL)
    assert "512 pages" in text
    assert "REFAULTS" in text


UNITS = [
    ("-.slice", "/", 0, False, False, "default", "kill"),
    ("low.slice", "/low.slice", -200, False, False, "own", "warn kill@2s"),
    ("hog.service", "/low.slice/hog.service", -200, False, True, "inherited from low.slice", "warn kill@2s"),
    ("system.slice", "/system.slice", 0, False, False, "default", "kill"),
    ("sshd.service", "/system.slice/sshd.service", 0, True, True, "rule ssh*.service", ""),
    ("stray.scope", "/gone.slice/stray.scope", 5, False, True, "own", "kill"),
]


def test_slices_are_a_tree_by_cgroup() -> None:
    text = slices.render(answers.slices(UNITS), TERMINAL)
    names = [line.split("  ")[0] for line in text.splitlines()[1:7]]
    assert names == [
        "-.slice",
        "├─low.slice",
        "│ └─hog.service",
        "├─system.slice",
        "│ └─sshd.service",
        "└─stray.scope",
    ]
    assert "6 units, 2 of them can be chosen" in text


def test_slices_say_the_ladder_of_each_unit_that_has_one() -> None:
    lines = slices.render(answers.slices(UNITS), TERMINAL).splitlines()
    assert lines[0].split()[-1] == "ACTIONS"
    assert lines[3].endswith("inherited from low.slice  warn kill@2s")
    assert lines[5].endswith("  -"), "it goes with another"


def test_the_tree_is_ascii_where_the_locale_is() -> None:
    text = slices.render(answers.slices(UNITS), Terminal(unicode=False))
    assert text.isascii()
    assert "| `-hog.service" in text


@given(st.lists(st.tuples(TEXT, st.text(alphabet="/ab", max_size=8), NUMBER, st.booleans(), st.booleans(), TEXT, TEXT)))
def test_every_unit_stands_in_the_tree_once_whatever_the_paths(rows: list[tuple[Any, ...]]) -> None:
    units = answers.slices(rows)
    placed = [unit for unit, _ in slices.tree(units, TERMINAL)]
    assert sorted(map(id, placed)) == sorted(map(id, units))


def test_one_unit_is_shown_with_where_its_settings_were_written() -> None:
    text = slices.render_unit(
        {"Name": "a.service", "Priority": -5, "Protect": True, "Tier": "", "Sources": {"Priority": "/etc/a.conf:3"}},
        TERMINAL,
    )
    assert "Priority: -5  (/etc/a.conf:3)" in text
    assert "Protect: yes" in text
    assert "Tier" not in text


LISTED = [
    ("5f3a09c2e4b1d786-4", START, "-.slice", "memory-available", "hog.service", "freed"),
    ("5f3a09c2e4b1d786-3", START - 86_400_000_000, "-.slice", "thrash", "", "no-candidate"),
]


def test_decisions_have_local_and_relative_times() -> None:
    lines = decisions.render(answers.decisions(LISTED), TERMINAL).splitlines()
    assert lines[0].split() == ["ID", "TIME", "AGO", "DOMAIN", "TRIGGER", "VICTIM", "OUTCOME"]
    assert "2025-11-21 10:00:00 UTC" in lines[1]
    assert "1 min ago" in lines[1]
    assert lines[2].split()[-2:] == ["-", "no-candidate"]
    assert lines[-1] == "2 decisions."


def test_a_narrow_terminal_keeps_the_id_whole() -> None:
    lines = decisions.render(answers.decisions(LISTED), NARROW, legend=False).splitlines()
    assert all(display_width(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines] == ["5f3a09c2e4b1d786-4", "5f3a09c2e4b1d786-3"]


def test_no_decision_is_said() -> None:
    assert decisions.render([], TERMINAL) == "No decisions so far."
    assert decisions.render([], TERMINAL, since_usec=START) == "No decisions since 2025-11-21 10:00:00 UTC."
    assert decisions.render([], TERMINAL, legend=False) == ""


def test_a_full_page_says_that_there_may_be_more() -> None:
    assert "--limit 20" in decisions.render(answers.decisions(LISTED), TERMINAL, limit=2)


STATE = {
    "Armed": True,
    "CoreConnected": True,
    "CoreFeatures": ["locked"],
    "CoreFeaturesMissing": ["mrelease", "new-one"],
    "CoreLockedBytes": 1153434,
    "ReserveBytes": 4 << 20,
    "CoreWakeups": 12,
    "CoreDecisions": 1,
    "CoreDecisionsDropped": 0,
    "Watching": False,
    "PlanGeneration": 17,
    "PlanError": "",
    "Units": 50,
    "Candidates": 40,
    "Domains": ["-.slice", "batch.slice"],
    "OtherDaemons": ["systemd-oomd.service"],
    "LeftToSystemdOomd": ["user@1000.service"],
}
CARRIERS = [
    {"Name": "core", "Active": True, "Acts": True, "Detail": "armed", "Hits": 3, "Missed": 0, "LastError": ""},
    {
        "Name": "kernel",
        "Active": False,
        "Acts": False,
        "Detail": "kills are recorded",
        "Hits": 12,
        "Missed": 1,
        "LastError": "log\x1b closed",
    },
]


def rendered_status(errors: list[tuple[Any, ...]] | None = None, **state: Any) -> str:
    return status.render(
        {
            "version": "0.1.0",
            "state": {**STATE, **state},
            "carriers": CARRIERS,
            "configuration_errors": answers.problems(errors or []),
        },
        TERMINAL,
    )


def test_status_says_what_is_in_force() -> None:
    text = rendered_status()
    assert text.startswith("● oomslice 0.1.0: armed")
    assert "generation 17 in force; 50 units, 40 candidates" in text
    assert "1.1 MiB locked and 4 MiB in reserve" in text
    assert "-.slice (the machine), batch.slice" in text
    assert "no problems" in text


def test_status_has_a_table_of_carriers_that_lines_up() -> None:
    assert rendered_status().splitlines()[-3:] == [
        "CARRIER  ACTIVE  ACTS  HITS  MISSED  DETAIL",
        "core     yes     yes      3       0  armed",
        "kernel   no      no      12       1  kills are recorded; last error: log\\x1b closed",
    ]


def test_status_says_what_a_missing_feature_means() -> None:
    text = rendered_status()
    assert "mrelease: no process_mrelease" in text
    assert "new-one" in text


def test_status_names_other_killers() -> None:
    assert "systemd-oomd.service runs too; 1 unit marked for systemd-oomd is left to it" in rendered_status()
    assert "may act first" in rendered_status(OtherDaemons=["earlyoom.service"])
    assert "Other killers" not in rendered_status(OtherDaemons=[])


def test_status_without_a_core_says_so_first() -> None:
    text = rendered_status(Armed=False, CoreConnected=False, PlanGeneration=0, PlanError="checksum")
    assert "NOT ARMED" in text.splitlines()[0]
    assert "systemctl start oomslice-core.service" in text
    assert "not in force: checksum" in text


def test_status_lists_configuration_errors_as_verify_does() -> None:
    text = rendered_status([("/etc/x.conf", 3, "Priority", "9999", "out of range"), ("/etc/y.yaml", 0, "", "", "odd")])
    assert "2 problems:" in text
    assert "  /etc/x.conf:3: Priority=9999: out of range" in text
    assert "  /etc/y.yaml: odd" in text


def test_every_feature_of_the_core_is_explained() -> None:
    channel = pytest.importorskip("oomslice.plan.channel", reason="oomslice._core is not built")
    assert set(status.FEATURES) == set(channel.FEATURES)


def test_every_verdict_and_outcome_of_the_core_has_words() -> None:
    core = pytest.importorskip("oomslice._core", reason="oomslice._core is not built")
    verdicts = {core.ffi.string(core.lib.oomslice_verdict_text(number)).decode() for number in range(10)}
    assert set(show.VERDICTS) == verdicts | {PLANNED}
