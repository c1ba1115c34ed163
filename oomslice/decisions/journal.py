# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tells the journal of decisions: its native protocol, one datagram each, never waiting.

Python's bindings of libsystemd hold the interpreter while a stuck journald does not take the message; this drops
it, counts it, and the caller tries again from DecisionStore.unannounced(). So an entry can come late, and after a
crash at the wrong moment twice: OOMSLICE_DECISION= tells that it is the same one.

Which unit an entry is shown for: `journalctl -u UNIT` shows what UNIT itself wrote, what PID 1 wrote with UNIT=, and
what root wrote with OBJECT_SYSTEMD_UNIT=. The last is set here, but the daemon does not run as root, so the journal
does not take its word for the unit of another. Therefore oomslice-actions says the sentence once more for the unit
(daemon/tell.py, actions/tell.py); what matters is in the journal without it.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Mapping

from oomslice.decisions.record import Decision, Undo
from oomslice.decisions.sentence import climbed, sentence, step_sentence, undo_sentence

SOCKET_PATH = "/run/systemd/journal/socket"

MESSAGE_KILLED = "642b11ab540b4dba8abb7dada35c667a"
MESSAGE_DEADLINE = "9a7ccb8ce77c4bd297dba2c0ecb03531"
MESSAGE_DRY_RUN = "3fdbe134575f4ea9bf2892437b2d3561"
MESSAGE_NO_CANDIDATE = "dd93f9f5c91d418eaca4a51b240ee32b"
MESSAGE_FAILED = "6dfb39212092402eae442245a42f4224"
MESSAGE_INTERRUPTED = "7921c7c7c59747c9b19ddeea4dfdb7df"
MESSAGE_RELIEVED = "c6c5ea0f51ca4467b58448daa0f7dfb9"
MESSAGE_HELD = "aff7c6747dec49c1a50f0406287118bd"
MESSAGE_KEPT = "7fb36a5815814b3a87d6eaf91d6dd3f7"
MESSAGE_UNDONE = "277759950bc7481697610d2bd881d01a"
MESSAGE_ASKED = "058c45d7a41c4c5bb69f557962b6efe0"
MESSAGE_KERNEL = "e7343f4b280b494f9a6435893a3ad745"
MESSAGE_OOMD = "a89fcc0d07624ff9ac92b93bfe3ad512"
MESSAGE_STEP = "1aeabe5ce63f49ec9bcab9d251455681"
MESSAGE_CARRIER = "885d8d2a26f0477a95288aa360347144"
"""Ids of units/oomslice.catalog, where each is explained."""

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3)."""

MESSAGES: Mapping[str, tuple[str, int]] = {
    "freed": (MESSAGE_KILLED, WARNING),
    "relieved": (MESSAGE_RELIEVED, NOTICE),
    "held": (MESSAGE_HELD, WARNING),
    "kept": (MESSAGE_KEPT, ERROR),
    "undone": (MESSAGE_UNDONE, NOTICE),
    "done": (MESSAGE_ASKED, NOTICE),
    "deadline": (MESSAGE_DEADLINE, ERROR),
    "dry-run": (MESSAGE_DRY_RUN, NOTICE),
    "no-candidate": (MESSAGE_NO_CANDIDATE, ERROR),
    "failed": (MESSAGE_FAILED, ERROR),
    "gone": (MESSAGE_FAILED, NOTICE),
    "refused": (MESSAGE_FAILED, ERROR),
    "interrupted": (MESSAGE_INTERRUPTED, WARNING),
    "killed-by-kernel": (MESSAGE_KERNEL, WARNING),
    "killed-by-oomd": (MESSAGE_OOMD, WARNING),
}
"""Outcome -> message id and priority; "undone" is what comes after one, not a decision's own."""
STEP_PRIORITIES: Mapping[str, int] = {"done": NOTICE, "dry-run": NOTICE, "needless": INFO, "pending": NOTICE}
"""Result of a step -> priority; others are warnings."""

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class JournalSender:
    """Sends to journald at `path`. It may come, go and restart: each entry finds it anew."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self.path = path
        self.dropped = 0
        """entries that journald did not take"""
        self._socket: socket.socket | None = None

    def send(self, decision: Decision) -> bool:
        """One decision, and each step of its ladder. False if the journal did not take all: try again later."""
        return all(self.send_fields(fields) for fields in (decision_fields(decision), *steps_fields(decision)))

    def send_carrier(self, name: str, active: bool, detail: str, error: str) -> bool:
        """A carrier that came or went. False if the journal did not take it."""
        return self.send_fields(carrier_fields(name, active, detail, error))

    def send_undo(self, decision: Decision, undo: Undo) -> bool:
        """What of a decision was undone. False if the journal did not take it."""
        return self.send_fields(undo_fields(decision, undo))

    def send_fields(self, fields: Iterable[tuple[str, str]]) -> bool:
        """One entry of fields in any order; names as in systemd.journal-fields(7). False if it was dropped."""
        data = b"".join(_field(name, value) for name, value in fields)
        try:
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
                )
            try:
                self._socket.sendto(data, self.path)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_large(self._socket, data)
        except OSError:
            self.dropped += 1
            return False
        return True

    def close(self) -> None:
        """Closes the socket; a later entry opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send_large(self, sender: socket.socket, data: bytes) -> None:
        memfd = os.memfd_create("oomslice-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memfd, "wb", closefd=False) as file:
                file.write(data)
            # journald takes no memfd that could change under it.
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memfd]))]
            sender.sendmsg([b""], rights, 0, self.path)
        finally:
            os.close(memfd)


