# SPDX-License-Identifier: LGPL-2.1-or-later
"""units/oomslice.yaml, the shipped file: whom it protects, in which order units go, and that it tells the truth."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from oomslice.settings.configuration import parse_configuration
from oomslice.settings.model import Configuration, Limits, MachineTriggers, UnitSettings
from oomslice.settings.verify import verify_configuration

FILE = Path(__file__).parent.parent.parent / "units" / "oomslice.yaml"
TEXT = FILE.read_text(encoding="utf-8")


def shipped() -> Configuration:
    return parse_configuration([("oomslice.yaml", TEXT)])[0]


def settings(name: str, manager: str = "system") -> UnitSettings:
    """What the rules say of a unit, later ones over earlier ones."""
    found = UnitSettings()
    for rule in shipped().rules:
        if rule.manager == manager and any(fnmatchcase(name, glob) for glob in rule.match):
            found = rule.settings.over(found)
    return found


def test_verify_has_nothing_to_say_of_it() -> None:
    assert [str(problem) for problem in verify_configuration([("oomslice.yaml", TEXT)])] == []


def test_safe_load_reads_it_too() -> None:
    assert set(yaml.safe_load(TEXT)) == {"tiers", "rules"}


@pytest.mark.parametrize(
    "name",
    [
        "init.scope", "systemd-journald.service", "systemd-journald@web.service", "systemd-logind.service",
        "systemd-udevd.service", "systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service",
        "NetworkManager.service", "wpa_supplicant.service", "wpa_supplicant@wlan0.service", "dhcpcd.service",
        "networking.service", "dbus.service", "dbus-broker.service", "polkit.service", "ssh.service", "sshd.service",
        "chrony.service", "chronyd.service", "systemd-oomd.service", "earlyoom.service", "oomslice.slice",
        "gdm.service", "gdm3.service", "sddm.service", "lightdm.service", "greetd.service", "multipathd.service",
    ],
)  # fmt: skip
def test_what_keeps_the_machine_reachable_is_protected(name: str) -> None:
    assert settings(name).protect is True


@pytest.mark.parametrize(
    "name",
    [
        "init.scope", "dbus.service", "org.gnome.Shell@wayland.service", "plasma-kwin_wayland.service",
        "gnome-session-manager@gnome.service", "pipewire.service", "pipewire-pulse.service", "wireplumber.service",
        "xdg-desktop-portal.service", "xdg-desktop-portal-gtk.service", "wayland-wm@sway.service",
    ],
)  # fmt: skip
def test_what_keeps_a_session_alive_is_protected(name: str) -> None:
    assert settings(name, "user").protect is True


@pytest.mark.parametrize(
    ("name", "manager"),
    [
        ("system.slice", "system"), ("user.slice", "system"), ("user-1000.slice", "system"), ("-.slice", "system"),
        ("user@1000.service", "system"), ("session-3.scope", "system"), ("mariadb.service", "system"),
        ("nginx.service", "system"), ("docker-0123.scope", "system"), ("machine-qemu.scope", "system"),
        ("app.slice", "user"), ("session.slice", "user"), ("background.slice", "user"),
        ("app-firefox-1234.scope", "user"), ("app-gnome-firefox-1.scope", "user"),
        ("dbus-:1.2-org.gnome.Nautilus@0.service", "user"), ("tmux-spawn-1.scope", "user"), ("run-u5.scope", "user"),
    ],
)  # fmt: skip
def test_what_can_grow_is_not_protected(name: str, manager: str) -> None:
    assert settings(name, manager).protect is None


def test_users_applications_go_before_sessions_and_those_before_the_system() -> None:
    order = [
        settings("background.slice", "user"),
        settings("app-firefox-1234.scope", "user"),
        settings("session-3.scope"),
        settings("nginx.service"),
        settings("containerd.service"),
        settings("getty@tty1.service"),
    ]
    priorities = [found.priority or 0 for found in order]
    assert priorities == sorted(priorities)
    assert len(set(priorities)) == len(priorities)
    assert (priorities[1], priorities[2], priorities[3]) == (-100, -50, 0)
    assert settings("app-code@1.service", "user").priority == settings("app.slice", "user").priority == -100


def test_names_of_user_units_say_nothing_of_system_units() -> None:
    assert settings("pipewire.service").protect is None
    assert settings("app-x.scope").priority is None
    assert settings("ssh.service", "user").protect is None
    assert settings("session-1.scope", "user").priority is None


def test_the_tiers_are_in_order() -> None:
    tiers = shipped().tiers
    assert set(tiers) == {"background", "important", "vital"}
    background, important = tiers["background"].priority, tiers["important"].priority
    assert background is not None and important is not None
    assert background < -150 < 0 < important
    assert tiers["vital"].protect is True


def test_what_stands_there_as_a_default_is_the_default() -> None:
    beginning = TEXT.index("#machine:")
    commented = re.sub(r"(?m)^#", "", TEXT[beginning:])
    configuration, problems = parse_configuration([("x", re.sub(r"(?m)^ ?[A-Z].*\n", "", commented))])
    assert [str(problem) for problem in problems] == []
    assert configuration == Configuration(machine=MachineTriggers(), limits=Limits())
    written = yaml.safe_load(re.sub(r"(?m)^ ?[A-Z].*\n", "", commented))
    assert set(written["machine"]) == {
        "available-min", "available-watch", "swap-free-min", "available-thrash", "sign", "thrash",
        "available-ladder", "swap-free-ladder",
    }  # fmt: skip
    assert set(written["limits"]) == {
        "death-deadline-sec", "decisions-max", "leave-to-systemd-oomd", "reserve", "mark-kills",
    }  # fmt: skip
