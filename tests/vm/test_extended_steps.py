# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps that oomslice-core cannot do itself: warn, start, purge, checkpoint, and the unit of OnDecision=.

With the whole chain as it is installed: core, oomsliced, oomslice-actions.service in its sandbox, systemd, criu. Each
scenario has a victim of its own name: one that comes back again and again has no ladder.
"""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from .lab import HOG, SERVICE, Lab

DUMPS = "/var/lib/oomslice-checkpoints"
CRIU = "/usr/sbin/criu"
WAITS = "until [ -e /run/oomtest/go ]; do sleep 0.2; done"


def jail(lab: Lab, actions: str, *settings: str) -> None:
    """A slice that stalls above its limit and handles that itself, with the ladder of whatever is in it."""
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\nMemoryHigh=100M\nMemorySwapMax=0\n")
    lab.drop_in("jail.slice", "\n".join(["PressureTrigger=some 100ms/1s", f"Actions={actions}", *settings]))
    lab.daemon_reload()


def steps(decision: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Name -> result and errno of each step."""
    return {step["step"]: (step["result"], step["error"]) for step in decision["steps"]}


def plan_and_go(lab: Lab, unit: str) -> None:
    lab.wait_planned(**{unit: 0})
    lab.go()


def write_unit(lab: Lab, name: str, command: str, more: str = "") -> None:
    """A oneshot service that a step or OnDecision= starts."""
    lab.write(f"/etc/systemd/system/{name}", f"[Service]\nType=oneshot\n{more}\nExecStart=/bin/sh -c '{command}'\n")


def test_a_ladder_warns_starts_and_purges_before_it_kills(lab: Lab) -> None:
    write_unit(lab, "notice@.service", "echo %i >/run/oomtest/noticed")
    jail(lab, "warn start:notice@jail.service@4s purge:/run/oomtest/cache@8s kill@12s")
    lab.machine.check(
        "mkdir -p /run/oomtest/cache/below; mkfifo /run/oomtest/pressure;"
        " head -c 8M /dev/zero >/run/oomtest/cache/below/old; head -c 8M /dev/zero >/run/oomtest/cache/open;"
        " ln -s /etc/hostname /run/oomtest/cache/link"
    )
    lab.start(
        "monitor", "busctl monitor --json=short --match type=signal,member=Warning", StandardOutput="file:/run/heard"
    )
    lab.start("holder", "sh -c 'exec 3</run/oomtest/cache/open; exec sleep 1000'")
    lab.start(
        "warned",
        f"/bin/sh -c 'exec 3<>/run/oomtest/pressure; head -c 1 <&3 >/run/oomtest/told & {WAITS}; exec {HOG} 60 160'",
        slice="jail.slice",
        Environment="MEMORY_PRESSURE_WATCH=/run/oomtest/pressure",
        MemoryPressureWatch="skip",
    )
    plan_and_go(lab, "warned")
    lab.wait_until_dead("warned")
    decision = lab.decision_about("warned")
    assert decision["outcome"] == "freed", decision
    assert steps(decision) == {"warn": ("done", 0), "start": ("done", 0), "purge": ("done", 0), "kill": ("done", 0)}

    heard = [json.loads(line) for line in lab.machine.check("cat /run/heard").splitlines()]
    (warning,) = [signal for signal in heard if signal.get("member") == "Warning"]
    id, unit, domain, deadline = warning["payload"]["data"]
    assert (id, unit, domain) == (decision["id"], "warned.service", "jail.slice")
    assert decision["trigger_usec"] < deadline <= decision["signal_usec"]
    assert lab.machine.check("cat /run/oomtest/told") == "1"
    assert lab.machine.check("cat /run/oomtest/noticed").strip() == "jail"
    assert lab.machine.check("find /run/oomtest/cache -mindepth 1 | sort").split() == [
        "/run/oomtest/cache/below", "/run/oomtest/cache/link", "/run/oomtest/cache/open",
    ]  # fmt: skip
    assert lab.kernel_killed() == 0
    # It does this with what its unit leaves it, and nothing of it was refused.
    said = lab.machine.check("journalctl -b --no-pager -u oomslice-actions.service -u oomsliced.service")
    for word in ("Operation not permitted", "Permission denied", "Traceback", "Error:"):
        assert word not in said, said


