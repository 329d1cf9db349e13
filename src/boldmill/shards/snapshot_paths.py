"""Which snapshot training reads, and which of its files a job has yet to make."""

from __future__ import annotations

from functools import cached_property

from boldmill.paths import ROLLING, Layout


class SnapshotPaths:
    """Paths of the rolling and of the configured snapshot, as the rules ask for them.

    Parameters
    ----------
    layout : Layout
        Where results lie.
    name : str
        ``snapshot.name``; ``latest`` is the rolling one.
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout, self._name = layout, name

    @property
    def rolling(self) -> str:
        """Manifest of the shards as they are."""
        return str(self._layout.snapshot(ROLLING))

    @property
    def read(self) -> str:
        """Manifest that training and evaluation read."""
        return str(self._layout.snapshot(self._name))

    @property
    def named(self) -> list[str]:
        """Manifest of the frozen snapshot; none where training follows every update."""
        return [] if self._name == ROLLING else [self.read]

    @property
    def frozen(self) -> list[str]:
        """List of its shards; none where training follows every update."""
        return [] if self._name == ROLLING else [str(self._layout.frozen(self._name))]

    @cached_property
    def to_freeze(self) -> list[str]:
        """The same, until it is there: from then on no job makes it, and no data update reaches what reads it."""
        return [] if self._name == ROLLING or self._layout.frozen(self._name).exists() else self.frozen
