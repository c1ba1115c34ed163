# SPDX-License-Identifier: LGPL-2.1-or-later
"""YAML text -> nodes with their lines, within bounds, and plain views of them. The only importer of PyYAML.

The semantics are those of yaml.safe_load, with three differences: values stay text, so that `yes`, `1:30` and
`150ms/1s` mean what they say and not what YAML 1.1 makes of them; a key that is there twice is refused instead of
replacing the first; and size, depth and the work that aliases can cause are bounded. Nothing is ever constructed from
a tag.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

TEXT_MAX = 256 * 1024
"""Characters in one file."""
DEPTH_MAX = 16
"""Our keys need five levels."""
VISITS_MAX = 200_000
"""Keys and values that are looked at in one file. Aliases let few characters stand for very many."""

_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(
    _CORE + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "seq", "map")
)
_MERGE = _CORE + "merge"


class YamlTextError(Exception):
    """A text that is no YAML we read; `line` and `column` count from 1, 0 meaning the file as a whole."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a node cannot be used."""

    message: str
    line: int
    key: str = ""
    value: str = ""


class _Loader(yaml.SafeLoader):
    """SafeLoader that stops at DEPTH_MAX, before recursion or the scanner's bookkeeping grow with the depth."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise YamlTextError(f"is nested more than {DEPTH_MAX} levels deep", mark.line + 1, mark.column + 1)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Document:
    """The node tree of one file, and a count of how much of it was looked at."""

    def __init__(self, text: str) -> None:
        """Raises YamlTextError if `text` is no YAML, is not one document, or is beyond our bounds."""
        self._visits = 0
        self.root = _compose(text)

    def visit(self, node: yaml.Node) -> None:
        """Counts one key or value. Raises YamlTextError when there were too many."""
        self._visits += 1
        if self._visits > VISITS_MAX:
            raise YamlTextError(f"holds more than {VISITS_MAX} keys and values, aliases followed", line(node))

    def scalar(self, node: yaml.Node) -> str | Refused:
        """The text of a single value, "" for a null one."""
        self.visit(node)
        if not isinstance(node, yaml.ScalarNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
            return Refused(f"is {kind}; write a single value", line(node))
        if node.tag not in _TAGS:
            return Refused(f"has the tag {node.tag}; write the plain value", line(node))
        if node.tag == _CORE + "null":
            return ""
        return str(node.value).strip(" \t\n\r")

    def scalars(self, node: yaml.Node) -> list[yaml.Node] | Refused:
        """The elements of a list; a single value is a list of one."""
        if isinstance(node, yaml.SequenceNode):
            self.visit(node)
            if node.tag not in _TAGS:
                return Refused(f"has the tag {node.tag}; write a plain list", line(node))
            return list(node.value)
        return [node]

    def is_null(self, node: yaml.Node) -> bool:
        """True if nothing was written, or ~ or null."""
        return isinstance(node, yaml.ScalarNode) and node.tag == _CORE + "null"

    def mapping(self, node: yaml.Node) -> tuple[list[tuple[str, yaml.Node, yaml.Node]], list[Refused]]:
        """(key, key's node, value's node) in order, merge keys (<<) carried out, and what is wrong with the keys."""
        self.visit(node)
        if self.is_null(node):
            return [], []
        if not isinstance(node, yaml.MappingNode) or node.tag not in _TAGS:
            return [], [Refused("is no mapping; write keys and values", line(node))]
        pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        refused: list[Refused] = []
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            self.visit(key_node)
            if key_node.tag == _MERGE:
                merged.append(value_node)
                continue
            key = self.scalar(key_node)
            if isinstance(key, Refused):
                refused.append(Refused(f"has a key that {key.message}", key.line))
            elif key in pairs:
                first = line(pairs[key][0])
                text = self.scalar(value_node)
                value = text if isinstance(text, str) else ""
                refused.append(Refused(f"is there twice; the one in line {first} holds", line(key_node), key, value))
            else:
                pairs[key] = (key_node, value_node)
        for value_node in merged:
            for key, key_node, inherited in self._merged(value_node, refused, 1):
                pairs.setdefault(key, (key_node, inherited))
        return [(key, key_node, value_node) for key, (key_node, value_node) in pairs.items()], refused

    def _merged(
        self, node: yaml.Node, refused: list[Refused], depth: int
    ) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """What a merge key brings in; of the same key the first counts. A mapping may be merged into itself."""
        self.visit(node)
        if depth > DEPTH_MAX:
            raise YamlTextError(f"merges mappings more than {DEPTH_MAX} levels deep", line(node))
        if isinstance(node, yaml.SequenceNode):
            for element in node.value:
                yield from self._merged(element, refused, depth + 1)
        elif isinstance(node, yaml.MappingNode):
            later: list[yaml.Node] = []
            for key_node, value_node in node.value:
                self.visit(key_node)
                if key_node.tag == _MERGE:
                    later.append(value_node)
                elif isinstance(key_node, yaml.ScalarNode):
                    yield str(key_node.value), key_node, value_node
            for value_node in later:
                yield from self._merged(value_node, refused, depth + 1)
        else:
            refused.append(Refused("is no mapping; << takes a mapping or a list of mappings", line(node), "<<"))


def line(node: yaml.Node) -> int:
    """The line of a node, from 1."""
    return int(node.start_mark.line) + 1


def _compose(text: str) -> yaml.Node | None:
    if len(text) > TEXT_MAX:
        raise YamlTextError(f"is larger than {TEXT_MAX // 1024} KiB")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        if mark is None:
            raise YamlTextError(f"is not YAML: {message}") from None
        raise YamlTextError(f"is not YAML: {message}", mark.line + 1, mark.column + 1) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise YamlTextError("has a character that YAML does not allow", before.count("\n") + 1, column) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets chr() and int() of its scanner raise, as for "\UFFFFFFFF".
        raise YamlTextError("is not YAML: it has a number or character out of range") from None
