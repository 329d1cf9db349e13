"""What the Snakefile asks at parse time: the checked configuration, the index, and each rule's inputs.

Parsing must stay cheap, because every cluster job parses the Snakefile again: one index is read, nothing
is globbed, nothing heavy is imported.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.ablation.variants import evaluation_config, variant_config, variant_of
from boldmill.cluster.signals import ignore_warning
from boldmill.config.load import parse
from boldmill.errors import ConfigError
from boldmill.optional import optional_outputs
from boldmill.paths import ATLAS_TABLES, SHARD_TABLES, Layout, in_braces
from boldmill.plan.resources import Resources
from boldmill.shards.snapshot_paths import SnapshotPaths
from boldmill.snakemake_line import is_real_run, parse_options
from boldmill.spaces.flow_needs import fetch_json
from boldmill.spaces.names import atlas_labels, configured_atlases, for_atlas
from boldmill.stages import stage_json

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.index.read import Index

OFFLINE = {"NO_ET": "1", "NIPYPE_NO_ET": "1", "HF_HUB_OFFLINE": "1", "TEMPLATEFLOW_AUTOUPDATE": "off"}
"""Libraries that would ask the network when they are imported or called do not in a job."""
INDEX_FREE = ({"ingest"}, {"fetch"}, {"ingest", "fetch"})
"""Targets that need no index of the data sets."""
NO_INDEX = "there is no index of these data sets yet: run `snakemake ingest` with the same options first"


class Plan:
    """Configuration, layout and index behind one reading of the Snakefile."""

    def __init__(self, config: Config, index: Index | None) -> None:
        self.config = config
        self.layout = Layout.at(config.results)
        self.index = index
        self.snapshots = SnapshotPaths(self.layout, config.snapshot.name)
        self._texts: dict[tuple[Any, ...], str] = {}

    def settings(self, stage: str) -> Callable[[Any], str]:
        """Return the ``params`` callable of a rule: the tracked JSON of its settings, per data set where known."""

        def text(wildcards: Any) -> str:
            name = stage.format(**dict(wildcards.items()))
            atlas = wildcards.atlas if name == "atlas" else None  # one job per atlas, each with settings of its own
            return self._text(name, atlas, wildcards.get("variant"), self._datasets(wildcards.get("bucket")))

        return text

    def fetch(self, _wildcards: Any) -> str:
        """Settings of the rule `fetch`."""
        return fetch_json(self.config)

    def memory(self, stage: str) -> Callable[..., int]:
        """Return the ``mem_mb`` of a rule, from the measured table and the scans of the job."""
        return self.resources.memory(stage)

    def minutes(self, stage: str) -> Callable[..., int]:
        """Return the ``runtime`` of a rule, from the measured table and the scans of the job."""
        return self.resources.minutes(stage)

    @cached_property
    def resources(self) -> Resources:
        """What jobs ask for: the table that `boldmill plan` adds up."""
        return Resources(self.index, self.config)

    def parcel_operators(self, _wildcards: Any) -> list[str]:
        """Operators of every configured atlas, the one models read first, in projects that bring a scan to one.

        Then every bucket gets them, one of tables alone too, so that all shards of a table have one schema.
        """
        if not self._needs_atlas:
            return []
        return [str(self.layout.operator(f"parcels-{label}")) for label in configured_atlases(self.config.spaces)]

    def flat_operators(self, _wildcards: Any) -> list[str]:
        """Operators that bring any series to the flat grid."""
        return [str(self.layout.operator(name)) for name in ("ribbon", "flat", "meshes")]

    def tickets(self, wildcards: Any) -> list[str]:
        """Lists of one bucket's tickets: of images, of tables of parcel series, whichever it holds."""
        bucket = int(wildcards.bucket)
        images = [str(self.layout.bucket(bucket))] if self._index.subjects_in(bucket) else []
        return images + self.tables(wildcards)

    def tables(self, wildcards: Any) -> list[str]:
        """List of one bucket's tables of parcel series, which no job preprocesses, where it holds any."""
        bucket = int(wildcards.bucket)
        return [str(self.layout.bucket_tables(bucket))] if self._index.has_tables(bucket) else []

    def subjects(self, wildcards: Any) -> list[str]:
        """List of one bucket's subject manifests, where somebody of it has images."""
        bucket = int(wildcards.bucket)
        return [str(self.layout.preprocessed(bucket))] if self._index.subjects_in(bucket) else []

    def flat(self, wildcards: Any) -> list[str]:
        """Manifest of one bucket's flat maps, where somebody of it has images to map."""
        bucket = int(wildcards.bucket)
        return [str(self.layout.flat(bucket))] if self._index.subjects_in(bucket) else []

    def frames(self, wildcards: Any) -> list[str]:
        """Folder of one bucket's flat-map frames, where somebody of it has images to map."""
        bucket = int(wildcards.bucket)
        return [str(self.layout.frames(bucket))] if self._index.subjects_in(bucket) else []

    def clips(self) -> list[str]:
        """Flat clips of every bucket that holds somebody whose images are mapped."""
        return self.per_preprocessed(partial(self.layout.shard, "flat_clips"))

    def optional(self, *names: str) -> list[str]:
        """Tables that are made only where they are configured, by what they hold; without names, all."""
        found = optional_outputs(self.config)
        return [str(path) for name in (names or found) for path in found[name]]

    def variants(self, path: Callable[[str], Path]) -> list[str]:
        """One path per variant of the ablation."""
        return [str(path(variant.name)) for variant in self.config.ablation.variants]

    def per_bucket(self, path: Callable[[int], Path]) -> list[str]:
        """One path per bucket that holds at least one usable scan."""
        return [str(path(bucket)) for bucket in self._index.buckets()] if self.index else []

    def per_preprocessed(self, path: Callable[[int], Path]) -> list[str]:
        """One path per bucket that holds somebody whose images are preprocessed."""
        return [str(path(bucket)) for bucket in self._index.preprocessed_buckets()] if self.index else []

    @cached_property
    def atlases(self) -> list[str]:
        """Labels of all atlases, the one models read first."""
        return atlas_labels(self.config)

    def atlas_shards(self, table: str) -> list[str]:
        """Outputs of a rule per bucket: the shard of every atlas, with the wildcard ``bucket``."""
        folder = self.layout.results / "shards" / table
        return [str(folder / label / "bucket-{bucket}.parquet") for label in self.atlases]

    def shards(self, table: str) -> list[str]:
        """Every shard of one table."""
        labels = self.atlases if table in ATLAS_TABLES else [""]
        return [s for label in labels for s in self.per_bucket(partial(self.layout.shard, table, atlas=label))]

    def all_shards(self) -> list[str]:
        """Every shard of every table."""
        return [shard for table in (*SHARD_TABLES, "pfc") for shard in self.shards(table)]

    @cached_property
    def scan_shards(self) -> str:
        """Every shard of scans, as one short word of a shell line."""
        return in_braces(self.layout.shard("scans", 0).parent, self.index.buckets() if self.index else [], ".parquet")

    def models(self, path: Callable[[str], Path]) -> list[str]:
        """One path per configured model."""
        return [str(path(model)) for model in self.config.models.train]

    def first_weights(self, wildcards: Any) -> list[str]:
        """Weights that training of a model or a variant starts from (``models.brainmass.init``), if there are any."""
        config = self.config
        if variant := wildcards.get("variant"):
            config = variant_config(config, variant_of(config, variant))
        elif wildcards.model != "brainmass":
            return []
        init = config.models.brainmass.init
        return [] if init is None else [init]

    def drawn_atlas(self, _wildcards: Any) -> list[str]:
        """Manifest of the atlas models read, where the project prepares it."""
        return [str(self.layout.atlas(self.atlases[0]))] if self._needs_atlas else []

    def status(self) -> str:
        """Return the command that prints progress and the failure table of this configuration."""
        words = ["python", "-m", "boldmill", "status", "--results", self.config.results, "--atlases", *self.atlases]
        words += ["--snapshot", self.config.snapshot.name, "--models", *self.config.models.train]
        also = [f"{name}={path}" for name, paths in optional_outputs(self.config).items() for path in paths]
        return shlex.join([*words, "--also", *also])

    def _text(self, name: str, atlas: str | None, variant: str | None, datasets: frozenset[str] | None) -> str:
        """Return the settings of one stage; many jobs share them, so each is made once."""
        key = name, atlas, variant, datasets
        if key not in self._texts:
            config = self.config
            if atlas is not None:
                config = config.model_copy(update={"spaces": for_atlas(config.spaces, atlas)})
            if variant:  # of the ablation: the base with its changes, evaluated briefly
                config = variant_config(evaluation_config(config), variant_of(config, variant))
            self._texts[key] = stage_json(config, name, datasets)
        return self._texts[key]

    def _datasets(self, bucket: str | None) -> frozenset[str] | None:
        """Data sets whose overrides a job reads: those of its bucket that have any; all where it has no bucket."""
        if bucket is None:
            return None
        return self._index.datasets_in(int(bucket)) & self._overriding if self._overriding else frozenset()

    @cached_property
    def _overriding(self) -> frozenset[str]:
        return frozenset(dataset.name for dataset in self.config.datasets if dataset.overrides)

    @cached_property
    def _needs_atlas(self) -> bool:
        """Whether there is more than tables of atlases of their own."""
        own = {dataset.name for dataset in self.config.datasets if dataset.atlas}
        return any(scan.dataset not in own for scan in self._index.ok)

    @property
    def _index(self) -> Index:
        if self.index is None:
            raise ConfigError("cannot plan", self.layout.index, NO_INDEX, "snakemake ingest")
        return self.index


