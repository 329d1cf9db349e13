"""Bring every template and atlas file that a configuration reads into TemplateFlow's store, and check them.

For a machine with a network (a login node); jobs only read. Each file is compared with TemplateFlow's checksum where
that is known, and from then on with what it was at its first fetch (.boldmill.lock.json in the store). What is there
already is kept. BOLDMILL_TEMPLATEFLOW_URL names a mirror.

Two calls for one store take turns: the second waits for the first, then finds its files there.

Exit status: 0 if every file is there and is what it should be, else 1.

example:
  boldmill fetch --config config.yaml my.yaml
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.errors import EXIT_FAILURE, EXIT_OK, BoldmillError, ConfigError, MachineFault, nearest

if TYPE_CHECKING:
    from boldmill.setup.checksums import Lock
    from boldmill.spaces.flow_needs import Need

S3 = "https://templateflow.s3.amazonaws.com"
"""Where TemplateFlow's own client gets its files."""
TURN = ".boldmill.fetching"
"""File in the store that is locked while a call fills it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")
    which.add_argument("--config-json", help="settings as the rule `fetch` gives them (JSON text)")
    parser.add_argument("--check", action="store_true", help="look only: no network, nothing written")
    said = "take files that are not what the checksums say, and note them as they are"
    parser.add_argument("--accept", action="store_true", help=said)


def run(args: argparse.Namespace) -> int:
    """Fetch, compare, and say what is what."""
    from boldmill.setup.checksums import Lock
    from boldmill.spaces.flow import flow_home

    home, wanted = flow_home(), _needs(args)
    if not wanted:
        print("nothing to fetch: this configuration reads no file of TemplateFlow")
        return EXIT_OK
    url = base_url()
    with nullcontext() if args.check else alone(home):
        store = Store(home, Lock(home), url, check=args.check, accept=args.accept)
        faults, warnings = store.bring(wanted)
    for line in store.lines:
        print(line)
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    for text in faults:
        print(f"boldmill fetch: {text}", file=sys.stderr)
    print(f"{len(store.lines)} files in {home} are there and checked, {len(faults)} faults, {len(warnings)} warnings")
    return EXIT_FAILURE if faults else EXIT_OK


def _needs(args: argparse.Namespace) -> list[Need]:
    from boldmill.spaces.flow_needs import config_needs, needs

    if args.config:
        from boldmill.config.load import load

        return config_needs(load(*args.config))
    import json

    from boldmill.spaces.config import SpacesConfig

    given = json.loads(args.config_json)["config"]
    if not given:
        return []
    return list(needs(SpacesConfig.model_validate(given["spaces"]), given["output_spaces"]))


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Fill a store by one call at a time: two would write the same unfinished files and the same list of checksums.

    The system lets go of the lock however a call ends, so nothing is left to clear after a kill.
    """
    import fcntl

    try:
        home.mkdir(parents=True, exist_ok=True)
        turn = open(home / TURN, "a", encoding="utf-8")  # noqa: SIM115
    except OSError:  # a store that only others may write: what is missing there is said file by file
        yield
        return
    with turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"boldmill fetch: another call fills {home}; waiting for it", file=sys.stderr)
            fcntl.flock(turn, fcntl.LOCK_EX)
        except OSError as error:
            text = f"this file system keeps no locks ({error.strerror}): let no second fetch run beside this one"
            print(f"warning: {home}: {text}", file=sys.stderr)
        yield


def base_url() -> str:
    """Return the address of the files, without a slash at its end."""
    url = os.environ.get("BOLDMILL_TEMPLATEFLOW_URL") or S3
    if not url.startswith(("https://", "http://")):
        raise ConfigError("not an address", "BOLDMILL_TEMPLATEFLOW_URL", url, "give one that starts with https://")
    return url.rstrip("/")


