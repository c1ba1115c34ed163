# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which keys there are and how the value of each is read: one table for unit files and YAML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from oomslice.settings.model import SETTING_KEYS
from oomslice.settings.steps import parse_actions
from oomslice.settings.values import (
    parse_amount,
    parse_boolean,
    parse_cooldown,
    parse_death_deadline,
    parse_decisions_max,
    parse_kill_scope,
    parse_on_decision,
    parse_pressure_trigger,
    parse_pressure_victims,
    parse_priority,
    parse_rank_by,
    parse_reserve,
    parse_tier_name,
)

Parser = Callable[[str], object]
"""Takes the text of a value, without white space around it; raises BadValueError."""

SETTING_PARSERS: Mapping[str, Parser] = MappingProxyType(
    {
        "priority": parse_priority,
        "protect": parse_boolean,
        "actions": parse_actions,
        "kill_scope": parse_kill_scope,
        "rank_by": parse_rank_by,
        "pressure_trigger": parse_pressure_trigger,
        "pressure_victims": parse_pressure_victims,
        "cooldown_usec": parse_cooldown,
        "dry_run": parse_boolean,
        "tier": parse_tier_name,
        "on_decision": parse_on_decision,
    }
)
"""Field of UnitSettings -> parser."""

MACHINE_PARSERS: Mapping[str, Parser] = MappingProxyType(
    {
        "available_min": parse_amount,
        "available_watch": parse_amount,
        "swap_free_min": parse_amount,
        "available_thrash": parse_amount,
        "sign": parse_pressure_trigger,
        "thrash": parse_pressure_trigger,
        "available_ladder": parse_amount,
        "swap_free_ladder": parse_amount,
    }
)
"""Field of MachineTriggers -> parser."""

LIMIT_PARSERS: Mapping[str, Parser] = MappingProxyType(
    {
        "death_deadline_usec": parse_death_deadline,
        "decisions_max": parse_decisions_max,
        "leave_to_systemd_oomd": parse_boolean,
        "reserve": parse_reserve,
        "mark_kills": parse_boolean,
    }
)
"""Field of Limits -> parser."""

CARRIER_PARSERS: Mapping[str, Parser] = MappingProxyType({"score_adj": parse_boolean, "prekill": parse_boolean})
"""Field of CarrierSwitches -> parser."""

INTEGER_FIELDS = frozenset({"priority", "decisions_max"})


def yaml_key(unit_file_key: str) -> str:
    """The YAML spelling of a unit file's key: "CooldownSec" -> "cooldown-sec"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", unit_file_key).lower()


YAML_SETTING_KEYS: Mapping[str, str] = MappingProxyType({yaml_key(key): field for key, field in SETTING_KEYS.items()})
"""Key below `tiers:` and in `rules:` -> field of UnitSettings. A tier takes all but `tier`."""

UNIT_FILE_KEY_OF: Mapping[str, str] = MappingProxyType({field: key for key, field in SETTING_KEYS.items()})
YAML_KEY_OF: Mapping[str, str] = MappingProxyType({field: key for key, field in YAML_SETTING_KEYS.items()})
"""Field of UnitSettings -> key."""

YAML_MACHINE_KEYS: Mapping[str, str] = MappingProxyType(
    {field.replace("_", "-"): field for field in MACHINE_PARSERS},
)

YAML_CARRIER_KEYS: Mapping[str, str] = MappingProxyType(
    {field.replace("_", "-"): field for field in CARRIER_PARSERS},
)

YAML_LIMIT_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "death-deadline-sec": "death_deadline_usec",
        "decisions-max": "decisions_max",
        "leave-to-systemd-oomd": "leave_to_systemd_oomd",
        "reserve": "reserve",
        "mark-kills": "mark_kills",
    }
)