def decision_fields(decision: Decision) -> list[tuple[str, str]]:
    """The journal entry of a decision."""
    return _entry(decision, sentence(decision), decision.outcome)


def steps_fields(decision: Decision) -> list[list[tuple[str, str]]]:
    """An entry for each step that was begun; none if all that was done is the kill, of which the decision tells."""
    if not has_ladder(decision):
        return []
    return [_step_fields(decision, number) for number in range(len(decision.steps))]


def has_ladder(decision: Decision) -> bool:
    """True if there is more to tell of steps than that there was a kill."""
    return any(step.step != "kill" for step in decision.steps)


def _step_fields(decision: Decision, number: int) -> list[tuple[str, str]]:
    step = decision.steps[number]
    fields = [
        ("MESSAGE", step_sentence(decision, number)),
        ("MESSAGE_ID", MESSAGE_STEP),
        ("PRIORITY", str(STEP_PRIORITIES.get(step.result, WARNING))),
        ("SYSLOG_IDENTIFIER", "oomsliced"),
        ("OOMSLICE_DECISION", decision.id),
        ("OOMSLICE_CARRIER", decision.carrier),
        ("OOMSLICE_DOMAIN", decision.domain),
        ("OOMSLICE_STEP", step.step),
        ("OOMSLICE_STEP_NUMBER", str(number + 1)),
        ("OOMSLICE_STEP_RESULT", step.result),
        ("OOMSLICE_STEP_BEGIN_USEC", str(step.begin_usec)),
        ("OOMSLICE_STEP_END_USEC", str(step.end_usec)),
    ]
    if step.argument:
        fields.append(("OOMSLICE_STEP_ARGUMENT", step.argument))
    if decision.victim:
        fields += [("OOMSLICE_VICTIM", decision.victim), ("OBJECT_SYSTEMD_UNIT", decision.victim)]
    return fields


def carrier_fields(name: str, active: bool, detail: str, error: str) -> list[tuple[str, str]]:
    """The entry of a carrier that came or went."""
    fields = [
        ("MESSAGE", f"Carrier {name} {'can act' if active else 'cannot act'}: {detail}"),
        ("MESSAGE_ID", MESSAGE_CARRIER),
        ("PRIORITY", str(INFO if active else WARNING)),
        ("SYSLOG_IDENTIFIER", "oomsliced"),
        ("OOMSLICE_CARRIER", name),
        ("OOMSLICE_CARRIER_ACTIVE", "yes" if active else "no"),
        ("OOMSLICE_CARRIER_DETAIL", detail),
    ]
    if error:
        fields.append(("OOMSLICE_CARRIER_ERROR", error))
    return fields


def undo_fields(decision: Decision, undo: Undo) -> list[tuple[str, str]]:
    """The entry that says that steps of a decision were undone: its own fields once more, with another message."""
    return _entry(decision, undo_sentence(decision, undo), "undone")


def _entry(decision: Decision, message: str, outcome: str) -> list[tuple[str, str]]:
    message_id, priority = MESSAGES.get(outcome, (MESSAGE_FAILED, ERROR))
    fields = [
        ("MESSAGE", message),
        ("MESSAGE_ID", message_id),
        ("PRIORITY", str(priority)),
        ("SYSLOG_IDENTIFIER", "oomsliced"),
        ("OOMSLICE_DECISION", decision.id),
        ("OOMSLICE_CARRIER", decision.carrier),
        ("OOMSLICE_TRIGGER", decision.trigger),
        ("OOMSLICE_DOMAIN", decision.domain),
        ("OOMSLICE_OUTCOME", decision.outcome),
        ("OOMSLICE_STEP", decision.step),
    ]
    if decision.steps:
        fields.append(("OOMSLICE_STEPS", climbed(decision)))
    if decision.flags:
        fields.append(("OOMSLICE_FLAGS", " ".join(decision.flags)))
    if decision.agreement:
        fields.append(("OOMSLICE_AGREEMENT", decision.agreement))
    if decision.victim:
        fields += [
            ("OOMSLICE_VICTIM", decision.victim),
            ("OOMSLICE_VICTIM_PRIORITY", str(decision.victim_priority)),
            ("OOMSLICE_KILL_SCOPE", decision.kill_scope),
            ("OOMSLICE_PROCESSES", str(decision.processes)),
            ("OOMSLICE_MEMORY", str(decision.victim_memory_before)),
            ("OOMSLICE_FREED", str(decision.bytes_freed)),
            ("OBJECT_SYSTEMD_UNIT", decision.victim),
        ]
    fields.append(("OOMSLICE_JSON", json.dumps(decision.to_dict(), separators=(",", ":"), default=str)))
    return fields


def _field(name: str, value: str) -> bytes:
    """One field. Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/"""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