class Store:
    """The store while it is being filled.

    Parameters
    ----------
    home : Path
        Its folder.
    lock : Lock
    url : str
        Address of the remote end.
    check : bool
        Only look.
    accept : bool
        Note files as they are, whatever TemplateFlow has.
    """

    def __init__(self, home: Path, lock: Lock, url: str, *, check: bool, accept: bool) -> None:
        self.home, self.lock, self.url, self.check, self.accept = home, lock, url, check, accept
        self.lines: list[str] = []

    def bring(self, wanted: Sequence[Need]) -> tuple[list[str], list[str]]:
        """Bring and compare all files; return the faults, and the warnings about optional ones, one line each."""
        from boldmill.setup.download import NoNetwork

        faults: list[str] = []
        warnings: list[str] = []
        reached = True
        for need in sorted(wanted, key=lambda one: one.optional):
            try:
                files, fresh = self._files(need, reached)
                for path in files:
                    self.lines.append(self._compare(path, fresh))
            except BoldmillError as fault:
                reached = reached and not isinstance(fault, NoNetwork)
                if need.optional:
                    warnings.append(f"{need.what} (read only where a data set lies on the other mesh): {fault}")
                else:
                    faults.append(f"{need.what}: {fault}")
            except PermissionError as error:
                fix = "set TEMPLATEFLOW_HOME to a folder of yours"
                faults.append(f"{need.what}: cannot write: {error.filename}: {error.strerror}. Fix: {fix}")
        return faults, warnings

    def _files(self, need: Need, reached: bool) -> tuple[list[Path], bool]:
        """Return the files of a need, and whether they have just come."""
        from boldmill.setup.checksums import skeleton
        from boldmill.setup.download import NO_NETWORK, NoNetwork
        from boldmill.spaces.flow import FETCH, holds_data

        if found := need.found(self.home):
            return found, False
        if self.check:
            raise MachineFault("missing TemplateFlow file", need.words, f"not below {self.home}", FETCH)
        names = need.among(skeleton())
        if names is None:
            raise _unlisted(need, skeleton())
        for name in names:
            if holds_data(self.home / name):
                continue
            if skeleton()[name]:
                self._unpack(name)
            elif reached:
                self._download(name)
            else:
                raise NoNetwork("cannot fetch", name, "no connection, as above", NO_NETWORK)
        return [self.home / name for name in names], True

    def _unpack(self, name: str) -> None:
        """Write a text file that the client carries whole."""
        from boldmill.atomic import atomic
        from boldmill.setup.checksums import carried

        with atomic(self.home / name) as temporary:
            temporary.write_bytes(carried(name))

    def _download(self, name: str) -> None:
        from urllib.parse import quote

        from tqdm import tqdm

        from boldmill.setup.download import download

        target = self.home / name
        if target.is_symlink():
            why = "it is a link into a DataLad dataset"
            raise MachineFault("missing TemplateFlow file", target, why, f"run `datalad get {target}`")
        known = self.lock.known(name)
        with tqdm(desc=target.name, unit="B", unit_scale=True, leave=False, disable=None) as bar:

            def tell(have: int, whole: int) -> None:
                bar.total = whole or None
                bar.update(have - bar.n)

            check = known.difference if known and not self.accept else _any_bytes
            download(f"{self.url}/{quote(name)}", target, check, tell)

    def _compare(self, path: Path, fresh: bool) -> str:
        """Compare a file with what is known of it, note it, and return the line that says so."""
        name = path.relative_to(self.home).as_posix()
        known, noted = self.lock.known(name), name in self.lock.files
        wrong = known.difference(path) if known else ""
        if wrong and not (self.accept and not self.check):
            fix = "delete it and fetch again, or keep it as it is with `boldmill fetch --accept`"
            raise MachineFault("not the file it should be", path, wrong, fix)
        how = "as TemplateFlow has it" if known and not noted else "as at its first fetch" if noted else "noted now"
        if wrong:
            how = "accepted, though not TemplateFlow's own bytes"
        elif known and not noted and not (known.md5 or known.sha256):
            how = "as large as TemplateFlow's (no checksum known), noted now"
        if not self.check and (not noted or wrong):
            self.lock.note(name, path, how)
        return f"{'fetched' if fresh else 'there':<8} {name} ({path.stat().st_size / 1e6:.2f} MB): {how}"


def _any_bytes(_path: Path) -> str:
    """No objection."""
    return ""


def _unlisted(need: Need, names: Iterable[str]) -> ConfigError:
    """Return the fault of a file that TemplateFlow does not have, with the nearest names of the same kind."""
    from boldmill.spaces.flow import parse_name

    wanted = need.choices[0][0]
    atlas, desc = (dict(wanted.entities).get(key) for key in ("atlas", "desc"))
    parsed = [found for found in (parse_name(Path(name).name) for name in names) if found]
    if atlas is None:
        said = nearest(wanted.template, {one["tpl"] for one in parsed})
    else:
        labels = [one for one in parsed if one["tpl"] == wanted.template and one["suffix"] == "dseg" and "atlas" in one]
        known = {f"{one['atlas']} {one.get('desc', '')}".strip() for one in labels}
        said = nearest(f"{atlas} {desc or ''}".strip(), known)
    return ConfigError("no such TemplateFlow file", need.words, f"its list has none{said}", "correct `spaces`")
