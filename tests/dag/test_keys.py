"""Every key of the configuration reruns exactly its stage and what follows, asked of the real Snakefile."""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

from boldmill.ablation.variants import evaluation_config, variant_config
from boldmill.config.base import Section
from boldmill.config.load import merge, parse
from boldmill.config.model import Config
from boldmill.stages import STAGES, stage_json

ROOT = Path(__file__).parents[2]
VARIANTS = ("full", "mrm")
FIRST, SECOND = "Schaefer2018-100Parcels7Networks", "Schaefer2018-400Parcels17Networks"
TRANSFER = {"name": "held", "source": "group", "target": "group"}
MRM: dict[str, Any] = {"name": "mrm", "set": {"models.brainmass.weight_rec": 0.0}}
RICH: dict[str, Any] = {
    "evaluate": {"few_shot": {"shots": [1]}, "transfers": [TRANSFER]},
    "ablation": {"variants": [{"name": "full"}, MRM]},
}
"""A configuration that plans every rule there is."""

FILES = ("left.gii", "right.gii", "weights/model.safetensors")
"""Files that some keys name; they must exist."""

PREPROCESS = ("preprocess_bucket",)
BRAINMASS = ("train_model brainmass", "train_ablation")
EVALUATE = ("evaluate_model", "evaluate_ablation")
NETWORKS = ("evaluate_model",)  # variants are evaluated with the linear probe on one split
FEW, ZERO = ("few_shot_model",), ("zero_shot_model",)
MAPS = ("interpret_model",)

OWN: dict[str, tuple[str, ...]] = {
    "project": ("pages_bucket", "cohort_page", "report_page"),
    "preset": ("atlas", "operator_ribbon", *PREPROCESS, "pages_bucket", "report_page"),  # this one: 3 mm and 36P
    "seed": (
        *(*PREPROCESS, "augment_bucket", "snapshot", "freeze", "train_model", "train_ablation"),
        *(*EVALUATE, *FEW, *ZERO, *MAPS, "ablation_table"),
    ),
    "spaces.template_source": ("templates",),
    "spaces.demo_template": ("templates",),
    "spaces.resolution": ("atlas", "operator_ribbon", *PREPROCESS),
    "spaces.surface_source": ("atlas",),
    "spaces.flat": ("operator_flat", "operator_ribbon", "operator_meshes"),
    "spaces.flat_files": ("operator_flat",),
    "preprocess": PREPROCESS,
    "preprocess.output_spaces": ("templates",),
    "clean": PREPROCESS,
    "parcellate.min_coverage": ("parcellate_bucket",),
    "parcellate": ("shard_bucket",),
    "flatmap": ("flatmap_bucket",),
    "flatmap.sampling": ("operator_ribbon",),
    "flatmap.depths": ("operator_ribbon",),
    "flatmap.regfusion": ("operator_ribbon",),
    "flatmap.keep": (),  # holds for maps made from then on
    "augment": ("augment_bucket", *BRAINMASS),
    "shards": ("clips_bucket",),
    "inclusion": ("cohort_page", "snapshot", "freeze"),
    "snapshot": ("snapshot", "freeze"),
    "snapshot.name": ("freeze_shards",),
    "models.train": ("report_page",),  # two models fewer in the report
    "models.brainmass": BRAINMASS,
    "models.brainmass.weight_rec": ("train_model brainmass", "train_ablation full"),  # the other variant sets its own
    "models.fmri_mae": ("train_model fmri_mae",),
    "models.fm_app": ("train_model fm_app",),
    "ablation.variants": ("train_ablation mrm",),
    "ablation.reference": ("ablation_table",),
    "evaluate": EVALUATE,
    "evaluate.tasks": (*EVALUATE, *FEW, *ZERO, *MAPS),
    "evaluate.protocols": NETWORKS,
    "evaluate.folds": (*NETWORKS, *MAPS),
    "evaluate.repeats": (*NETWORKS, *MAPS),
    "evaluate.inner_folds": NETWORKS,
    "evaluate.paper_repeats": NETWORKS,
    "evaluate.grid_c": NETWORKS,
    "evaluate.max_clips": (*EVALUATE, *FEW, *ZERO),
    "evaluate.bootstrap": (*EVALUATE, *FEW, *ZERO, "ablation_table"),
    "evaluate.permutations": (*EVALUATE, *ZERO),
    "evaluate.baselines": NETWORKS,
    "evaluate.probes": NETWORKS,
    "evaluate.knn": NETWORKS,
    "evaluate.mlp": NETWORKS,
    "evaluate.brainnetcnn": NETWORKS,
    "evaluate.transformer": NETWORKS,
    "evaluate.finetune": NETWORKS,
    "evaluate.few_shot": FEW,
    "evaluate.transfers": ZERO,
    "interpret": MAPS,
    "interpret.models": ("report_page",),  # nothing is explained any more
    "report": ("pages_bucket", "report_page"),
}
"""Key or section -> the rules it belongs to, all jobs of each; the longest name holds. What follows: follows.py."""

