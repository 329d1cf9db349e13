"""Which logs to read after a failure: by name only, since their text names people."""

from __future__ import annotations

from pathlib import Path

SHOWN = 10


def failed_logs(results: Path, since: float) -> list[Path]:
    """Return the logs of jobs that failed since a time, the last one first.

    A job that succeeds writes its benchmark after its log; one that fails leaves none, or an older one. Logs of single
    people, which a bucket's log names, are left out.

    Parameters
    ----------
    since : float
        Seconds since the epoch: when the run began.
    """
    found: list[tuple[float, Path]] = []
    for log in (results / "logs").rglob("*.log"):
        if "sub-" in log.name:
            continue
        written = log.stat().st_mtime
        benchmark = results / "benchmarks" / log.relative_to(results / "logs").with_suffix(".jsonl")
        if written >= since and not (benchmark.is_file() and benchmark.stat().st_mtime >= written):
            found.append((written, log))
    return [log for _, log in sorted(found, reverse=True)]


def words(results: str, since: float) -> str:
    """Return what to print when a run ends with an error: which logs to read; empty where none is new."""
    logs = failed_logs(Path(results), since)
    if not logs:
        return ""
    more = f"\n  and {len(logs) - SHOWN} more" if len(logs) > SHOWN else ""
    return "boldmill: what failed is said in\n" + "\n".join(f"  {log}" for log in logs[:SHOWN]) + more