def test_checkpoint_frees_the_memory_and_restore_brings_the_processes_back(lab: Lab) -> None:
    checked = lab.machine.run("criu check")
    if checked.rc != 0:
        pytest.skip(f"this criu cannot do its work with this kernel: {checked.out.strip()}")
    jail(lab, "checkpoint kill@100s")
    lab.start("dumped", f"/bin/sh -c '{WAITS}; exec {SERVICE} 160 /run/oomtest/dumped'", slice="jail.slice")
    pid = lab.machine.main_pid("dumped.service")
    plan_and_go(lab, "dumped")
    lab.wait_until_dead("dumped", timeout=200)
    decision = lab.decision_about("dumped")
    assert steps(decision) == {"checkpoint": ("done", 0)}, lab.machine.run(f"cat {DUMPS}/*/criu.log").out
    assert decision["outcome"] == "freed", decision
    assert decision["id"] in lab.machine.check(f"ls {DUMPS}").split()
    assert lab.machine.check(f"stat -c '%U %a' {DUMPS}").split() == ["root", "700"]

    # There has to be room for it, or it is the next victim.
    lab.write("/etc/systemd/system/jail.slice", "[Slice]\n")
    lab.drop_in("jail.slice", "Priority=0")
    lab.daemon_reload()
    lab.adopt("dumped-restored.service")
    refused = lab.machine.run(f"runuser -u tester -- oomslicectl restore {decision['id']}")
    assert refused.rc == 4, refused.out
    restored = json.loads(lab.machine.check(f"oomslicectl restore --json {decision['id']}", timeout=120))
    assert restored["unit"] == "dumped-restored.service"
    assert lab.machine.main_pid("dumped-restored.service") == pid == restored["pid"]
    lab.machine.wait_for(
        "it fills the rest of its memory, and counts then",
        lambda: lab.machine.check("cat /run/oomtest/dumped").split(),
        60,
    )
    group = lab.machine.properties("dumped-restored.service", "ControlGroup")["ControlGroup"]
    assert group == "/jail.slice/dumped-restored.service"
    again = lab.machine.run(f"oomslicectl restore {decision['id']}")
    lab.machine.check(f"rm -r {DUMPS}/{decision['id']}")
    assert again.rc == 1 and "runs already, as dumped-restored.service" in again.out


def test_a_dump_that_takes_too_long_is_ended_and_the_kill_follows(lab: Lab) -> None:
    lab.machine.put("/root/slow-criu", "#!/bin/sh\nexec sleep 1000\n", mode=0o755)
    lab.machine.check(f"mount --bind /root/slow-criu {CRIU}")
    try:
        jail(lab, "checkpoint kill@5s")
        lab.start_hog("overdue", rate=60, max_mb=160, slice="jail.slice", wait_for="go")
        plan_and_go(lab, "overdue")
        lab.wait_until_dead("overdue")
        decision = lab.decision_about("overdue")
        assert decision["outcome"] == "freed", decision
        assert steps(decision)["checkpoint"][0] == "late"
        assert steps(decision)["kill"] == ("done", 0)
        lab.machine.wait_for(
            "nothing is left of the dump", lambda: decision["id"] not in lab.machine.check(f"ls {DUMPS}"), 30
        )
        assert lab.machine.check("systemctl list-units --all --no-legend 'oomslice-checkpoint*'") == ""
    finally:
        lab.machine.run(f"umount {CRIU}")


def test_without_criu_a_checkpoint_is_unavailable_at_once(lab: Lab) -> None:
    lab.machine.check(f"mount --bind /dev/null {CRIU}")
    try:
        jail(lab, "checkpoint kill@4s")
        lab.start_hog("lacking", rate=60, max_mb=160, slice="jail.slice", wait_for="go")
        plan_and_go(lab, "lacking")
        lab.wait_until_dead("lacking")
        decision = lab.decision_about("lacking")
        assert steps(decision) == {"checkpoint": ("unavailable", errno.ENOENT), "kill": ("done", 0)}
    finally:
        lab.machine.run(f"umount {CRIU}")


def test_without_the_service_a_step_is_unavailable_at_once_and_the_kill_follows(lab: Lab) -> None:
    lab.machine.check("systemctl stop oomslice-actions.socket oomslice-actions.service")
    try:
        write_unit(lab, "notice.service", "touch /run/oomtest/noticed")
        jail(lab, "start:notice.service kill@3s")
        lab.start_hog("alone", rate=60, max_mb=160, slice="jail.slice", wait_for="go")
        plan_and_go(lab, "alone")
        lab.wait_until_dead("alone")
        decision = lab.decision_about("alone")
        assert steps(decision) == {"start": ("unavailable", errno.ENOENT), "kill": ("done", 0)}
        assert decision["outcome"] == "freed"
    finally:
        lab.machine.check("systemctl start oomslice-actions.socket")


