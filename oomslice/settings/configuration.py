# SPDX-License-Identifier: LGPL-2.1-or-later
"""oomslice.yaml and its drop-ins: tiers, rules, machine triggers and limits.

Files are merged in the order given: tiers key by key (a later file can change one key of a tier and leave the rest),
rules one after the other (later ones win), machine and limits key by key. A key without a value takes back what an
earlier file said. A bad value is a Problem and changes nothing else; a file that is no YAML contributes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import yaml

from oomslice.settings.keys import (
    CARRIER_PARSERS,
    INTEGER_FIELDS,
    LIMIT_PARSERS,
    MACHINE_PARSERS,
    SETTING_PARSERS,
    YAML_CARRIER_KEYS,
    YAML_LIMIT_KEYS,
    YAML_MACHINE_KEYS,
    YAML_SETTING_KEYS,
    Parser,
)
from oomslice.settings.model import (
    Amount,
    CarrierSwitches,
    Configuration,
    Limits,
    MachineTriggers,
    Problem,
    Rule,
    Source,
    UnitSettings,
)
from oomslice.settings.nearest import nearest
from oomslice.settings.problems import PROBLEMS_MAX, limited
from oomslice.settings.steps import parse_steps
from oomslice.settings.unitname import CGROUP_TYPES, UNIT_NAME_MAX
from oomslice.settings.values import RESERVE_PERMYRIAD_MAX, BadValueError, parse_tier_name, shown
from oomslice.settings.yamltext import Document, Refused, YamlTextError, line

SECTIONS = ("tiers", "rules", "machine", "limits", "carriers", "policy")
MANAGERS = ("system", "user")

_TIER_KEYS = {key: name for key, name in YAML_SETTING_KEYS.items() if name != "tier"}
_RULE_ONLY_KEYS = ("match", "manager")
_POLICY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_LEADING_ZERO = r"[+-]?0[0-9_]+"


@dataclass(slots=True)
class _Assigned:
    """Keys of one place: field -> value and where it was written. A value of None takes an earlier one back."""

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)

    def put(self, name: str, value: object, source: Source) -> None:
        self.values[name] = value
        self.sources[name] = source

    def update(self, later: _Assigned) -> None:
        self.values.update(later.values)
        self.sources.update(later.sources)

    def settings(self) -> UnitSettings:
        values = {name: value for name, value in self.values.items() if value is not None}
        sources = {name: self.sources[name] for name in values}
        return UnitSettings(**values, sources=MappingProxyType(sources))  # type: ignore[arg-type]


@dataclass(slots=True)
class _Parts:
    """What one file says."""

    tiers: dict[str, _Assigned] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    machine: _Assigned = field(default_factory=_Assigned)
    limits: _Assigned = field(default_factory=_Assigned)
    policy: tuple[str, Source] | None = None
    carriers: _Assigned = field(default_factory=_Assigned)


def parse_configuration(files: Sequence[tuple[str, str]]) -> tuple[Configuration, tuple[Problem, ...]]:
    """The configuration that the files make together, and what is wrong in them. Raises nothing.

    `files` are (path, text) in the order of application, see locate.configuration_order().
    """
    problems: list[Problem] = []
    tiers: dict[str, _Assigned] = {}
    rules: list[Rule] = []
    machine, limits, carriers = _Assigned(), _Assigned(), _Assigned()
    policy = ("", Source("", 0))
    for file, text in files:
        reader = _Reader(file)
        try:
            parts = reader.read(text)
        except YamlTextError as error:
            where = f" (column {error.column})" if error.column else ""
            message = f"the file {error}{where}; nothing of it is used"
            problems.append(Problem(Source(file, error.line), "", "", "", message))
            continue
        problems += limited(sorted(reader.problems, key=lambda problem: problem.source.line))
        for name, assigned in parts.tiers.items():
            tiers.setdefault(name, _Assigned()).update(assigned)
        rules += parts.rules
        machine.update(parts.machine)
        limits.update(parts.limits)
        carriers.update(parts.carriers)
        policy = parts.policy or policy
    known = MappingProxyType({name: assigned.settings() for name, assigned in tiers.items()})
    checked = tuple(_with_known_tier(rule, known, problems) for rule in rules)
    triggers = _machine(machine, problems)
    written = {name: value for name, value in carriers.values.items() if value is not None}
    switches = CarrierSwitches(**written)  # type: ignore[arg-type]
    return Configuration(known, checked, triggers, _limits(limits), *policy, carriers=switches), tuple(problems)


def _with_known_tier(rule: Rule, tiers: Mapping[str, UnitSettings], problems: list[Problem]) -> Rule:
    """The rule, without its tier if there is none of that name: the rest of it holds."""
    name = rule.settings.tier
    if name is None or name in tiers:
        return rule
    source = rule.settings.sources["tier"]
    message = unknown_tier(name, tiers) + " The rest of the rule holds"
    problems.append(Problem(source, "rules", "tier", name, message))
    return replace(rule, settings=replace(rule.settings, tier=None))


def unknown_tier(name: str, tiers: Mapping[str, UnitSettings]) -> str:
    """What to say of the name of a tier that the YAML does not have."""
    near = nearest(name, tiers)
    if near:
        return f"is no tier of oomslice.yaml; did you mean {near}?"
    if tiers:
        return f"is no tier of oomslice.yaml; tiers are {', '.join(tiers)}."
    return "is no tier: oomslice.yaml has none."


_ORDERED = ("available_watch", "available_thrash", "available_min")
_LADDER_BOUNDS = (
    ("available_ladder", "available_min", True),
    ("swap_free_ladder", "swap_free_min", True),
    ("available_ladder", "available_watch", False),
)
"""Amount, the one it must not be on the wrong side of, and whether that one is its lower bound."""


def _machine(assigned: _Assigned, problems: list[Problem]) -> MachineTriggers:
    values = {name: value for name, value in assigned.values.items() if value is not None}
    triggers = MachineTriggers(**values)  # type: ignore[arg-type]
    amounts = {name: getattr(triggers, name) for name in _ORDERED}
    for larger, smaller in ((0, 1), (1, 2), (0, 2)):
        high, low = _ORDERED[larger], _ORDERED[smaller]
        if not _is_less(amounts[high], amounts[low]):
            continue
        # At least one of the two was written, for the defaults are in order.
        key = low if low in values else high
        message = (
            f"available-watch >= available-thrash >= available-min must hold, but {high.replace('_', '-')} is "
            f"{amounts[high]} and {low.replace('_', '-')} is {amounts[low]}. All three keep their defaults"
        )
        problems.append(
            Problem(assigned.sources[key], "machine", key.replace("_", "-"), str(amounts[key]), message),
        )
        defaults = MachineTriggers()
        triggers = replace(triggers, **{name: getattr(defaults, name) for name in _ORDERED})
        break
    return _with_ladder_in_order(triggers, assigned, values, problems)


def _with_ladder_in_order(
    triggers: MachineTriggers, assigned: _Assigned, written: Mapping[str, object], problems: list[Problem]
) -> MachineTriggers:
    """Where ladders begin lies between the limits and the watch. A default gives way to what was written."""
    for name, bound_name, is_lower in _LADDER_BOUNDS:
        amount, bound = getattr(triggers, name), getattr(triggers, bound_name)
        if amount.is_zero or not (_is_less(amount, bound) if is_lower else _is_less(bound, amount)):
            continue
        if name in written:
            key = name.replace("_", "-")
            wrong, right = ("less", "at least") if is_lower else ("more", "at most")
            message = (
                f"is {wrong} than {bound_name.replace('_', '-')}, which is {bound}; write {right} that, or 0 for no"
                " ladder before the limits. The value is ignored"
            )
            problems.append(Problem(assigned.sources[name], "machine", key, str(amount), message))
        triggers = replace(triggers, **{name: bound})
    return triggers


def _is_less(a: Amount, b: Amount) -> bool:
    """True if `a` is less whatever the machine has. A size and a share cannot be compared without a machine."""
    if a.bytes is not None and b.bytes is not None:
        return a.bytes < b.bytes
    if a.permyriad is not None and b.permyriad is not None:
        return a.permyriad < b.permyriad
    return False


def _limits(assigned: _Assigned) -> Limits:
    values = {name: value for name, value in assigned.values.items() if value is not None}
    sources = MappingProxyType({name: assigned.sources[name] for name in values})
    return Limits(**values, sources=sources)  # type: ignore[arg-type]


def with_possible_reserve(limits: Limits, memory_total: int) -> tuple[Limits, tuple[Problem, ...]]:
    """The limits, on a machine with so much memory (bytes): a reserve of more than a quarter of it is not kept."""
    size = limits.reserve.bytes
    most = memory_total * RESERVE_PERMYRIAD_MAX // 10_000
    if size is None or size <= most:
        return limits, ()
    message = f"is more than a quarter of memory, which is {most} bytes here. The default is kept"
    source = limits.sources.get("reserve", Source("", 0))
    problem = Problem(source, "limits", "reserve", str(limits.reserve), message)
    return replace(limits, reserve=Limits().reserve), (problem,)


class _Reader:
    """Reads one file, collecting problems."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._section = ""
        self._document: Document
        self.problems: list[Problem] = []

    def read(self, text: str) -> _Parts:
        """Raises YamlTextError if the file as a whole cannot be used."""
        self._document = Document(text)
        parts = _Parts()
        if self._document.root is None:
            return parts
        for key, key_node, node in self._pairs(self._document.root, "the file"):
            self._section = key
            if key == "tiers":
                self._tiers(node, parts)
            elif key == "rules":
                self._rules(node, parts)
            elif key == "machine":
                parts.machine = self._assignments(node, YAML_MACHINE_KEYS, MACHINE_PARSERS)
            elif key == "limits":
                parts.limits = self._assignments(node, YAML_LIMIT_KEYS, LIMIT_PARSERS)
            elif key == "policy":
                parts.policy = self._policy(key_node, node)
            elif key == "carriers":
                parts.carriers = self._assignments(node, YAML_CARRIER_KEYS, CARRIER_PARSERS)
            elif not key.lower().startswith("x-"):  # a place for anchors of one's own, as X- is in unit files
                self._section = ""
                self._unknown(key, key_node, SECTIONS)
            self._section = ""
        return parts

    def _policy(self, key_node: yaml.Node, node: yaml.Node) -> tuple[str, Source] | None:
        """None if the value is wrong: then what an earlier file said holds."""
        name = self._document.scalar(node)
        self._section = ""
        if isinstance(name, Refused):
            self._problem(name.line, "policy", "", f"{name.message}. The value is ignored")
            return None
        if name and not re.fullmatch(_POLICY_NAME, name):
            message = "is no name of a policy; use letters, digits, dots, underscores and hyphens, at most 64"
            self._problem(line(key_node), "policy", name, f"{message}. The value is ignored")
            return None
        return name, Source(self._file, line(key_node))

    def _tiers(self, node: yaml.Node, parts: _Parts) -> None:
        for name, name_node, keys in self._pairs(node, "tiers"):
            try:
                parse_tier_name(name)
            except BadValueError as error:
                self._problem(line(name_node), name, "", f"{error}. The tier is ignored")
                continue
            self._section = f"tiers.{name}"
            parts.tiers[name] = self._assignments(keys, _TIER_KEYS, SETTING_PARSERS)
        self._section = "tiers"

    def _rules(self, node: yaml.Node, parts: _Parts) -> None:
        if self._document.is_null(node):
            return
        if not isinstance(node, yaml.SequenceNode):
            self._problem(line(node), "rules", "", 'is no list; begin each rule with "- match:"')
            return
        for number, element in enumerate(node.value):
            self._section = f"rules[{number}]"
            rule = self._rule(element)
            if rule:
                parts.rules.append(rule)

    def _rule(self, node: yaml.Node) -> Rule | None:
        """One rule; None if it cannot be said whose units it is for."""
        special: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        assigned = _Assigned()
        for key, key_node, value_node in self._pairs(node, "the rule"):
            if key in _RULE_ONLY_KEYS:
                special[key] = (key_node, value_node)
            else:
                self._assign(assigned, key, key_node, value_node, YAML_SETTING_KEYS, SETTING_PARSERS)
        if "match" not in special:
            if isinstance(node, yaml.MappingNode):
                message = (
                    'the rule has no match and is ignored; say which units it is for, as in "match: backup-*.service"'
                )
                self._problem(line(node), "", "", message)
            return None
        match = tuple(self._globs(*special["match"]))
        manager = self._manager(*special["manager"]) if "manager" in special else "system"
        if not match or manager is None:
            return None
        return Rule(match, assigned.settings(), manager, Source(self._file, line(node)))

    def _manager(self, key_node: yaml.Node, node: yaml.Node) -> str | None:
        manager = self._document.scalar(node)
        if isinstance(manager, Refused):
            self._problem(manager.line, "manager", "", f"{manager.message}. The rule is ignored")
            return None
        if manager and manager not in MANAGERS:
            message = "is not known; write system or user. The rule is ignored"
            self._problem(line(key_node), "manager", manager, message)
            return None
        return manager or "system"

    def _globs(self, key_node: yaml.Node, node: yaml.Node) -> Iterator[str]:
        nodes = self._document.scalars(node)
        if isinstance(nodes, Refused):
            self._refused(nodes, "match")
            return
        if not nodes or (len(nodes) == 1 and self._document.is_null(nodes[0])):
            self._problem(line(key_node), "match", "", "is empty, so the rule is for no unit and is ignored")
            return
        for element in nodes:
            glob = self._document.scalar(element)
            if isinstance(glob, Refused):
                self._refused(glob, "match")
                continue
            wrong = _glob_problem(glob)
            if wrong:
                self._problem(line(element), "match", glob, wrong)
            else:
                yield glob

    def _assignments(self, node: yaml.Node, keys: Mapping[str, str], parsers: Mapping[str, Parser]) -> _Assigned:
        assigned = _Assigned()
        for key, key_node, value_node in self._pairs(node, self._section):
            self._assign(assigned, key, key_node, value_node, keys, parsers)
        return assigned

    def _assign(
        self,
        assigned: _Assigned,
        key: str,
        key_node: yaml.Node,
        node: yaml.Node,
        keys: Mapping[str, str],
        parsers: Mapping[str, Parser],
    ) -> None:
        name = keys.get(key)
        if name is None:
            self._unknown(key, key_node, keys, node)
            return
        source = Source(self._file, line(key_node))
        if self._document.is_null(node):
            assigned.put(name, None, source)
            return
        text = ""
        try:
            if name == "actions" and isinstance(node, yaml.SequenceNode):
                steps = self._steps(node)
                if steps is not None:
                    assigned.put(name, parse_steps(steps), source)
                return
            value = self._document.scalar(node)
            if isinstance(value, Refused):
                self._refused(value, key)
                return
            text = value
            assigned.put(name, self._value(name, text, node, parsers) if text else None, source)
        except BadValueError as error:
            self._problem(source.line, key, text, f"{error}. The value is ignored")

    def _value(self, name: str, text: str, node: yaml.Node, parsers: Mapping[str, Parser]) -> object:
        if name in INTEGER_FIELDS and re.fullmatch(_LEADING_ZERO, text):
            raise BadValueError("has a leading zero, which is octal to some and not to others; leave it out")
        return parsers[name](text)

    def _steps(self, node: yaml.SequenceNode) -> list[str] | None:
        """The steps of `actions:` written as a list, one step in each element; None if one is no text."""
        steps: list[str] = []
        nodes = self._document.scalars(node)
        if isinstance(nodes, Refused):
            self._refused(nodes, "actions")
            return None
        for element in nodes:
            step = self._document.scalar(element)
            if isinstance(step, Refused):
                self._refused(step, "actions")
                return None
            steps.append(step)
        return steps

    def _pairs(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        pairs, refused = self._document.mapping(node)
        for one in refused:
            if one.key:
                self._problem(one.line, one.key, one.value, one.message)
            else:
                self._problem(one.line, "", "", f"{what} {one.message}")
        return pairs

    def _unknown(
        self, key: str, node: yaml.Node, keys: Sequence[str] | Mapping[str, str], value: yaml.Node | None = None
    ) -> None:
        if key == "tier" and keys is _TIER_KEYS:
            right = "a tier cannot name another tier"
        elif key in YAML_SETTING_KEYS or key in YAML_MACHINE_KEYS or key in YAML_LIMIT_KEYS:
            right = f"it belongs {_PLACES[key]}"
        else:
            candidates = [*keys, *(_RULE_ONLY_KEYS if keys is YAML_SETTING_KEYS else ())]
            # Comparing takes time, and what is beyond the bound is not said.
            near = nearest(key, candidates) if len(self.problems) <= PROBLEMS_MAX else None
            right = f"did you mean {near}?" if near else f"keys are {', '.join(candidates)}"
        text = self._document.scalar(value) if isinstance(value, yaml.ScalarNode) else ""
        self._problem(line(node), key, text if isinstance(text, str) else "", f"is no key here and is ignored; {right}")

    def _refused(self, refused: Refused, key: str) -> None:
        self._problem(refused.line, key, "", f"{refused.message}. The value is ignored")

    def _problem(self, number: int, key: str, value: str, message: str) -> None:
        self.problems.append(
            Problem(Source(self._file, number), shown(self._section), shown(key), shown(value), message)
        )


_PLACES = {
    **{key: "in tiers or rules" for key in YAML_SETTING_KEYS},
    **{key: "below machine:" for key in YAML_MACHINE_KEYS},
    **{key: "below limits:" for key in YAML_LIMIT_KEYS},
}


def _glob_problem(glob: str) -> str:
    """Why no unit of ours can match `glob`; "" if one can."""
    if not glob:
        return "is empty and matches no unit"
    if len(glob) > UNIT_NAME_MAX:
        return "is longer than a unit's name can be"
    if "/" in glob or any(not character.isprintable() or character.isspace() for character in glob):
        return "matches no unit: names have no slash and no white space"
    _, dot, suffix = glob.rpartition(".")
    if any(character in "*?[]" for character in (suffix if dot else glob[-1])) or (dot and suffix in CGROUP_TYPES):
        return ""
    endings = ", ".join(f".{name}" for name in CGROUP_TYPES)
    return f"matches no slice, service or scope; end it in one of {endings}, or in *"
