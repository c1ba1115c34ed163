# SPDX-License-Identifier: LGPL-2.1-or-later
"""The right name that was probably meant by a wrong one."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 64  # nobody mistypes a name into this many characters, and comparing takes time with their square


def _plain(name: str) -> str:
    """Without case, dashes and underscores: "kill_scope", "KillScope" and "kill-scope" are one."""
    return name.casefold().replace("-", "").replace("_", "")


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `names` that is most like `name`; None if none is like it (a ratio of `cutoff` as difflib counts)."""
    if not name or len(name) > _LONGEST:
        return None
    import difflib  # only for who mistypes something

    plain = {_plain(right): right for right in names}
    found = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None
