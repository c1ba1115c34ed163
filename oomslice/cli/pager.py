# SPDX-License-Identifier: LGPL-2.1-or-later
"""Long output through a pager, as systemctl does it: only on terminals, $SYSTEMD_PAGER or $PAGER, else less or more.

Nothing is imported for it: the pager is spawned with a pipe as its input, which takes the place of the standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

PAGERS = ("less", "more")
LESS = "FRSXMK"
"""F: what fits on the screen is only printed. R: colours. S: long lines are cut. X: the screen is left as it is.
M: where one is. K: Ctrl-C ends it. As systemd has it, see systemctl(1)."""
NONE = ("", "cat")


def command(environment: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """What to try, in order; empty if no pager is wanted. A command has its arguments after blanks."""
    for name in ("SYSTEMD_PAGER", "PAGER"):
        if name in environment:
            wanted = environment[name].strip()
            return () if wanted in NONE else (tuple(wanted.split()),)
    return tuple((name,) for name in PAGERS)


def pager_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """For the pager. Whoever became root by sudo does not get less with all its commands, as with systemctl."""
    changed = {**environment, "LESS": environment.get("SYSTEMD_LESS", LESS)}
    changed.setdefault("LESSCHARSET", "utf-8")
    if "SUDO_UID" in environment or os.geteuid() != os.getuid():
        changed["LESSSECURE"] = "1"
    return changed


class Pager:
    """A pager that takes what is printed, from `start` to `finish`."""

    def __init__(self, pid: int, terminal: int) -> None:
        self._pid = pid
        self._terminal = terminal

    @classmethod
    def start(cls, environment: Mapping[str, str] = os.environ) -> Pager | None:
        """None if none is wanted or found."""
        sys.stdout.flush()
        for words in command(environment):
            reading, writing = os.pipe()
            try:
                pid = os.posix_spawnp(
                    words[0],
                    words,
                    pager_environment(environment),
                    file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)],
                )
            except OSError:
                os.close(reading)
                os.close(writing)
                continue
            os.close(reading)
            terminal = os.dup(1)
            os.set_inheritable(terminal, False)
            os.dup2(writing, 1)
            os.close(writing)
            return cls(pid, terminal)
        return None

    def finish(self) -> None:
        """Waits until the user has seen enough, and has the terminal back."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # What nobody reads any more must not come out on the terminal.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdout.flush()
        # Ctrl-C is for the pager now.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.dup2(self._terminal, 1)
        os.close(self._terminal)
        os.waitpid(self._pid, 0)
        signal.signal(signal.SIGINT, before)
