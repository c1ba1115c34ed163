# SPDX-License-Identifier: LGPL-2.1-or-later
"""A policy of the administrator's own, in the sandbox of oomsliced as it is installed."""

from __future__ import annotations

from .lab import Lab

PACKAGES = "/usr/lib/python3/dist-packages"
CODE = """
import time

def rank(units):
    if any(unit.name == "hang.service" for unit in units):
        time.sleep(1000)
    return {unit.path: -777 for unit in units if unit.name.startswith("scratch-")}
"""


def explained(lab: Lab, unit: str) -> tuple[int, str]:
    """Priority and where it is from, as the daemon explains now."""
    for name, priority, _metric, _verdict, origin, _reason in lab.busctl("Explain")[0][1]:
        if name == unit:
            return priority, origin
    return 0, ""


def errors(lab: Lab) -> list[str]:
    return [message for _file, _line, key, _value, message in lab.property("ConfigurationErrors") if key == "policy"]


def test_a_policy_changes_priorities_and_one_that_hangs_changes_nothing(lab: Lab) -> None:
    lab.write(f"{PACKAGES}/vm_policy.py", CODE)
    lab.write(f"{PACKAGES}/vm_policy-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: vm-policy\nVersion: 1\n")
    lab.write(f"{PACKAGES}/vm_policy-1.dist-info/entry_points.txt", "[oomslice.policies]\nvm = vm_policy:rank\n")
    lab.drop_in("big.service", "Priority=-10")
    lab.configure("policy: vm\n")
    lab.start_service("scratch-1", 20)
    lab.start_service("big", 60)
    lab.machine.wait_for(
        "the policy is in force", lambda: explained(lab, "scratch-1.service") == (-777, "policy vm"), 90, 0.5
    )
    assert errors(lab) == []
    assert lab.busctl("Explain")[0][1][0][0] == "scratch-1.service"
    lab.start_service("hang", 5)
    lab.machine.wait_for("the daemon says that it hangs", lambda: errors(lab), 90, 0.5)
    assert "no answer within 1 s and was ended" in errors(lab)[0]
    assert explained(lab, "scratch-1.service")[0] == 0
    assert explained(lab, "big.service")[0] == -10
    lab.machine.wait_for(
        "what hung is ended", lambda: lab.machine.run("pgrep -f [o]omslice.plugins.worker").rc != 0, 60, 0.5
    )
