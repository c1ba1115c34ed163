# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice: decides which slice of a systemd machine pays when memory runs out.

What programs may use is here; docs/library.md shows how. Each name is imported when it is first used, so that
`import oomslice` costs nothing and needs nothing: only `Client` needs dbus-next, only settings from YAML need PyYAML.
"""

from __future__ import annotations

__version__ = "0.1.0"
TYPE_CHECKING = False
"""True for checkers of types, which know the name; typing.TYPE_CHECKING would import half of Python."""

if TYPE_CHECKING:
    from oomslice.client import Client as Client
    from oomslice.client import Explained as Explained
    from oomslice.client import ListedDecision as ListedDecision
    from oomslice.client import Slice as Slice
    from oomslice.decisions.history import History as History
    from oomslice.decisions.record import Candidate as Candidate
    from oomslice.decisions.record import Decision as Decision
    from oomslice.decisions.record import StepTaken as StepTaken
    from oomslice.errors import OomsliceError as OomsliceError
    from oomslice.kernel import PsiTrigger as PsiTrigger
    from oomslice.kernel import cgroup_id as cgroup_id
    from oomslice.kernel import cgroup_kill as cgroup_kill
    from oomslice.kernel import cgroup_open as cgroup_open
    from oomslice.kernel import pidfd_open as pidfd_open
    from oomslice.kernel import pidfd_send_signal as pidfd_send_signal
    from oomslice.kernel import process_mrelease as process_mrelease
    from oomslice.kernel import psi_trigger as psi_trigger
    from oomslice.policy.model import RankedUnit as RankedUnit
    from oomslice.settings.model import Configuration as Configuration
    from oomslice.settings.model import PressureTrigger as PressureTrigger
    from oomslice.settings.model import Problem as Problem
    from oomslice.settings.model import PsiKind as PsiKind
    from oomslice.settings.model import UnitSettings as Settings
    from oomslice.snapshot import Snapshot as Snapshot
    from oomslice.snapshot import parse_settings as parse_settings
    from oomslice.snapshot import rank as rank

_PLACES = {
    "oomslice.client": ("Client", "Explained", "ListedDecision", "Slice"),
    "oomslice.decisions.history": ("History",),
    "oomslice.decisions.record": ("Candidate", "Decision", "StepTaken"),
    "oomslice.errors": ("OomsliceError",),
    "oomslice.kernel": (
        "PsiTrigger",
        "cgroup_id",
        "cgroup_kill",
        "cgroup_open",
        "pidfd_open",
        "pidfd_send_signal",
        "process_mrelease",
        "psi_trigger",
    ),
    "oomslice.policy.model": ("RankedUnit",),
    "oomslice.settings.model": ("Configuration", "PressureTrigger", "Problem", "PsiKind", "UnitSettings"),
    "oomslice.snapshot": ("Snapshot", "parse_settings", "rank"),
}
_OTHER_NAMES = {"UnitSettings": "Settings"}
"""Name in its module -> name here."""
_MODULES = {_OTHER_NAMES.get(name, name): (module, name) for module, names in _PLACES.items() for name in names}

__all__ = [
    "Candidate",
    "Client",
    "Configuration",
    "Decision",
    "Explained",
    "History",
    "ListedDecision",
    "OomsliceError",
    "PressureTrigger",
    "Problem",
    "PsiKind",
    "PsiTrigger",
    "RankedUnit",
    "Settings",
    "Slice",
    "Snapshot",
    "StepTaken",
    "__version__",
    "cgroup_id",
    "cgroup_kill",
    "cgroup_open",
    "parse_settings",
    "pidfd_open",
    "pidfd_send_signal",
    "process_mrelease",
    "psi_trigger",
    "rank",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'oomslice' has no attribute {name!r}")
    from importlib import import_module

    module, inner = _MODULES[name]
    value: object = getattr(import_module(module), inner)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
