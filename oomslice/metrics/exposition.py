# SPDX-License-Identifier: LGPL-2.1-or-later
"""The text format of Prometheus, version 0.0.4. Pure.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Point(NamedTuple):
    """One line: labels and value; `suffix` is that of a part of a histogram."""

    value: float
    labels: Mapping[str, str] = _NO_LABELS
    suffix: str = ""


class Family(NamedTuple):
    """One metric."""

    name: str
    kind: str
    """"counter", "gauge" or "histogram\""""
    help: str
    points: Sequence[Point] = ()


def exposition(families: Iterable[Family]) -> str:
    """The whole text. A metric without a value is left out."""
    lines = []
    for family in families:
        if not family.points:
            continue
        help_text = family.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {family.name} {help_text}", f"# TYPE {family.name} {family.kind}"]
        lines += [
            f"{family.name}{point.suffix}{_labels(point.labels)} {number(point.value)}" for point in family.points
        ]
    return "".join(f"{line}\n" for line in lines)


def number(value: float) -> str:
    """As Go reads it back."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**63 else repr(float(value))


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()) + "}"