def open_plan(raw: Mapping[str, Any], *, main_process: bool, argv: Sequence[str]) -> Plan:
    """Check the configuration and open its index; build it where a real run has none yet.

    Parameters
    ----------
    raw : mapping
        Snakemake's merged ``config``.
    main_process : bool
        Whether this is the main process. A job's process never builds an index.
    argv : sequence of str
        Snakemake's command line without the program name: tells a real run from a look, and whether only targets are
        asked for that need no index (``ingest``, ``fetch``).
    """
    if not main_process:
        ignore_warning()  # this Snakemake runs one rule of a cluster job, whose trainer the warning is for
    config = parse(raw)
    if not config.datasets:
        raise ConfigError("nothing to do", "config.yaml", "`datasets` is empty", "name a data set, or `boldmill init`")
    from boldmill.cluster.events import locks
    from boldmill.index.read import read_index

    options = parse_options(argv) if main_process else None
    if options is not None:
        refuse_targets(config, options.targets)
    results = Path(config.results)
    wanted = stage_json(config, "ingest")
    index_free = options is not None and set(options.targets) in INDEX_FREE
    indexes = index_free or (options is not None and is_real_run(options))
    layout = Layout.at(results)
    stopped = main_process and layout.index_unfinished.exists()  # with old lists nothing would seem to have changed
    try:
        index = read_index(results) if layout.index.exists() and not stopped else None
    except ConfigError:  # damaged, or of another version: made anew, as one that is not there
        if not indexes:
            raise
        index = None
    if index is None or index.is_stale(wanted):
        if index_free:
            return Plan(config, None)
        if options is None or not indexes:
            why = "ingest is at work, or was stopped half-way" if stopped else NO_INDEX
            raise ConfigError("cannot plan the workflow", layout.index, why, "snakemake ingest")
        if not options.nolock and locks():  # its jobs would lose their index
            why = "its index would be made anew, and another Snakemake works in this folder, or was killed"
            fix = "wait for it; if it was killed: `snakemake ingest`, then `snakemake --unlock`"
            raise ConfigError("cannot index the data sets", results, why, fix)
        print("boldmill: no index of these data sets yet; building it before the workflow starts", file=sys.stderr)
        _ingest(config.results, wanted)
        index = read_index(results)
    if main_process and not index.ok and not index_free:
        table = layout.index_quarantine
        raise ConfigError("nothing to do", table, f"none of {len(index.scans)} scans passed ingest", f"read {table}")
    return Plan(config, index)


