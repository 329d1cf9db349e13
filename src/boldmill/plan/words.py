"""What changed between two settings of a stage, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LONGEST = 60
"""Characters of a value in a sentence; longer ones are cut."""

ABSENT: Any = object()


def settings_changes(old: str, new: str) -> list[str]:
    """Return one phrase per difference of two texts of :func:`boldmill.stages.stage_json`.

    >>> old = '{"stage":"clean","version":3,"config":{"clean":{"band_high":0.1}},"overrides":{}}'
    >>> new = '{"stage":"clean","version":4,"config":{"clean":{"band_high":0.08}},"overrides":{}}'
    >>> settings_changes(old, new)
    ['stage version 3 -> 4', 'clean.band_high changed 0.1 -> 0.08']
    """
    before, after = json.loads(old), json.loads(new)
    found: list[str] = []
    if before["version"] != after["version"]:
        found.append(f"stage version {before['version']} -> {after['version']}")
    if before.get("seed") != after.get("seed"):
        found.append(f"seed changed {shown(before.get('seed'))} -> {shown(after.get('seed'))}")
    found += list(_differences(before["config"], after["config"], ""))
    owners = sorted({*before["overrides"], *after["overrides"]})
    for owner in owners:
        over = before["overrides"].get(owner, {}), after["overrides"].get(owner, {})
        found += [f"for data set {owner}, {phrase}" for phrase in _differences(*over, "")]
    return found


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name, ABSENT), new.get(name, ABSENT), f"{key}.{name}" if key else name)
    elif old is ABSENT and isinstance(new, dict) and new:
        yield from _differences({}, new, key)
    elif new is ABSENT and isinstance(old, dict) and old:
        yield from _differences(old, {}, key)
    elif old is ABSENT:
        yield f"{key} is set to {shown(new)}"
    elif new is ABSENT:
        yield f"{key} is no longer set (was {shown(old)})"
    elif _named(old) and _named(new):
        yield from _lists(old, new, key)
    else:
        yield f"{key} changed {shown(old)} -> {shown(new)}"


def _named(value: Any) -> bool:
    """Return whether a value is a list of entries with names (tasks, data sets, variants)."""
    return isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value)


def _lists(old: list[dict[str, Any]], new: list[dict[str, Any]], key: str) -> Iterator[str]:
    before, after = ({item["name"]: item for item in items} for items in (old, new))
    for name in sorted(after.keys() - before.keys()):
        yield f"{key} has a new entry {name}"
    for name in sorted(before.keys() - after.keys()):
        yield f"{key} lost its entry {name}"
    same = sorted(before.keys() & after.keys())
    for name in same:
        yield from _differences(before[name], after[name], f"{key}[{name}]")
    if before == after:
        yield f"{key} changed its order"


def shown(value: Any) -> str:
    """Return a value as a reader writes it, cut where it is long.

    >>> shown(None), shown([2, 2]), shown("36P"), shown("")
    ('null', '[2, 2]', '36P', '""')
    """
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def title(stage: str) -> str:
    """Return a stage as a reader says it.

    >>> title("train_fmri_mae"), title("operator_parcels"), title("zero_shot")
    ('train fmri_mae', 'operator parcels', 'zero-shot')
    """
    for head in ("train_", "operator_"):
        if stage.startswith(head):
            return f"{head[:-1]} {stage.removeprefix(head)}"
    return stage.replace("_", "-")