INGEST = {
    *("index.min_volumes", "index.tr_range", "index.verify_gzip", "shards.n_buckets", "spaces.template"),
    *("spaces.atlas_desc",),
}
"""Keys that ingest reads: nothing is planned before it ran again."""

ELSEWHERE = {
    "datasets": "tests/dag/test_reruns.py",
    "results": "another folder is another project",
    "models.fm_app.text_encoder": "it has one choice",
    "spaces.further_atlases": "below",
    "spaces.atlas": "below",
    "spaces.atlas_source": "below",
}

VALUES: dict[str, Any] = {
    "project": "renamed",
    "index.tr_range": [0.2, 12.0],
    "spaces.template": "MNI152NLin2009cAsym",
    "spaces.atlas_desc": "200Parcels7Networks",
    "spaces.demo_template": "elsewhere",
    "spaces.flat": "hcp",
    "spaces.flat_files": [*FILES[:2]],
    "preprocess.n4_iterations": [20, 20],
    "preprocess.head_syn_iterations": [10, 5, 0],
    "preprocess.brain_syn_iterations": [10, 5, 0],
    "preprocess.keep": ["clean"],
    "preprocess.output_spaces": ["MNI152NLin2009cAsym"],
    "preprocess.maps": ["alff"],
    "clean.strategy": "36P",
    "clean.band_low": 0.02,
    "clean.band_high": 0.08,
    "clean.censor_dvars": 1.5,
    "flatmap.sampling": {"sampling": "regfusion", "regfusion": [*FILES[:2]]},
    "flatmap.regfusion": [*FILES[:2]],
    "flatmap.keep": ["frames"],
    "inclusion.max_mean_fd": 0.4,
    "inclusion.min_minutes": 2.0,
    "inclusion.max_censored": 0.5,
    "inclusion.min_residual_dof": 20,
    "inclusion.min_tsnr": 20.0,
    "inclusion.min_coverage": 0.8,
    "snapshot.name": "second",
    "snapshot.always_train": ["alpha"],
    "snapshot.heldout_sites": ["a"],
    "snapshot.heldout_datasets": ["alpha"],
    "models.train": ["brainmass"],
    "models.brainmass.init": FILES[2],
    "models.brainmass.width": 130,
    "models.brainmass.ema": 0.99,
    "models.fmri_mae.patch": 8,
    "models.fmri_mae.patch_t": 2,
    "models.fmri_mae.mask_ratio": 0.75,
    "models.fmri_mae.decode_share": 0.5,
    "models.fm_app.unseen": ["age"],
    "models.fm_app.phenotypes": ["age"],
    "models.fm_app.sentinels": {"age": [-9]},
    "ablation.variants": [{"name": "full"}, {**MRM, "set": {"models.brainmass.weight_rec": 0.5}}],
    "ablation.reference": "mrm",
    "evaluate.tasks": [{"name": "group", "column": "group", "positive": "a"}],
    "evaluate.protocols": ["cv"],
    "evaluate.grid_c": [0.1, 1.0],
    "evaluate.baselines": ["constant"],
    "evaluate.probes": ["logistic"],
    "evaluate.few_shot.shots": [1, 2],
    "evaluate.transfers": [{**TRANSFER, "name": "other"}],
    "evaluate.finetune.layer_decay": 0.9,
    "interpret.models": [],
    "interpret.tasks": ["group"],
    "interpret.surface_labels": [*FILES[:2]],
}
"""Another value of a key; a truth value, number or choice has one of its own (:func:`other`)."""