def refuse_targets(config: Config, targets: Iterable[str]) -> None:
    """Raise :class:`ConfigError` for a target that this configuration gives nothing to do."""
    made = optional_outputs(config)
    snapshots = SnapshotPaths(Layout.at(config.results), config.snapshot.name)
    needs = {
        "freeze": (snapshots.named, "`snapshot.name` is latest, which is never frozen", "set another name"),
        "freeze_shards": (
            snapshots.to_freeze,
            f"`snapshot.name` is {config.snapshot.name}, which is {'already' if snapshots.named else 'never'} frozen",
            "set a new name",
        ),
        "few_shot": (made["few-shot"], "`evaluate.few_shot.shots` is empty", "name how many subjects per class"),
        "zero_shot": (made["zero-shot"], "`evaluate.transfers` is empty", "name source and target tasks"),
        "ablation": (
            made["ablation"],
            "`ablation.variants` is empty",
            "add --configfile workflow/configs/ablation.yaml",
        ),
        "interpret": (
            made["interpret"],
            "no model of `interpret.models` is trained, or no task has two classes",
            "name one of each (evaluate.tasks)",
        ),
        "abide": (
            [dataset for dataset in config.datasets if dataset.kind == "tables"],
            "no data set of ready-made parcel series (kind: tables) is configured",
            "add --configfile workflow/configs/abide.yaml",
        ),
    }
    for target in targets:
        found, why, fix = needs.get(str(target), ([""], "", ""))
        if not found:
            raise ConfigError("nothing to do", f"snakemake {target}", why, fix)


def shell_prefix(source: str, results: str, *, own_environment: bool) -> str:
    """Return what every job's shell starts with.

    The commands run from the clone, also inside a conda environment that holds only their dependencies; otherwise with
    the very Python that runs Snakemake, whether its environment is activated or not. The results folder travels here,
    beside the params, so that each rule tracks exactly one value: the JSON of its settings. Waiting OpenMP threads
    sleep: where jobs share cores, spinning ones cost more than they gain. No job asks the network (:data:`OFFLINE`).
    """
    exports = {
        "PYTHONPATH": shlex.quote(source),
        "BOLDMILL_RESULTS": shlex.quote(results),
        "OMP_WAIT_POLICY": "PASSIVE",
        **OFFLINE,
    }
    if not own_environment:
        exports["PATH"] = f"{shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    text = f"set -euo pipefail; export {' '.join(f'{name}={value}' for name, value in exports.items())}; "
    return text.replace("{", "{{").replace("}", "}}")  # Snakemake formats the prefix


def _ingest(results: str, settings: str) -> None:
    command = [sys.executable, "-m", "boldmill", "ingest", "--results", results, "--config-json", settings]
    if subprocess.run(command, check=False).returncode:
        raise ConfigError("cannot index the data sets", results, "see the lines above", "correct them and run again")
