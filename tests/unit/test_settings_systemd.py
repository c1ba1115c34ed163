# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our reading of systemd's syntax next to systemd's own.

systemd says nothing of [X-OOMSlice], so keys of its own with values that it refuses, and names in its messages,
stand in: what it complains of is what it has read.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from oomslice.settings import values
from oomslice.settings.unitfile import Assignment, Fault, Header, parse_lines
from oomslice.settings.values import BadValueError
from oomslice.settings.words import split_words

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian package systemd)"
)


def analyze(*arguments: str | Path) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_LEVEL": "info"}
    command = ["systemd-analyze", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def verify(tmp_path: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """What systemd says of each file, without file and line."""
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    said: dict[str, list[str]] = {name: [] for name in files}
    output = analyze("verify", "--man=no", *(tmp_path / name for name in files))
    if "Failed to initialize manager" in output or "Failed to create" in output:
        pytest.skip(f"systemd-analyze cannot verify here: {output.strip()}")
    for line in output.split("\n"):
        found = re.match(r"(?P<file>/[^:]*):[0-9]+: (?P<message>.*)", line)
        if found and Path(found["file"]).parent == tmp_path:
            said[Path(found["file"]).name].append(found["message"])
    return said


STOPS = "reading stops"


def as_systemd_says(text: str) -> list[str]:
    """What we read of [Slice] CPUWeight=, whose values in these texts are all bad, in systemd's words."""
    said: list[str] = []
    ignored = False
    for item in parse_lines(text):
        match item:
            case Fault(fatal=True):
                said.append(STOPS)
            case Header(section=section):
                ignored = section != "Slice"
            case Fault(section="Slice", message=message):
                said.append("Missing '='" if 'no "="' in message else "Missing key")
            case Assignment(section="Slice", key="CPUWeight", value=value) if value:
                said.append(f"value {value}")
            case Assignment(section=None) | Fault(section=None) if not ignored:
                said.append("outside")
    return said


def shortened(messages: Sequence[str]) -> list[str]:
    short: list[str] = []
    for message in messages:
        # systemd 252 and 257.
        if found := re.fullmatch(
            r"Invalid CPU weight, ignoring: (.*)|Failed to parse CPUWeight=(.*), ignoring: Invalid argument", message
        ):
            short.append(f"value {found[1] or found[2]}")
        elif message.startswith("Missing '='"):
            short.append("Missing '='")
        elif message.startswith("Missing key"):
            short.append("Missing key")
        elif message.startswith("Assignment outside"):
            short.append("outside")
        elif re.match(
            r"Invalid section header|Bad characters in section|String is not UTF-8|.*[Ll]ine too long", message
        ):
            short.append(STOPS)
    return short


HEAD = "[Slice]\n"
TEXTS = [
    HEAD + "CPUWeight=a\nCPUWeight = b \n\tCPUWeight\t=\tc\n",
    HEAD + "CPUWeight=a\\\nb\n",
    HEAD + "CPUWeight=a \\\n   b \\\n\tc\nCPUWeight=d\n",
    HEAD + "CPUWeight=a\\\n# comment\n; comment\\\nb\n",
    HEAD + "CPUWeight=a\\\n\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\\\\\nCPUWeight=b\\\\\\\nc\n",
    HEAD + "CPUWeight=a\\",
    HEAD + "CPUWeight=a\\\n#x",
    HEAD + "CPUWeight\\\n=a\nCPU\\\nWeight=b\n",
    HEAD + "foo\n=a\n = b\nCPUWeight=c\n",
    "CPUWeight=a\n" + HEAD + "CPUWeight=b\n",
    "\ufeff" + HEAD + "CPUWeight=a\n",
    "\ufeff# comment\n" + HEAD + "CPUWeight=a\n",
    HEAD + "\ufeffCPUWeight=a\nCPUWeight=b\n",
    HEAD + "\ufeffCPUWeight=a\n\ufeffCPUWeight=b\n",
    HEAD + "CPUWeight=a\r\nCPUWeight=b\\\r\nc\r\n",
    HEAD + "CPUWeight=a\rCPUWeight=b\n\rCPUWeight=c\0CPUWeight=d\n\0CPUWeight=e\n",
    HEAD + "CPUWeight=a\n[X-Foo]\nfoo\nCPUWeight=b\n[Slice]\nCPUWeight=c\n",
    HEAD + "CPUWeight=a\n[X-Foo\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\n[X-Foo] # c\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\n[\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\n['x']\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\n[x\\\\y]\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\n[X-\\\nFoo]\nCPUWeight=b\n" + HEAD + "CPUWeight=c\n",
    HEAD + "CPUWeight=a\n  [ Slice ]\nCPUWeight=b\n",
    HEAD + "# \udcff\nCPUWeight=a\nCPUWeight=\udcff\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\n[X-Foo]\nx=\udcff\n[Slice]\nCPUWeight=b\n",
    HEAD + "CPUWeight=a\nCPUWeight=\ufffe\nCPUWeight=b\n",
    HEAD + "CPUWeight=a # b\nCPUWeight=; c\n;CPUWeight=d\n #CPUWeight=e\n",
    HEAD + "CPUWeight=a=b\nCPUWeight==c\n",
    HEAD + "CPUWeight=\"a b\"\nCPUWeight='c'\nCPUWeight=\\x61\n",
    HEAD + "CPUWeight=\u00a0a\u2003\n\u00a0CPUWeight=b\n",
    HEAD + "CPUWeight=a\\ \nCPUWeight=b\n",
    "[X-Foo]\nx=y\\\n[Slice]\nCPUWeight=a\n[Slice]\nCPUWeight=b\n",
]  # fmt: skip


def test_files_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    files = {f"t{number}.slice": text for number, text in enumerate(TEXTS)}
    theirs = verify(tmp_path, files)
    assert any(theirs.values())
    assert {name: shortened(messages) for name, messages in theirs.items()} == {
        name: as_systemd_says(text) for name, text in files.items()
    }


def test_random_files_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    chosen = random.Random(252)
    pieces = [
        "CPUWeight=", "CPUWeight", "a", "b c", "=", "\\", "\\\\", "\\\n", "\n", "\n", "\n", "\r", "\r\n", "\0", "#",
        ";", " ", "\x0b", "\x01", "\udcff", "\t", "[Slice]\n", "[X-A]\n",
        "[", "]", "'", '"', "\ufeff", "ü", "\u2003", "[Slice]",
        "\nCPUWeight=x",
    ]  # fmt: skip
    files = {
        f"r{number}.slice": "[Slice]\n" * chosen.randrange(2)
        + "".join(chosen.choices(pieces, k=chosen.randrange(1, 30)))
        for number in range(150)
    }
    theirs = verify(tmp_path, files)
    assert sum(map(len, theirs.values())) > 50
    differing = {
        repr(text): (shortened(theirs[name]), as_systemd_says(text))
        for name, text in files.items()
        if shortened(theirs[name]) != as_systemd_says(text)
    }
    assert differing == {}


def refused(parse: Callable[[str], object], texts: Sequence[str]) -> set[str]:
    bad = set()
    for text in texts:
        try:
            parse(text)
        except BadValueError:
            bad.add(text)
    return bad


def refused_by_systemd(tmp_path: Path, section: str, key: str, texts: Sequence[str]) -> set[str]:
    """The texts that systemd does not take as the value of a key, each in a file of its own."""
    rest = "\n[Service]\nExecStart=/bin/true\n"
    files = {f"v{number}.service": f"[{section}]\n{key}={text}{rest}" for number, text in enumerate(texts)}
    theirs = verify(tmp_path, files)
    return {text for text, messages in zip(texts, theirs.values(), strict=True) if messages}


def table(name: str) -> list[str]:
    """Texts to try, good and bad ones, one in each line."""
    path = Path(__file__).parent.parent / "fixtures" / "settings" / "values" / f"{name}.txt"
    return path.read_text(encoding="utf-8").splitlines()


BOOLEANS, INTEGERS, SIZES, SHARES = table("booleans"), table("integers"), table("sizes"), table("shares")


def test_booleans_are_those_of_systemd(tmp_path: Path) -> None:
    assert refused(values.parse_boolean, BOOLEANS) == refused_by_systemd(
        tmp_path, "Unit", "RefuseManualStart", BOOLEANS
    )


def test_numbers_are_those_of_systemd(tmp_path: Path) -> None:
    # OOMScoreAdjust= has the same range as Priority=.
    assert refused(values.parse_priority, INTEGERS) == refused_by_systemd(
        tmp_path, "Service", "OOMScoreAdjust", INTEGERS
    )


def test_sizes_are_those_of_systemd(tmp_path: Path) -> None:
    assert refused(values.parse_amount, SIZES) == refused_by_systemd(tmp_path, "Service", "MemoryMax", SIZES)


def test_shares_are_those_of_systemd(tmp_path: Path) -> None:
    assert refused(values.parse_amount, SHARES) == refused_by_systemd(tmp_path, "Service", "MemoryMax", SHARES)


@pytest.mark.parametrize("text", table("times"))
def test_time_spans_are_those_of_systemd(text: str) -> None:
    found = re.search(r"(?:μs|us): ([0-9]+|infinity)", analyze("timespan", "--", text))
    theirs = found[1] if found else "refused"
    try:
        usec = values.parse_time_span(text)
        ours = "infinity" if usec is None else str(usec)
    except BadValueError:
        ours = "refused"
    if theirs == str(2**64 - 1):
        theirs = "infinity"
    assert ours == theirs


WORDS = ["a b", "a\tb  c", "'a b' c", '"a b"c', "a'b c'd", "''", "a '' b", '"it\'s" x', "'", 'a "b', "ä ö"]


def test_words_are_split_and_unquoted_as_in_lists_of_systemd(tmp_path: Path) -> None:
    # ReadWritePaths= names each word that is no absolute path. It also takes escapes apart, so there are none here.
    files = {
        f"w{n}.service": f"[Service]\nExecStart=/bin/true\nReadWritePaths={text}\n" for n, text in enumerate(WORDS)
    }
    for (name, messages), text in zip(verify(tmp_path, files).items(), WORDS, strict=True):
        theirs = [found[1] for message in messages if (found := re.search(r"not absolute, ignoring: (.*)", message))]
        try:
            ours = split_words(text)
        except BadValueError:
            assert any("Failed to extract first word" in message or "quot" in message for message in messages), name
        else:
            assert ours == theirs, name


def test_backslashes_stay_in_words_as_in_names_of_units(tmp_path: Path) -> None:
    # After= names each word that is no unit. It leaves quotes alone, so there are none here.
    text = "a\\x2db c\\\\d e\\ f"
    messages = verify(tmp_path, {"x.service": f"[Unit]\nAfter={text}\n[Service]\nExecStart=/bin/true\n"})["x.service"]
    theirs = [found[1] for message in messages if (found := re.search(r"dependency on (.*), ignoring", message))]
    assert split_words(text) == theirs


def test_systemd_says_nothing_of_our_section(tmp_path: Path) -> None:
    text = "[Slice]\nCPUWeight=5\n[X-OOMSlice]\nPriority=nonsense\nfoo\n=x\nActions='open\n"
    assert verify(tmp_path, {"q.slice": text}) == {"q.slice": []}
