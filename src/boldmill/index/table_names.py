"""Names of ready-made series: which subject, session, task and run the name of a member or file stands for.

Labels are made of letters and digits, as BIDS wants them (``Pitt_0050003`` is subject ``Pitt0050003``). Two names that
become one label are refused later, never joined.
"""

from __future__ import annotations

import re

from boldmill.errors import DataFault
from boldmill.index.names import INDEX_ENTITIES, SCAN_ENTITIES, parse_name

_FIELD = re.compile(r"\{(\w+)\}|(\*)")
_BIDS = re.compile(r"sub-[A-Za-z0-9]+(?:_[a-zA-Z]+-[A-Za-z0-9+]+)*(?:_[A-Za-z0-9]+)?")


def compile_pattern(text: str) -> re.Pattern[str]:
    """Return the regular expression of ``datasets[].pattern``, which must match a whole name.

    ``{sub}``, ``{ses}`` and the other scan entities stand for one or more characters, ``*`` for any; a text with
    ``(?P<`` is a regular expression as it stands.

    Raises
    ------
    ValueError
        Not a regular expression, no subject, or an entity that names no scan.

    >>> compile_pattern("sub-{sub}-{ses}").fullmatch("sub-001-LSD").groupdict()
    {'sub': '001', 'ses': 'LSD'}
    """
    words, last = [], 0
    if "(?P<" not in text:
        for found in _FIELD.finditer(text):
            words += [re.escape(text[last : found.start()]), f"(?P<{found[1]}>.+?)" if found[1] else ".*?"]
            last = found.end()
        words.append(re.escape(text[last:]))
    try:
        pattern = re.compile("".join(words) or text)
    except re.error as error:
        raise ValueError(f"'{text}' is no pattern: {error}") from error
    known = pattern.groupindex
    if odd := sorted(set(known) - set(SCAN_ENTITIES)):
        raise ValueError(f"'{text}' names {odd[0]}; entities are {', '.join(SCAN_ENTITIES)}")
    if "sub" not in known:
        raise ValueError(f"'{text}' does not say where the subject is: write {{sub}}")
    return pattern


def plain_label(text: str) -> str:
    """Return a text as a BIDS label: its letters and digits.

    >>> plain_label("MaxMun_a_0051606")
    'MaxMuna0051606'
    """
    return re.sub("[^A-Za-z0-9]", "", text)


def entities_of(name: str, pattern: str) -> tuple[dict[str, str], str]:
    """Return the scan entities of a series and its subject as written.

    Parameters
    ----------
    name : str
        Name of the member, or of the file without extension; with its folders where the pattern has a ``/``.
    pattern : str
        ``datasets[].pattern``; empty: a BIDS name gives its entities, any other name is the subject.

    Raises
    ------
    DataFault
        The name does not fit, or a label would be empty.
    """
    fix = "set datasets[].pattern, e.g. sub-{sub}-{ses}, or rename it"
    if pattern:
        found = compile_pattern(pattern).fullmatch(name)
        if found is None:
            raise DataFault("unknown name", name, f"'{name}' does not fit the pattern {pattern}", fix)
        given = {key: value for key, value in found.groupdict().items() if value}
    elif name.startswith("sub-"):
        if not _BIDS.fullmatch(name):
            why = f"'{name}' begins with sub- but is no BIDS name: its parts could be one person's sessions"
            raise DataFault("unknown name", name, why, fix)
        entities, _, _ = parse_name(name)
        given = {key: entities[key] for key in SCAN_ENTITIES if key in entities}
    else:
        given = {"sub": name}
    labels = {key: plain_label(given[key]) for key in SCAN_ENTITIES if key in given}
    for key in labels:
        if not labels[key]:
            raise DataFault("unknown name", name, f"'{given[key]}' has no letter or digit for a label", fix)
        if key in INDEX_ENTITIES and not labels[key].isdigit():
            raise DataFault("unknown name", name, f"{key}-{labels[key]} of '{name}' is not a number", fix)
    return labels, given["sub"]
