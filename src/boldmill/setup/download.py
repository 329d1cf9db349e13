"""Bring one file over HTTP: whole or not at all, resumed where it broke off, tried again while the network stutters."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from boldmill.atomic import BLOCK
from boldmill.errors import MachineFault

TRIES = 4
WAIT = 1.0
"""Seconds before the second try; twice as long before each further one."""
TIMEOUT = 30.0
"""Seconds without a byte after which a try is given up."""
_PASSING = (416, 429, 500, 502, 503, 504)
_BROKEN = (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException)


class NoNetwork(MachineFault):
    """The other end cannot be reached from here."""


def download(url: str, target: Path, check: Callable[[Path], str], tell: Callable[[int, int], None]) -> None:
    """Bring a file to its place.

    A part that was left by an earlier call is continued, if the server says that the file is still the same (ETag).

    Parameters
    ----------
    url : str
        Where it is.
    target : Path
        Where it goes; replaced in one step when the file is whole and ``check`` has no objection.
    check : callable
        Path of the whole file -> what is wrong with it, in words, or an empty string.
    tell : callable
        Called with the bytes there so far and the bytes of the whole (0: unknown).

    Raises
    ------
    MachineFault
        The server has no such file, or what came is not what was expected.
    NoNetwork
        It could not be reached, or broke off, in every try.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".boldmill-{target.name}.part")
    for attempt in range(1, TRIES + 1):
        try:
            _transfer(url, part, tell)
            break
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # the part is the whole: begin anew
                part.unlink(missing_ok=True)
            if error.code not in _PASSING or attempt == TRIES:
                why = f"the server answers {error.code} {error.reason}"
                fix = "see whether TemplateFlow still has this file, or name another in `spaces`"
                raise MachineFault("cannot fetch", url, why, fix) from error
        except _BROKEN as error:
            if attempt == TRIES:
                raise NoNetwork("cannot fetch", url, f"{_reason(error)}, {TRIES} tries", NO_NETWORK) from error
        time.sleep(WAIT * 2 ** (attempt - 1))
    wrong = check(part)
    if wrong:
        part.unlink()
        fix = "fetch again; if it stays so, TemplateFlow may have a new version: `boldmill fetch --accept` takes it"
        raise MachineFault("cannot use what was fetched", url, wrong, fix)
    part.replace(target)
    _tag(part).unlink(missing_ok=True)


NO_NETWORK = (
    "run this where there is a network (a login node), or set https_proxy, or copy TEMPLATEFLOW_HOME from a machine "
    "that has the files; what has come so far is kept and continued"
)


def _reason(error: BaseException) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return f"no connection ({text})"


def _tag(part: Path) -> Path:
    """The file beside a part that holds the server's mark of the version it is a part of."""
    return part.with_suffix(".etag")


def _transfer(url: str, part: Path, tell: Callable[[int, int], None]) -> None:
    tag = _tag(part)
    have = part.stat().st_size if part.is_file() and tag.is_file() else 0
    headers = {"User-Agent": "boldmill"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="utf-8")}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0
        mark = answer.headers.get("ETag")
        if mark and not mark.startswith("W/"):
            tag.write_text(mark, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length else 0
        with open(part, "ab" if have else "wb") as out:
            while block := answer.read(BLOCK):
                out.write(block)
                have += len(block)
                tell(have, whole)
            out.flush()
            os.fsync(out.fileno())
    if whole and have != whole:
        raise ConnectionError(f"broke off after {have} of {whole} bytes")
