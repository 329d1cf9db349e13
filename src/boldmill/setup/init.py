"""Look at data sets and write a configuration for them: every key with its meaning, unit and default.

A data set is a BIDS folder, a folder of derivatives, or tables of parcel series: a folder of them, or one npz archive.

Names, licences, runs and repetition times come from the folders. Where runs are too short for the default confound
set, a smaller one is proposed for that data set, with the degrees of freedom it leaves.

Example:
    boldmill init /data/ds000001 /data/ds000030 /data/series.npz --out my.yaml
"""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from boldmill.atomic import write_text
from boldmill.config.governed import governed
from boldmill.errors import EXIT_OK, ConfigError
from boldmill.preprocess.strategies import PRESETS

if TYPE_CHECKING:
    from boldmill.config.base import Section
    from boldmill.setup.survey import Survey

WIDTH = 116
BUCKET_SCANS = 64
"""Scans of a bucket: its preprocessing lasts an hour or two on four cores, its other jobs minutes."""

MIN_BUCKETS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "roots", nargs="+", metavar="DATA_SET", type=Path, help="data sets: folders, or files of parcel series"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("my.yaml"), help="default: my.yaml")
    parser.add_argument(
        "--preset", choices=[*PRESETS], default="boldmill", help="set of preprocessing values (default: boldmill)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def run(args: argparse.Namespace) -> int:
    """Survey the folders and write the file."""
    from boldmill.config.load import load
    from boldmill.setup.survey import survey

    if args.out.exists() and not args.force:
        raise ConfigError("file exists", args.out, "it would be overwritten", "give another --out, or --force")
    surveys: list[Survey] = []
    for root in args.roots:
        surveys.append(survey(root, {one.config.name for one in surveys}))
    write_text(args.out, render(surveys, args.preset))
    load(args.out)
    for one in surveys:
        print(f"{one.config.name}: {len(one.subjects)} subjects, {_runs_text(one)}")
    print(f"Written: {args.out}. Next: boldmill doctor --config {args.out}")
    print(f"Then:    snakemake --profile local --configfile {args.out}")
    return EXIT_OK


def buckets_for(n_scans: int) -> int:
    """Return how many buckets hold about 64 of these scans each, and at least 4.

    >>> buckets_for(10), buckets_for(1000), buckets_for(70_000)
    (4, 16, 1094)
    """
    from boldmill.shards.config import MAX_BUCKETS

    return min(MAX_BUCKETS, max(MIN_BUCKETS, math.ceil(n_scans / BUCKET_SCANS)))


def render(surveys: list[Survey], preset: str = "boldmill") -> str:
    """Return the commented configuration of the surveyed data sets."""
    from boldmill.config.model import Config

    project = surveys[0].config.name if len(surveys) == 1 else "study"
    n_scans = sum(len(one.scans) for one in surveys)
    chosen: dict[str, Any] = {
        "project": project,
        "preset": preset,
        **{f"spaces.{key}": value for key, value in PRESETS[preset].get("spaces", {}).items()},
        "results": f"results-{project}",
        **({"models.train": ["brainmass"]} if all(one.config.kind == "tables" for one in surveys) else {}),
        "shards.n_buckets": buckets_for(n_scans),
    }
    lines = [
        "# boldmill configuration, written by `boldmill init`: science only, machine matters live in profiles/.",
        "# Every key may be left out; the default is named beside it. Check with: boldmill doctor --config THIS_FILE",
        "",
    ]
    for name, field in Config.model_fields.items():
        if name == "datasets":
            lines += ["", *_comment(f"{field.description}", 0), "datasets:", *_datasets(surveys, preset)]
        elif name == "evaluate":
            lines += ["", *_evaluate(surveys)]
        else:
            lines += _field(name, field, 0, chosen, "")
    return "\n".join(lines).strip() + "\n"


def _comment(text: str, indent: int) -> list[str]:
    pad = " " * indent
    return [f"{pad}# {line}" for line in textwrap.wrap(text, WIDTH - indent)]


def _scalar(value: Any) -> str:
    """Return a value as one line of YAML."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _section_class(annotation: Any) -> type[Section] | None:
    from boldmill.config.base import Section

    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _field(name: str, field: Any, indent: int, chosen: dict[str, Any], prefix: str) -> list[str]:
    """Return the lines of one key: its description and default as a comment, then its value."""
    pad = " " * indent
    key = f"{prefix}{name}"
    section = _section_class(field.annotation)
    if section is not None:
        lines = [] if indent else [""]
        about = (section.__doc__ or "").strip().splitlines()[0]
        lines += [*_comment(about, indent), f"{pad}{name}:"]
        for inner, inner_field in section.model_fields.items():
            lines += _field(inner, inner_field, indent + 2, chosen, f"{key}.")
        return lines
    default = field.get_default(call_default_factory=True)
    options = [str(option) for option in get_args(field.annotation) if isinstance(option, str)]
    among = f"; one of {', '.join(options)}" if len(options) > 1 else ""
    if isinstance(default, list) and default and hasattr(default[0], "model_dump"):
        default = [item.model_dump(mode="json") for item in default]
    if isinstance(default, tuple):
        default = list(default)
    about = f"{field.description or name}{among} (default: {_scalar(default)})"
    mark = "# " if key in governed() and key not in chosen else ""
    return [*_comment(about, indent), f"{pad}{mark}{name}: {_scalar(chosen.get(key, default))}"]


def _runs_text(one: Survey) -> str:
    if one.config.kind == "tables":
        return _series_text(one)
    n_anat = sum(scan.kind == "anat" for scan in one.scans)
    parts = [f"{n_anat} with a T1w only"] if n_anat else []
    for (task, tr, volumes), count in sorted(one.runs.items(), key=str):
        timing = f"TR {tr:g} s" if tr else "TR unknown"
        parts.append(f"{count} x task-{task} ({volumes or '?'} volumes, {timing})")
    refused = sum(scan.fault is not None for scan in one.scans)
    parts += [f"{refused} refused by name"] if refused else []
    parts += [f"{one.n_ignored} files of no scan"] if one.n_ignored else []
    return ", ".join(parts) or "no scans"


def _series_text(one: Survey) -> str:
    volumes = sorted(n for _, _, n in one.runs if n)
    columns = sorted({scan.table.facts.shape[1] for scan in one.scans if scan.table and not scan.table.facts.fault})
    text = f"{len(one.scans)} series"
    if volumes:
        span = f"{volumes[0]} to {volumes[-1]}" if volumes[0] < volumes[-1] else str(volumes[0])
        text += f" of {' or '.join(map(str, columns[:3]))} columns and {span} volumes"
    return text + (f", {one.n_ignored} others that are not read" if one.n_ignored else "")


def _datasets(surveys: list[Survey], preset: str) -> Iterator[str]:
    from pydantic import BaseModel

    from boldmill.index.config import OF_IMAGES, OF_TABLES, DatasetConfig

    described: set[str] = set()
    for one in surveys:
        foreign = OF_IMAGES if one.config.kind == "tables" else OF_TABLES
        yield from _comment(f"{one.title}: {len(one.subjects)} subjects; {_runs_text(one)}", 2)
        for position, (name, field) in enumerate(DatasetConfig.model_fields.items()):
            lead = "  - " if position == 0 else "    "
            if name in foreign:
                continue
            if name == "overrides":
                yield from _overrides(one, preset)
                continue
            value = one.config.model_dump(mode="json")[name]
            required = field.is_required()
            default: Any = None if required else field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                default = default.model_dump(mode="json")
            note = f"{field.description or 'keep only what is named; labels without BIDS prefix; empty keeps all'}"
            if name not in described:
                described.add(name)
                shown = note if required else f"{note} (default: {_scalar(default)})"
                yield from _comment(shown, 2 if position == 0 else 4)
            yield f"{lead}{name}: {_scalar(value)}"


def _overrides(one: Survey, preset: str) -> Iterator[str]:
    from boldmill.index.dof import residual_dof, suggest_clean
    from boldmill.preprocess.config import CleanConfig
    from boldmill.represent.config import AugmentConfig
    from boldmill.represent.pfc import n_dropped

    base = CleanConfig(**PRESETS[preset].get("clean", {}))
    shortest = one.shortest
    over: dict[str, Any] = {}
    if shortest is not None:
        over, left = suggest_clean(*shortest, base)
        before = residual_dof(*shortest, base)
    if shortest is None or not over:
        yield from _comment("any science setting for this data set only, e.g. {clean: {compcor: 3}} (default: {})", 4)
        yield "    overrides: {}"
        return
    yield from _comment(
        f"The shortest run has {shortest[0]} volumes at TR {shortest[1]:g} s. The default confound set and band-pass "
        f"would leave about {max(before, 0)} degrees of freedom (under {base.min_dof_flag} is flagged, under "
        f"{base.min_dof} quarantined); this set leaves about {left}.",
        4,
    )
    chosen: dict[str, Any] = {"clean": over}
    views = AugmentConfig()
    kept = shortest[0] - n_dropped(shortest[0], views.drop_rate)
    if kept < views.min_timepoints:
        yield from _comment(
            f"A pFC view of it keeps {kept} time points, fewer than the {views.min_timepoints} of the default.", 4
        )
        chosen["augment"] = {"min_timepoints": kept}
    yield f"    overrides: {_scalar(chosen)}"


def _evaluate(surveys: list[Survey]) -> Iterator[str]:
    from boldmill.evaluate.config import EvaluateConfig
    from boldmill.setup.survey import task_suggestions

    fields = EvaluateConfig.model_fields
    yield from _comment((EvaluateConfig.__doc__ or "").strip(), 0)
    yield "evaluate:"
    for name, field in fields.items():
        if name != "tasks":
            yield from _field(name, field, 2, {}, "")
            continue
        found = task_suggestions(surveys, int(fields["folds"].get_default()))
        active = [(task, remark) for task, remark, enough in found if enough]
        about = f"{field.description}; suggested from participants.tsv, keep what you mean (default: [])"
        yield from _comment(about, 2)
        yield "  tasks:" if active else "  tasks: []"
        for task, remark in active:
            yield from _comment(remark, 4)
            yield f"    - {_scalar(task)}"
        for task, remark, enough in found:
            if not enough:
                yield f"  #  - {_scalar(task)}  # {remark}"
