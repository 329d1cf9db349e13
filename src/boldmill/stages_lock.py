"""Show stage versions, and hold each stage's code to its version.

A change of imported code reruns nothing by itself: only the stage's version, which is part of the tracked params,
does. stages.lock holds the version and the digest of each stage's code; `check` fails where the code moved and the
version did not. Comments, docstrings and layout are no code.

  show        versions, digests and whether they agree with the lock
  check       exit 1 if a stage's code moved without its version
  lock        take over the digests of stages whose version was raised (or that are new)
  accept      take over one stage's digest without a new version: the change gives the same bytes
  bump-hint   what to edit for each stage that moved

Example:
    boldmill stages accept parcellate --no-op "renamed a local variable"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json, write_text
from boldmill.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from boldmill.paths import MODELS
from boldmill.stages import STAGES, Stage, stage

LOCK = Path(__file__).with_name("stages.lock")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    verbs = ("show", "check", "lock", "accept", "bump-hint")
    parser.add_argument("verb", nargs="?", default="show", choices=verbs, help="default: show")
    parser.add_argument("name", nargs="?", help="stage to accept")
    parser.add_argument("--no-op", metavar="REASON", help="why the change gives the same bytes (with accept)")


def current() -> dict[str, dict[str, Any]]:
    """Return version and code digest of every stage whose modules are there."""
    from boldmill.code_digest import Sources

    sources = Sources(Path(__file__).parent, "boldmill")
    found = {}
    for name, chosen in STAGES.items():
        if sources.exists(chosen.module):
            found[name] = {
                "version": chosen.version,
                "digest": sources.digest(chosen.module, _not_chosen(name, chosen)),
            }
    return found


def _not_chosen(name: str, chosen: Stage) -> tuple[str, ...]:
    """Return packages a stage's module could load by name but does not: training one model loads no other."""
    model = name.removeprefix("train_")
    if chosen.module != "boldmill.train.command" or model not in MODELS:
        return ()
    return tuple(f"boldmill.models.{other}" for other in MODELS if other != model)


def read_lock(path: Path = LOCK) -> dict[str, dict[str, Any]]:
    """Return the committed lock; an absent one is empty."""
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path)["stages"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError("cannot read the stage lock", path, str(error), "restore it from git") from error


def write_lock(stages: dict[str, dict[str, Any]], path: Path = LOCK) -> None:
    """Write the lock."""
    write_text(path, json.dumps({"schema": 1, "stages": stages}, indent=2, sort_keys=True) + "\n")


def compare(now: dict[str, dict[str, Any]], locked: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the state of every stage: ``ok``, or what is wrong.

    ``new`` (not in the lock), ``bumped`` (version raised: lock it), ``lowered``, ``moved`` (code moved, version did
    not), ``gone`` (locked, but its module is missing).
    """
    states = {}
    for name in sorted({*now, *locked}):
        if name not in now:
            states[name] = "gone"
        elif name not in locked:
            states[name] = "new"
        elif now[name]["version"] != locked[name]["version"]:
            states[name] = "bumped" if now[name]["version"] > locked[name]["version"] else "lowered"
        else:
            states[name] = "ok" if now[name]["digest"] == locked[name]["digest"] else "moved"
    return states


ADVICE = {
    "moved": "raise its version in stages.py, then `boldmill stages lock`; if no byte of its output can differ: "
    '`boldmill stages accept {name} --no-op "REASON"`',
    "new": "`boldmill stages lock`",
    "bumped": "`boldmill stages lock`",
    "lowered": "a version never goes down; raise it above the locked one",
    "gone": "restore its module, or take the stage out of stages.py and run `boldmill stages lock`",
}


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    now, locked = current(), read_lock()
    states = compare(now, locked)
    wrong = {name: state for name, state in states.items() if state != "ok"}
    if args.verb == "show":
        for name in STAGES:
            digest = now.get(name, {}).get("digest", "-")[:16]
            print(f"{name:<16} version {STAGES[name].version:<3} code {digest:<16} {states.get(name, 'no module yet')}")
        return EXIT_OK
    if args.verb == "lock":
        return _lock(now, locked, states)
    if args.verb == "accept":
        return _accept(args, now, locked)
    for name, state in wrong.items():
        print(f"{name}: {state}. {ADVICE[state].format(name=name)}")
    if args.verb == "check" and not wrong:
        print(f"{len(now)} stages agree with {LOCK.name}")
    return EXIT_FAILURE if wrong and args.verb == "check" else EXIT_OK


def _lock(now: dict[str, dict[str, Any]], locked: dict[str, dict[str, Any]], states: dict[str, str]) -> int:
    refused = [name for name, state in states.items() if state in ("moved", "lowered")]
    kept = {name: locked[name] for name in states if name in STAGES and name in locked}
    for name, state in states.items():
        if state in ("new", "bumped"):
            kept[name] = now[name]
            print(f"{name}: locked at version {now[name]['version']}")
    write_lock(kept)
    for name in refused:
        print(f"{name}: {states[name]}, not locked. {ADVICE[states[name]].format(name=name)}")
    return EXIT_FAILURE if refused else EXIT_OK


def _accept(args: argparse.Namespace, now: dict[str, dict[str, Any]], locked: dict[str, dict[str, Any]]) -> int:
    if not args.name or not (args.no_op or "").strip():
        why = "a stage and --no-op REASON are needed"
        raise ConfigError("cannot accept", "boldmill stages accept", why, 'accept NAME --no-op "why no byte differs"')
    stage(args.name)
    if args.name not in now or args.name not in locked:
        raise ConfigError("cannot accept", args.name, "it is not in the lock yet", "`boldmill stages lock`")
    if now[args.name]["version"] != locked[args.name]["version"]:
        raise ConfigError("cannot accept", args.name, "its version changed", "`boldmill stages lock`")
    entry = locked[args.name]
    noted = {"digest": now[args.name]["digest"], "reason": " ".join(args.no_op.split())}
    locked[args.name] = {**entry, "digest": noted["digest"], "accepted": [*entry.get("accepted", []), noted]}
    write_lock(locked)
    print(f"{args.name}: accepted at version {entry['version']}")
    return EXIT_OK
