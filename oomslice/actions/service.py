# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice-actions: does the steps that need privileges, one child process for each, and ends when idle.

Started by its socket. Answers every request by its deadline: a child that hangs holds nobody else, is told by a signal
to clean up, and is killed a little later. Takes requests of root and of the user of oomsliced only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import struct
import sys
import time

from oomslice.actions import assign, checkpoint, checks, purge, systemd, warn
from oomslice.actions.messages import (
    DEFAULT_SOCKET,
    MESSAGE_MAX,
    NOT_BEGUN,
    ActionAnswer,
    ActionRequest,
    MessageError,
    decode_answer,
    decode_request,
    encode,
)
from oomslice.errors import OomsliceError

IDLE_S = 120.0
"""Without a connection or a child, it ends. A shortage comes seldom alone."""
CHILDREN_MAX = 16
CONNECTIONS_MAX = 8
GRACE_S = 5.0
"""From a child's deadline to its end by force: what it began is undone in this time."""
EARLY_S = 0.05
"""A child's deadline is earlier than the core's by this much or a tenth: its answer has a way to go."""
DEADLINE_MAX_S = 3600.0
FIRST_DESCRIPTOR = 3
"""The first one that systemd hands over. Source: sd_listen_fds(3)."""
PASSED_WITH_CREDENTIALS = struct.Struct("3i")


class _Child:
    """One request that is being done. `connection` is None once that is gone: it is done all the same."""

    def __init__(
        self, request: ActionRequest, connection: socket.socket, pid: int, answers: socket.socket, deadline: float
    ) -> None:
        self.request = request
        self.connection: socket.socket | None = connection
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.answers = answers
        self.deadline = deadline
        self.answered = False