def test_a_step_that_hangs_holds_nobody_and_is_not_done_twice_by_a_new_oomsliced(lab: Lab) -> None:
    jail(lab, "purge:/run/oomtest/cache kill@25s")
    lab.machine.check(
        "mkdir -p /run/oomtest/cache; echo >/run/oomtest/cache/file; systemctl start oomslice-actions.service"
    )
    lab.start_hog("hung", rate=60, max_mb=160, slice="jail.slice", wait_for="go")
    lab.wait_planned(hung=0)
    lab.machine.check("systemctl kill --signal=STOP oomslice-actions.service")
    try:
        lab.go()
        lab.machine.wait_for("the step was asked for", lambda: connected(lab))
        lab.machine.check("systemctl kill --signal=KILL oomsliced.service")
        lab.wait_until_dead("hung")
        decision = lab.decision_about("hung")
        assert steps(decision) == {"purge": ("failed", errno.EINTR), "kill": ("done", 0)}
        assert decision["outcome"] == "freed"
    finally:
        lab.machine.check("systemctl kill --signal=CONT oomslice-actions.service")


def connected(lab: Lab) -> bool:
    """Whether oomsliced has a connection to the service: two ends, beside the socket that listens."""
    return lab.machine.check("grep -c actions.sock /proc/net/unix; true").strip() not in ("0", "1")


def said_of_note(lab: Lab) -> bool:
    """Whether the daemon says that there is no note.service."""
    return any("note.service" in str(error) for error in lab.property("ConfigurationErrors"))


def test_a_decision_starts_its_unit_once_and_tells_it_all(lab: Lab) -> None:
    jail(lab, "kill", "OnDecision=note.service")
    lab.machine.check("systemctl start jail.slice")
    lab.machine.wait_for("a unit that does not exist is told of", lambda: said_of_note(lab), 30, 0.5)
    assert "note.service: is no unit of this machine" in lab.machine.check("journalctl -b -o cat -u oomsliced.service")
    write_unit(lab, "tell@.service", "oomslicectl show --json %i >>/run/told-%i")
    write_unit(
        lab,
        "note.service",
        'echo "$OOMSLICE_DECISION $OOMSLICE_VICTIM $OOMSLICE_OUTCOME $OOMSLICE_DOMAIN" >>/run/noted',
        "EnvironmentFile=-/run/oomslice/environment/%n",
    )
    lab.machine.run("rm -f /run/noted /run/told-*")
    lab.daemon_reload()
    lab.machine.wait_for("it exists now", lambda: not said_of_note(lab), 30, 0.5)
    lab.start_hog("decided", rate=60, max_mb=160, slice="jail.slice", wait_for="go")
    plan_and_go(lab, "decided")
    lab.wait_until_dead("decided")
    first = lab.decision_about("decided")
    noted = lab.machine.wait_for(
        "the unit was started", lambda: lab.machine.run("cat /run/noted 2>/dev/null").out.split(), 60
    )
    assert noted == [first["id"], "decided.service", "freed", "jail.slice"]

    lab.drop_in("jail.slice", "PressureTrigger=some 100ms/1s\nOnDecision=tell@.service")
    lab.drop_in("second.service", "Priority=-5")
    lab.daemon_reload()
    lab.machine.check("rm -f /run/oomtest/go")
    lab.start_hog("second", rate=60, max_mb=160, slice="jail.slice", wait_for="go")
    lab.wait_planned(second=-5)
    lab.go()
    lab.wait_until_dead("second")
    decision = lab.decision_about("second")
    told = lab.machine.wait_for(
        "the instance was started", lambda: lab.machine.run(f"cat /run/told-{decision['id']} 2>/dev/null").out, 60
    )
    assert json.loads(told)["victim"] == "second.service"
    # Neither is started again by a daemon that begins anew.
    lab.machine.check("systemctl restart oomsliced.service", timeout=120)
    lab.machine.wait_for("oomslice is back", lab.armed, 60, 0.5)
    assert len(lab.machine.check("cat /run/noted").splitlines()) == 1
    assert lab.machine.check(f"cat /run/told-{decision['id']}") == told
    started = lab.machine.check("ls /run/oomslice/started").split()
    assert {f"{first['id']}.service", f"{decision['id']}.service"} <= set(started)