PLANNED = {
    *("snapshot.name", "models.train", "models.brainmass.init", "ablation.variants"),
    *("evaluate.few_shot.shots", "evaluate.transfers", "interpret.models", "interpret.tasks"),
    *("flatmap.regfusion", "flatmap.sampling", "flatmap.keep", "spaces.flat_files", "interpret.surface_labels"),
}
"""Keys that rules and input functions read beside the settings of their stage."""


def leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the configuration, with its type."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


KEYS = dict(leaves(Config))


def other(key: str, value: Any) -> Any:
    """Return another valid value of a key."""
    if key in VALUES:
        return VALUES[key]
    kind = KEYS[key]
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if kind is bool:
        return not value
    if kind is int:
        return value + 1
    if kind is float:
        return round(value * 1.1, 6) if value else 0.5
    raise AssertionError(f"{key}: name another value of it in VALUES, and its rules in OWN")


def change(config: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a configuration with one key changed (and what it needs to be valid)."""
    *sections, name = key.split(".")
    value = parse(config).model_dump(mode="json")
    for part in (*sections, name):
        value = value[part]
    found = other(key, value)
    over: dict[str, Any] = found if isinstance(found, dict) and name in found else {name: found}
    for part in reversed(sections):
        over = {part: over}
    return merge(config, over)


def own(key: str) -> tuple[str, ...]:
    """Return the rules of a key."""
    parts = key.split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(OWN[name] for name in names if name in OWN)


@pytest.fixture(scope="module")
def rich(dag, tmp_path_factory: pytest.TempPathFactory):
    """A finished project of every rule."""
    made = dag.Project(tmp_path_factory.mktemp("keys"))
    made.config = merge(made.config, RICH)
    made.write_config()
    for name in FILES:
        path = made.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    made.ingest()
    made.finish()
    assert not made.jobs()
    return made


@pytest.fixture(scope="module")
def line(dag_line, rich):
    """What follows what in this project."""
    buckets = tuple(sorted(path.stem.removeprefix("bucket-") for path in rich.folder.glob("results/index/buckets/*")))
    assert len(buckets) == 3
    return dag_line(buckets=buckets, variants=VARIANTS, few=True)


def spread(line: Any, rules: tuple[str, ...]) -> set[str]:
    return {job for rule in rules for job in ([rule] if " " in rule else line.jobs(rule))}


def overlay(project: Any, key: str, config: dict[str, Any]) -> Path:
    path = project.folder / f"{key}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_every_key_has_an_entry_and_another_value() -> None:
    config = merge({"datasets": [{"name": "alpha", "root": "alpha"}]}, RICH)
    config = merge(config, {"evaluate": {"tasks": [{"name": "group", "column": "group"}]}})
    for key in KEYS.keys() - ELSEWHERE.keys():
        assert parse(change(config, key)) != parse(config), key
        assert key in INGEST or any(key == name or key.startswith(f"{name}.") for name in OWN), key
    assert not (set(OWN) | set(VALUES) | INGEST | set(ELSEWHERE)) - {
        ".".join(key.split(".")[:length]) for key in KEYS for length in range(1, 4)
    }


def signature(config: dict[str, Any]) -> str:
    """Return all settings that rules track: two configurations with the same are one to Snakemake."""
    parsed = parse(config)
    texts = [stage_json(parsed, stage) for stage in STAGES]
    for variant in parsed.ablation.variants:
        own_config = variant_config(evaluation_config(parsed), variant)
        texts += [stage_json(own_config, stage) for stage in ("train_brainmass", "evaluate")]
    return json.dumps(texts)


def moved(base: str, changed: str) -> tuple[int, ...]:
    """Return which of the texts differ."""
    return tuple(n for n, (a, b) in enumerate(zip(json.loads(base), json.loads(changed), strict=True)) if a != b)


def test_every_key_reruns_its_own_jobs_and_what_follows(rich, line) -> None:
    """One dry run for all keys that move the settings of the same jobs, and one for each that rules read themselves."""
    configs = {key: change(rich.config, key) for key in sorted(KEYS.keys() - ELSEWHERE.keys() - INGEST)}
    base = signature(rich.config)
    groups: dict[Any, list[str]] = {}
    for key, config in configs.items():
        groups.setdefault(key if key in PLANNED else moved(base, signature(config)), []).append(key)
    wrong = {}
    for keys in groups.values():
        found = set(rich.jobs("--configfile", str(overlay(rich, keys[-1], configs[keys[-1]]))))
        for key in keys:
            expected = line.after(*spread(line, own(key)))
            if found != expected:
                wrong[key] = (sorted(found - expected), sorted(expected - found))
    assert not wrong, json.dumps(wrong, indent=1)
    assert len(groups) > 30 and not rich.jobs()


def test_rules_read_no_key_beside_their_settings_but_those_known_here() -> None:
    """Else two keys that move the same settings might not be one to Snakemake."""
    texts = [path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk")]
    found = {name for text in texts for name in re.findall(r"plan\.config\.([\w.]+)", text)}
    assert found <= PLANNED, "add the key to PLANNED"


@pytest.mark.parametrize("key", sorted(INGEST - {"shards.n_buckets", "spaces.atlas_desc"}))
def test_a_key_of_ingest_asks_for_it_and_then_reruns_what_changed(rich, line, tmp_path: Path, key: str) -> None:
    """Limits of the checks change no ticket here, so nothing reruns; another template does."""
    project = copied(rich, tmp_path)
    project.config = change(project.config, key)
    project.write_config()
    assert "snakemake ingest" in project.refused()
    project.ingest()
    assert set(project.jobs()) == (line.after("templates") if key == "spaces.template" else set())


def test_another_number_of_buckets_is_another_set_of_jobs(rich, line, tmp_path: Path) -> None:
    project = copied(rich, tmp_path)
    project.config = change(project.config, "shards.n_buckets")
    project.write_config()
    project.ingest()
    buckets = {path.stem.removeprefix("bucket-") for path in project.folder.glob("results/index/buckets/*")}
    found = set(project.jobs())
    assert {job for job in found if job.startswith("preprocess_bucket")} == {
        f"preprocess_bucket {bucket}" for bucket in buckets
    }
    assert not {job for job in found if job.startswith(("freeze", "train", "templates", "operator"))}


@pytest.mark.parametrize(
    ("spaces", "label"),
    [
        ({"atlas_desc": "200Parcels7Networks"}, "Schaefer2018-200Parcels7Networks"),
        ({"atlas": "Other"}, "Other-100Parcels7Networks"),
        ({"atlas_source": "embedded"}, "Schaefer2018embedded"),
    ],
)
def test_another_first_atlas_is_parcellated_and_drawn_but_not_trained_on(
    rich, line, tmp_path: Path, spaces: dict[str, str], label: str
) -> None:
    project = copied(rich, tmp_path)
    project.config = merge(project.config, {"spaces": spaces})
    project.write_config()
    project.ingest()
    assert set(project.jobs()) == replace(line, atlases=(label,)).after(f"atlas {label}")


def test_a_further_atlas_is_added_beside_the_first(rich, line) -> None:
    config = merge(rich.config, {"spaces": {"further_atlases": [SECOND.replace("-", " ")]}})
    path = overlay(rich, "further", config)
    found = set(rich.jobs("--configfile", str(path)))
    assert found == replace(line, atlases=(FIRST, SECOND)).after(f"atlas {SECOND}")


def copied(project: Any, folder: Path) -> Any:
    made = copy.copy(project)
    made.folder = folder / "project"
    shutil.copytree(project.folder, made.folder, symlinks=True)
    return made
