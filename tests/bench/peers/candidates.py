# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who is compared, and how each is set up: what goes into which file, and which unit is started. Pure.

The database has MemoryMin= and OOMScoreAdjust= for all of them, the kernel alone included, as a careful administrator
would set them. As packaged, nobody is told more than that. Tuned, each is told by its own means that the hog is to go
and the database to stay, and acts as early as its makers advise. Beyond those, oomslice is given Priority= of two
slices, a smaller limit of available memory than it has by default and, with swap, that the hog makes room when only
swap is left or the database stalls: first by paying for its own growth, then by its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SYSTEMD = "/etc/systemd/system"
HOG_PRIORITY, DATABASE_PRIORITY = -200, 500
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the table."""

    name: str
    package: str
    """Debian's; its version is shown."""
    units: tuple[str, ...] = ()
    """What is started, and looked at for memory and processor time."""
    tuned: bool = False
    files: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    without_swap: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """Files that take the place of those above in a machine without swap."""
    command: str = ""
    """Run before the units are started."""
    hog: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """Properties that the hog's unit has."""
    averages: bool = False
    """Whether it goes by pressure averaged over ten seconds: those of one run must be over before the next."""
    pause: int = 0
    """Seconds for which it does nothing after a kill: no run begins before they are over."""
    between: str = ""
    """Shell command between two runs, so that nothing it remembers of one has a say in the next."""
    proof: str = ""
    """Shell command that succeeds once the daemon has understood its settings."""

    @property
    def is_ours(self) -> bool:
        """Whether it is oomslice, which is on a disk of its own."""
        return self.package == "oomslice"


_OOMD_PRESSURE = """ {"name":"hog pressure","detectors":[["pressure",
   {"name":"pressure_above","args":{"cgroup":"benchhog.slice","resource":"memory","threshold":"20","duration":"1"}},
   {"name":"memory_reclaim","args":{"cgroup":"benchhog.slice","duration":"10"}}]],
  "actions":[{"name":"kill_by_memory_size_or_growth","args":{"cgroup":"benchhog.slice/*","post_action_delay":"1"}}]}"""
_OOMD_SWAP = """ {"name":"low swap","detectors":[["swap",{"name":"swap_free","args":{"threshold_pct":"20"}}]],
  "actions":[{"name":"kill_by_swap_usage","args":{"cgroup":"benchhog.slice/*","post_action_delay":"1"}}]}"""
# Without swap there is no rule of oomd that sees growth: this is a plain limit, and so only used there.
_OOMD_ANONYMOUS = """ {"name":"no swap","detectors":[["anon",
   {"name":"memory_above","args":{"cgroup":"benchhog.slice","threshold_anon":"80%","duration":"0"}}]],
  "actions":[{"name":"kill_by_memory_size_or_growth","args":{"cgroup":"benchhog.slice/*","post_action_delay":"1"}}]}"""


_LIMITS = "machine:\n  available-min: 2.5%\n"
# Ladders begin as soon as swap is all that is left, not only when most of it is used up.
_LADDERS = "  swap-free-ladder: 100%\n"
_LIMITS_FILE = "/etc/oomslice/oomslice.yaml.d/50-bench.yaml"
_HOG_SETTINGS = f"{SYSTEMD}/benchhog.slice.d/50-oomslice.conf"
# From there on, or from when the database stalls, the hog waits for its own growth; after five seconds of that it dies.
_HOG_PAYS_FIRST = "Actions=throttle:90 kill@5s\n"
_DATABASE_SETTINGS = f"{SYSTEMD}/benchsvc.slice.d/50-oomslice.conf"
_DATABASE_STALLS = "PressureTrigger=some 10ms/500ms\nPressureVictims=lower-priority\n"
# It rests longer, up to minutes, where units of one name die again and again, as they do here.
_FORGET = "systemctl restart oomslice-core.service"


def _oomd(*rulesets: str) -> str:
    return '{"rulesets":[\n' + ",\n".join(rulesets) + "]}\n"


# Ten seconds of rest are the least that it accepts.
_NOHANG = " && ".join(
    (
        "cd /etc/nohang",
        "sed -i"
        " -e 's/^psi_checking_enabled *=.*/psi_checking_enabled = True/'"
        " -e 's/^psi_excess_duration *=.*/psi_excess_duration = 1/'"
        " -e 's/^psi_post_action_delay *=.*/psi_post_action_delay = 10/'"
        " -e 's/^soft_threshold_min_mem *=.*/soft_threshold_min_mem = 10 %/'"
        " -e 's/^hard_threshold_min_mem *=.*/hard_threshold_min_mem = 5 %/'"
        " -e 's/^soft_threshold_min_swap *=.*/soft_threshold_min_swap = 20 %/'"
        " -e 's/^hard_threshold_min_swap *=.*/hard_threshold_min_swap = 10 %/'"
        " nohang.conf",
        r"printf '%s\n' '@BADNESS_ADJ_RE_CGROUP_V2  900 /// ^/benchhog\.slice'"
        r" '@BADNESS_ADJ_RE_CGROUP_V2 -900 /// ^/benchsvc\.slice' >> nohang.conf",
        "nohang --check --config nohang.conf | grep -q 'config is OK'",
    )
)

CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("kernel", "linux-image"),
        Candidate(
            "kernel-tuned",
            "linux-image",
            tuned=True,
            # It kills the whole unit, and does so before what was used within the last second is reclaimed.
            command="cd /sys/kernel/mm/lru_gen && echo 1000 > min_ttl_ms && [ $(($(cat enabled) & 1)) = 1 ]",
            hog={"OOMPolicy": "kill"},
        ),
        Candidate("systemd-oomd", "systemd-oomd", ("systemd-oomd.service",), pause=16, averages=True),
        Candidate(
            "systemd-oomd-tuned",
            "systemd-oomd",
            ("systemd-oomd.service",),
            tuned=True,
            files={
                "/etc/systemd/oomd.conf.d/90-bench.conf": (
                    "[OOM]\nSwapUsedLimit=80%\nDefaultMemoryPressureDurationSec=1s\n"
                ),
                f"{SYSTEMD}/benchhog.slice.d/oomd.conf": (
                    "[Slice]\nManagedOOMMemoryPressure=kill\nManagedOOMMemoryPressureLimit=20%\n"
                    "ManagedOOMMemoryPressureDurationSec=1s\nManagedOOMSwap=kill\n"
                ),
                f"{SYSTEMD}/benchsvc.slice.d/oomd.conf": "[Slice]\nManagedOOMPreference=omit\n",
            },
            pause=16,
            averages=True,
        ),
        Candidate("oomd", "oomd", ("oomd.service",), pause=16, averages=True),
        Candidate(
            "oomd-tuned",
            "oomd",
            ("oomd.service",),
            tuned=True,
            files={
                "/etc/default/oomd": 'DAEMON_OPTS="--interval 1 --config /etc/oomd/oomd.json"\n',
                "/etc/oomd/oomd.json": _oomd(_OOMD_PRESSURE, _OOMD_SWAP),
            },
            without_swap={"/etc/oomd/oomd.json": _oomd(_OOMD_PRESSURE, _OOMD_SWAP, _OOMD_ANONYMOUS)},
            pause=2,
            averages=True,
        ),
        Candidate("earlyoom", "earlyoom", ("earlyoom.service",)),
        Candidate(
            "earlyoom-tuned",
            "earlyoom",
            ("earlyoom.service",),
            tuned=True,
            files={
                "/etc/default/earlyoom": (
                    "EARLYOOM_ARGS=\"-r 0 -m 10,5 -s 20,10 --prefer '^(hog|stress-ng.*)$'"
                    " --avoid '^(database|sshd|systemd.*)$'\"\n"
                )
            },
            # Debian's unit splits the arguments: a wrong quote would go unnoticed.
            proof="journalctl -b -u earlyoom.service | grep -qF \"regex '^(hog|stress-ng.*)$'\"",
        ),
        Candidate("nohang", "nohang", ("nohang.service",), pause=16, averages=True),
        Candidate("nohang-tuned", "nohang", ("nohang.service",), tuned=True, command=_NOHANG, pause=11, averages=True),
        Candidate("oomslice", "oomslice", ("oomslice-core.service", "oomsliced.service"), pause=3, between=_FORGET),
        Candidate(
            "oomslice-tuned",
            "oomslice",
            ("oomslice-core.service", "oomsliced.service"),
            tuned=True,
            command="systemctl reload oomsliced.service",
            files={
                _LIMITS_FILE: _LIMITS + _LADDERS,
                _HOG_SETTINGS: f"[X-OOMSlice]\nPriority={HOG_PRIORITY}\n{_HOG_PAYS_FIRST}",
                _DATABASE_SETTINGS: f"[X-OOMSlice]\nPriority={DATABASE_PRIORITY}\n{_DATABASE_STALLS}",
            },
            # Without swap nothing is lost by waiting until memory is gone.
            without_swap={
                _LIMITS_FILE: _LIMITS,
                _HOG_SETTINGS: f"[X-OOMSlice]\nPriority={HOG_PRIORITY}\n",
                _DATABASE_SETTINGS: f"[X-OOMSlice]\nPriority={DATABASE_PRIORITY}\n",
            },
            pause=3,
            between=_FORGET,
        ),
    )
}

SLICES = {
    # Equal shares of the processors for all slices: a storm of 80 processes is to be one of memory.
    f"{SYSTEMD}/benchhog.slice": "[Slice]\nCPUWeight=100\n",
    f"{SYSTEMD}/benchsvc.slice": "[Slice]\nCPUWeight=100\nMemoryMin=128M\n",
}
DATABASE = {"MemoryMin": "128M", "OOMScoreAdjust": "-500"}
"""Properties that the database's unit has, whoever is compared."""


def files_of(candidate: Candidate, *, swap: bool) -> dict[str, str]:
    """All files that are written before the candidate is started."""
    files = {**SLICES, **candidate.files}
    return files if swap else {**files, **candidate.without_swap}
