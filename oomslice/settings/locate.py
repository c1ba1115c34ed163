# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which configuration files count, and in which order: systemd's rules for daemons' files, as pure functions.

The main file is looked for in /etc, /run, /usr/local/lib and /usr/lib; the first found is used alone. Drop-ins
(oomslice.yaml.d/*.yaml) of all four are applied after it, sorted by file name whatever their directory; of two with the
same name the one of the earlier directory is used. So a file in /etc replaces what the package ships under that name,
and an empty file or a link to /dev/null there masks it: it is read, and says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAIN_FILE = "oomslice.yaml"
DROP_IN_DIRECTORY = "oomslice.yaml.d"
DROP_IN_SUFFIX = ".yaml"

_BASES = ("/etc/oomslice", "/run/oomslice", "/usr/local/lib/oomslice", "/usr/lib/oomslice")

DIRECTORIES = tuple(directory for base in _BASES for directory in (base, f"{base}/{DROP_IN_DIRECTORY}"))
"""The directories that configuration_order() wants listed, strongest first."""


def configuration_order(listing: Mapping[str, Sequence[str]]) -> list[str]:
    """The paths to read, in the order of application.

    `listing`: directory (of DIRECTORIES) -> names of the files in it; directories that do not exist are
    left out. Other names than ours are passed over, and so are hidden files and those without .yaml.
    """
    return _sort(listing)[0]


def masked_files(listing: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(path that is not read, path of the same name that is read in its place), for those who wonder."""
    return _sort(listing)[1]


def _sort(listing: Mapping[str, Sequence[str]]) -> tuple[list[str], list[tuple[str, str]]]:
    main: str | None = None
    drop_ins: dict[str, str] = {}
    masked: list[tuple[str, str]] = []
    for base in _BASES:
        if MAIN_FILE in listing.get(base, ()):
            path = f"{base}/{MAIN_FILE}"
            if main is None:
                main = path
            else:
                masked.append((path, main))
        directory = f"{base}/{DROP_IN_DIRECTORY}"
        for name in sorted(set(listing.get(directory, ()))):
            if not _is_drop_in(name):
                continue
            path = f"{directory}/{name}"
            if name in drop_ins:
                masked.append((path, drop_ins[name]))
            else:
                drop_ins[name] = path
    # By bytes, as strcmp() does, not by the rules of a language.
    names = sorted(drop_ins, key=lambda name: name.encode("utf-8", "surrogateescape"))
    return [*([main] if main else []), *(drop_ins[name] for name in names)], masked


def _is_drop_in(name: str) -> bool:
    return name.endswith(DROP_IN_SUFFIX) and not name.startswith(".") and name != DROP_IN_SUFFIX
