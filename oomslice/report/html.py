# SPDX-License-Identifier: LGPL-2.1-or-later
"""Markup whose text cannot become markup: every string is escaped unless it is `Markup` already."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

VOID = frozenset({"br", "meta"})
"""Elements that have no end tag."""
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")


class Markup(str):
    """Text that is HTML, as only `tag` and `raw` make it."""

    __slots__ = ()


def text(value: object) -> Markup:
    """`value` as HTML text, in attributes too. What cannot be seen or turns the direction of writing around is written
    \\xNN, so that no name can look like another."""
    string = str(value)
    if not string.isprintable():
        string = "".join(_visible(character) for character in string)
    return Markup(escape(string, quote=True))


def _visible(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape", "backslashreplace").decode()


def raw(trusted: str) -> Markup:
    """A constant of this package that is HTML or CSS already."""
    return Markup(trusted)


def join(children: Iterable[object]) -> Markup:
    """Children one after the other; None is nothing."""
    return Markup(
        "".join(child if isinstance(child, Markup) else text(child) for child in children if child is not None)
    )


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. `class_` is class, `aria_label` is aria-label; an attribute of None or False is left out."""
    shown = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if not NAME.fullmatch(key):
            raise ValueError(f"no name of an attribute: {key!r}")
        if value is None or value is False:
            continue
        shown.append(f" {key}" if value is True else f' {key}="{text(value)}"')
    start = f"<{name}{''.join(shown)}>"
    if name in VOID:
        return Markup(start)
    return Markup(f"{start}{join(children)}</{name}>")


def unit(name: str) -> Markup:
    """The name of a unit or cgroup: set apart, whichever direction its letters run, and breaking where it must."""
    return tag("bdi", name, class_="unit")


def with_units(sentence: str, names: Iterable[str]) -> Markup:
    """A sentence in which the given names are set apart."""
    known = sorted({name for name in names if name}, key=len, reverse=True)
    if not known:
        return text(sentence)
    either = "|".join(re.escape(name) for name in known)
    parts = re.split(rf"(?<![\w.@-])({either})(?![\w@-]|\.\w)", sentence)
    return join(unit(part) if part in known else part for part in parts)
