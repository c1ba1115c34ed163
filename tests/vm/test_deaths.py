# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice's own processes die at the worst moments.

The right one dies all the same, and no decision is lost or doubled.
"""

from __future__ import annotations

import time

import pytest

from .lab import Lab

NO_RESTART = "/run/systemd/system/oomsliced.service.d/90-test.conf"


def journal_entries(lab: Lab, id: str) -> int:
    """How many entries the journal has of a decision; what oomslice-actions says again, for the unit, is no other."""
    entries = f"journalctl -b --no-pager -o cat OOMSLICE_DECISION={id} _SYSTEMD_UNIT=oomsliced.service"
    return int(lab.machine.check(f"{entries} | wc -l"))


def test_daemon_killed_before_the_shortage_and_kept_away_until_after_it(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-100")
    lab.write(NO_RESTART, "[Service]\nRestart=no\n")
    lab.daemon_reload()
    lab.start_service("kept", 150)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    lab.machine.check("systemctl kill -s KILL oomsliced.service")
    lab.machine.wait_for("oomsliced is dead", lambda: not lab.machine.active("oomsliced.service"), 20)
    lab.go()
    lab.wait_until_dead("hog")
    assert not lab.machine.active("oomsliced.service")
    lab.machine.check(f"rm {NO_RESTART}; systemctl daemon-reload; systemctl start oomsliced.service", timeout=180)
    decision = lab.assert_killed("hog")
    assert lab.lives("kept")
    assert lab.victims() == ["hog.service"]
    assert journal_entries(lab, decision["id"]) == 1


def test_daemon_killed_again_and_again_during_the_shortage(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", 150)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    lab.go()
    lab.machine.check(
        "while systemctl is-active --quiet hog.service; do"
        " systemctl kill -s KILL oomsliced.service 2>/dev/null; sleep 0.7; done",
        timeout=180,
    )
    lab.machine.wait_for("oomslice is back", lab.armed, 180, 1)
    decision = lab.assert_killed("hog")
    assert lab.lives("kept")
    assert lab.victims() == ["hog.service"]
    assert journal_entries(lab, decision["id"]) == 1


def test_daemon_killed_right_after_the_kill(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", 150)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    pid = lab.machine.main_pid("hog.service")
    daemon = lab.machine.main_pid("oomsliced.service")
    lab.go()
    lab.machine.check(f"while [ -e /proc/{pid}/stat ]; do sleep 0.02; done; kill -KILL {daemon}", timeout=180)
    lab.machine.wait_for("oomslice is back", lab.armed, 180, 1)
    lab.assert_killed("hog")
    assert lab.lives("kept")
    assert lab.victims() == ["hog.service"]


@pytest.mark.both_kernels
def test_core_that_was_killed_comes_back_with_its_plan_and_acts_on_it(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", 150)
    lab.start_hog("hog", wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    # The daemon stands still: the plan can only come from the descriptor store.
    daemon = lab.machine.main_pid("oomsliced.service")
    core = lab.machine.main_pid("oomslice-core.service")
    killed = float(lab.machine.check(f"kill -STOP {daemon}; cut -d' ' -f1 /proc/uptime; kill -KILL {core}"))
    lab.machine.wait_for(
        "the core is back",
        lambda: (
            lab.machine.main_pid("oomslice-core.service") not in (0, core)
            and lab.machine.active("oomslice-core.service")
        ),
        30,
        0.2,
    )
    # Ready is what it says once the stored plan is in force and its triggers are armed.
    ready = lab.machine.properties("oomslice-core.service", "ActiveEnterTimestampMonotonic", "NRestarts")
    print(f"the core was ready {int(ready['ActiveEnterTimestampMonotonic']) / 1e6 - killed:.2f} s after it was killed")
    assert int(ready["NRestarts"]) > 0
    lab.go()
    lab.wait_until_dead("hog")
    assert lab.lives("kept")
    lab.machine.check(f"kill -CONT {daemon}")
    lab.assert_killed("hog")


def test_core_killed_during_the_shortage_still_saves_the_right_one(lab: Lab) -> None:
    lab.drop_in("hog.service", "Priority=-100")
    lab.start_service("kept", 150)
    lab.start_hog("hog", rate=40, wait_for="go")
    lab.wait_planned(hog=-100, kept=0)
    lab.go()
    time.sleep(3)
    lab.machine.check(f"kill -KILL {lab.machine.main_pid('oomslice-core.service')}")
    lab.wait_until_dead("hog")
    lab.machine.wait_for("oomslice is back", lab.armed, 180, 1)
    lab.assert_killed("hog")
    assert lab.lives("kept")
