# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files that the bus reads: policy and activation."""

from __future__ import annotations

import configparser
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from oomslice.bus.interface import BUS_NAME, MANAGER, OBJECT_MANAGER
from tests.bus.rig import POLICY, ROOT


def test_everyone_may_reach_the_daemon_which_says_who_may_act_and_nobody_but_root_may_set_a_property() -> None:
    (default,) = (item for item in ElementTree.parse(POLICY).findall("policy") if item.get("context") == "default")
    allowed = {(rule.get("send_interface"), rule.get("send_member")) for rule in default.findall("allow")}
    assert allowed == {
        ("org.freedesktop.DBus.Introspectable", None),
        ("org.freedesktop.DBus.Peer", None),
        ("org.freedesktop.DBus.Properties", "Get"),
        ("org.freedesktop.DBus.Properties", "GetAll"),
        (OBJECT_MANAGER.name, None),
        (MANAGER.name, None),
    }


def test_every_rule_names_our_destination_and_nothing_else() -> None:
    for rule in ElementTree.parse(POLICY).iter():
        if rule.tag in ("allow", "deny"):
            assert BUS_NAME in (rule.get("send_destination"), rule.get("own")), rule.attrib


def test_root_and_the_daemons_user_may_own_the_name() -> None:
    owners = {
        policy.get("user")
        for policy in ElementTree.parse(POLICY).findall("policy")
        if any(rule.get("own") == BUS_NAME for rule in policy.findall("allow"))
    }
    assert owners == {"root", "oomslice"}


def test_activation_is_left_to_systemd() -> None:
    file = ROOT / "units" / f"{BUS_NAME}.service"
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file)
    section = parser["D-BUS Service"]
    assert dict(section) == {
        "Name": BUS_NAME,
        "Exec": "/bin/false",
        "User": "root",
        "SystemdService": f"dbus-{BUS_NAME}.service",
    }


def test_the_transport_loads_where_typing_lost_what_dbus_next_imports() -> None:
    # Python 3.15.
    code = "import typing; typing.__dict__.pop('no_type_check_decorator', None); import oomslice.bus.message"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