class Service:
    """Serves requests on a listening socket until idle. `users` may ask; programs are looked for in `path`."""

    def __init__(self, listener: socket.socket, users: frozenset[int], idle: float = IDLE_S, path: str = "") -> None:
        self._listener = listener
        self._users = users
        self._idle = idle
        self._path = path or checks.PROGRAM_PATH
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._connections: set[socket.socket] = set()
        self._stopping = False
        # What a signal handler does is seen by the selector only if it makes a descriptor readable.
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda woken: woken.recv(64))
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def run(self) -> None:
        """Returns when there was nothing to do for a while, or after stop()."""
        while not self._stopping or self._children:
            busy = self._children or self._connections
            wait = self._idle if not busy else None
            if self._children:
                wait = max(0.0, min(self._next_moment(child) for child in self._children.values()) - time.monotonic())
            events = self._selector.select(wait)
            if not events and not busy:
                return
            for key, _ in events:
                if key.fileobj in self._selector.get_map():  # not closed by the one before
                    key.data(key.fileobj)
            self._overdue()
            if self._stopping:
                self._leave()
        self._leave()

    def stop(self) -> None:
        """Takes no more requests; run() returns when the children are done. May be called from a signal handler."""
        self._stopping = True
        self._waker.send(b"1")

    def _leave(self) -> None:
        """Takes nothing more. What was begun is still answered; what was not is said so, for the next one to do it."""
        if self._listener in self._selector.get_map():
            self._selector.unregister(self._listener)
        working = {child.connection for child in self._children.values()}
        for connection in list(self._connections):
            if connection in self._selector.get_map():
                # From here on the other side cannot send; what it has sent before is there to be read.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
                while connection in self._connections and connection in self._selector.get_map():
                    self._receive(connection)
            if connection in self._connections and connection not in working:
                self._hang_up(connection)

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PASSED_WITH_CREDENTIALS.size)
        _, user, _ = PASSED_WITH_CREDENTIALS.unpack(credentials)
        if user not in self._users or len(self._connections) >= CONNECTIONS_MAX:
            log(4, f"a connection of user {user} was refused")
            connection.close()
            return
        connection.setblocking(False)
        self._connections.add(connection)
        self._selector.register(connection, selectors.EVENT_READ, self._receive)

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(MESSAGE_MAX + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data and self._stopping:
            self._selector.unregister(connection)
            return
        if not data:
            self._hang_up(connection)
            return
        try:
            request = decode_request(data)
        except MessageError as error:
            log(4, f"a request was refused: {error}")
            self._hang_up(connection)
            return
        self._begin(request, connection)

    def _hang_up(self, connection: socket.socket) -> None:
        self._connections.discard(connection)
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        connection.close()
        for child in self._children.values():
            if child.connection is connection:
                child.connection = None

    def _send(self, connection: socket.socket | None, answer: ActionAnswer) -> None:
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.send(encode(answer))

    # Children

    def _begin(self, request: ActionRequest, connection: socket.socket) -> None:
        now = time.monotonic()
        if self._stopping:
            self._send(connection, ActionAnswer(request.number, "unavailable", NOT_BEGUN, detail="it is about to end"))
            return
        if request.kind == "hello":
            self._send(connection, ActionAnswer(request.number, "done"))
            return
        left = min(request.deadline_usec / 1e6 - now, DEADLINE_MAX_S)
        if left <= 0:
            self._send(connection, ActionAnswer(request.number, "late"))
            return
        if len(self._children) >= CHILDREN_MAX:
            self._send(connection, ActionAnswer(request.number, "unavailable", errno.EAGAIN))
            return
        deadline = now + left - min(EARLY_S, left / 10)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError as error:
            ours.close()
            theirs.close()
            self._send(connection, ActionAnswer(request.number, "failed", error.errno or errno.EAGAIN))
            return
        if pid == 0:
            _live_as_child(request, deadline, self._path, theirs)
        theirs.close()
        child = _Child(request, connection, pid, ours, deadline)
        self._children[child.pidfd] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, self._ended)

    def _next_moment(self, child: _Child) -> float:
        return child.deadline + GRACE_S if child.answered else child.deadline

    def _overdue(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if now < self._next_moment(child):
                continue
            if child.answered:
                _signal(child, signal.SIGKILL)
                child.deadline = now
            else:
                self._answer(child, ActionAnswer(child.request.number, "late"))
                _signal(child, signal.SIGTERM)

    def _ended(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._selector.unregister(pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, 0)
        os.close(pidfd)
        answer = ActionAnswer(child.request.number, "failed", errno.EPIPE, detail="the process that did it died")
        child.answers.setblocking(False)
        with contextlib.suppress(OSError, MessageError):
            answer = decode_answer(child.answers.recv(MESSAGE_MAX))
        child.answers.close()
        self._answer(child, answer)

    def _answer(self, child: _Child, answer: ActionAnswer) -> None:
        if child.answered:
            return
        child.answered = True
        self._send(child.connection, answer)
        request = child.request
        if request.kind == "tell" and answer.result == "done":
            return  # the line itself stands in the journal
        about = f" of {request.unit}" if request.unit else ""
        detail = f" ({os.strerror(answer.error)})" if answer.error else ""
        detail += f": {answer.detail}" if answer.detail else ""
        log(6, f"{request.kind}{about} for {request.decision or 'nobody'}: {answer.result}{detail}")


def _signal(child: _Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, number)


def _live_as_child(request: ActionRequest, deadline: float, path: str, answers: socket.socket) -> None:
    """Does one request and ends the process, whatever happens."""
    status = 1
    try:
        # What it holds of the others must not keep their connections open, and its selector is the parent's.
        keep = answers.fileno()
        os.closerange(FIRST_DESCRIPTOR, keep)
        os.closerange(keep + 1, 1024)
        signal.signal(signal.SIGTERM, _late)
        # For the parent's stop: it waits for us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        answer = carry_out(request, deadline, path)
        answers.send(encode(answer))
        status = 0
    except BaseException as error:
        log(3, f"{request.kind}: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _late(number: int, frame: object) -> None:
    raise TimeoutError("the deadline has passed")


def carry_out(request: ActionRequest, deadline: float, path: str = checks.PROGRAM_PATH) -> ActionAnswer:
    """Does one request until time.monotonic() is `deadline`, with programs of `path`. Raises nothing foreseeable."""
    amount = 0
    try:
        if request.kind == "warn":
            main_process = systemd.main_process(request.unit, deadline, checks.program("systemctl", path))
            result, error, detail = warn.warn(main_process, request.cgroup)
        elif request.kind == "start":
            result, error, detail = systemd.start(request, deadline, checks.program("systemctl", path))
        elif request.kind == "tell":
            from oomslice.actions import tell  # what it imports is needed by nobody else here

            result, error, detail = tell.tell(request)
        elif request.kind == "set":
            result, error, detail = assign.assign(request, deadline, checks.program("systemctl", path))
        elif request.kind == "checkpoint":
            result, error, detail = checkpoint.dump(request, deadline, path)
        else:
            result, error, amount, detail = _purge(request, deadline)
    except checks.CheckError as refused:
        missing = request.kind == "checkpoint" and refused.error == errno.ENOENT
        result, error = "unavailable" if missing else "failed", refused.error
        subject = (
            "" if request.kind == "set" else request.unit if request.kind == "tell" else request.text or request.kind
        )
        detail = f"{subject} {refused}".strip()
    except TimeoutError as late:
        result, error, detail = "late", errno.ETIME, str(late)
    except OSError as failed:
        result, error, detail = "failed", failed.errno or errno.EIO, str(failed)
    return ActionAnswer(request.number, result, error, amount, detail[:500])


def _purge(request: ActionRequest, deadline: float) -> tuple[str, int, int, str]:
    directory = checks.open_purgeable(request.text)
    done = purge.purge(directory, request.amount, deadline)
    detail = f"{done.files} files with {done.freed} bytes removed, {done.in_use} in use"
    if not done.complete:
        return ("late" if not done.files else "done"), errno.ETIME, done.freed, detail
    if done.files:
        return "done", 0, done.freed, detail
    return ("failed" if done.error else "needless"), done.error, 0, detail


def log(level: int, text: str) -> None:
    """A line for the journal, by sd-daemon(3)'s prefixes. A log that cannot be written is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"<{level}>{text}\n")
        sys.stderr.flush()


def listening_socket(path: str) -> socket.socket:
    """The one that systemd hands over; run by hand, one made at `path`. Raises OSError."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=FIRST_DESCRIPTOR)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(CONNECTIONS_MAX)
    return listener


def allowed_users(name: str) -> frozenset[int]:
    """Root, ourselves, and the user of oomsliced if there is one."""
    import pwd

    users = {0, os.geteuid()}
    with contextlib.suppress(KeyError):
        users.add(pwd.getpwnam(name).pw_uid)
    return frozenset(users)


HELP = f"""\
usage: oomslice-actions [--socket PATH] [--idle SECONDS] [--programs PATH] [--help]

Does the steps of a ladder that need privileges. Started by oomslice-actions.socket.

  --socket PATH    where to listen, unless systemd hands over a socket (default: {DEFAULT_SOCKET})
  --idle SECONDS   how long without a request until it ends (default: {IDLE_S:g})
  --programs PATH  where systemctl, systemd-run and criu are (default: {checks.PROGRAM_PATH})
  --help           show help and exit
"""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of oomslice-actions. Returns the exit status. (argparse would cost as much as all the rest.)"""
    words = list(sys.argv[1:] if arguments is None else arguments)
    path, idle, programs = DEFAULT_SOCKET, IDLE_S, checks.PROGRAM_PATH
    while words:
        word = words.pop(0)
        if word == "--help":
            print(HELP, end="")
            return 0
        if word == "--socket" and words:
            path = words.pop(0)
        elif word == "--programs" and words:
            programs = words.pop(0)
        elif word == "--idle" and words and words[0].isdecimal():
            idle = float(words.pop(0))
        else:
            sys.stderr.write(HELP)
            return 2
    try:
        service = Service(listening_socket(path), allowed_users("oomslice"), idle, programs)
    except (OSError, OomsliceError) as error:
        log(3, f"cannot listen at {path}: {error}")
        return 1
    # A journal that is stuck must not hold the answers up: then there is no log.
    if "JOURNAL_STREAM" in os.environ:
        os.set_blocking(sys.stderr.fileno(), False)
    signal.signal(signal.SIGTERM, lambda number, frame: service.stop())
    service.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
