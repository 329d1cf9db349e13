"""The methods paragraph of a subject, generated from what ran: settings, recipes, figures and flags of its runs.

Text carries citations as ``[@key; @key]``, see :mod:`boldmill.report.citations`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.report.citations import Paragraphs
from boldmill.report.methods_words import ENGINES, FIELDMAPS, MOTION, SPACES


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of one BOLD run: its manifest entry and its recipe (empty where there is none)."""

    scan_id: str
    entry: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def raw(self) -> bool:
        """Whether it was preprocessed here; ready-made series were not."""
        return self.entry.get("kind") == "volume"

    @property
    def distortion(self) -> bool:
        """Whether a field map corrected it."""
        return "distortion" in self.entry.get("files", {})

    @property
    def fieldmap(self) -> str:
        """Kind of the field map that corrected it (``phasediff``, ``phases``, ``fieldmap``, ``epi``), or ``none``."""
        return str(self.entry["qc"].get("sdc_method") or ("unknown kind" if self.distortion else "none"))

    @property
    def timing(self) -> Mapping[str, Any] | None:
        """Slice timing, as the recipe holds it."""
        found = self.recipe.get("slice_timing")
        return found if isinstance(found, Mapping) else None

    def flagged(self, word: str) -> str | None:
        """Return the first flag that holds a word."""
        return next((str(flag) for flag in self.entry.get("flags", []) if word in flag.lower()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the text is made from."""

    preset: str
    space: str
    resolution: float | None
    template_source: str
    preprocess: PreprocessConfig
    clean: CleanConfig
    anat: Mapping[str, Any]
    runs: Sequence[Run]
    versions: Mapping[str, str]

    def engine(self, step: str) -> str:
        """Return who did a step: the word of the T1w or of a recipe, else the settings'."""
        for named in (self.anat.get("engines", {}), *(run.recipe.get("engines", {}) for run in self.runs)):
            if step in named:
                return str(named[step]).partition(":")[0]
        return str(getattr(self.preprocess.engines, step))

    def how(self, step: str) -> str:
        """Return how a step was done, in words, with the wheel that stood in for programs."""
        wheel = re.search(r"\((antspyx [^)]*)\)", str(self.anat.get("engines", {}).get(step, "")))
        return ENGINES[step][self.engine(step)] + (f" (as {wheel.group(1)})" if wheel else "")


def paragraphs(facts: Facts) -> Paragraphs:
    """Return headings and text."""
    version = facts.versions.get("boldmill", "")
    first = (
        f"The data, organised as BIDS [@bids], were preprocessed with boldmill {version} (preset {facts.preset}), "
        f"whose steps are nipype{_version(facts, 'nipype')} interfaces [@nipype]."
    )
    out = [("Preprocessing", first)]
    if facts.anat.get("status") == "ok":
        out.append(("Anatomical data", _anatomical(facts)))
    raw = [run for run in facts.runs if run.raw]
    if raw:
        out.append(("Functional data", _functional(facts, raw)))
    ready = [run for run in facts.runs if not run.raw]
    if ready:
        out.append(("Ready-made data", _ready(ready)))
    if facts.runs:
        out.append(("Confounds and cleaning", _cleaning(facts)))
    names = {"numpy": "NumPy", "scipy": "SciPy", "nibabel": "NiBabel", "simpleitk": "SimpleITK", "dipy": "dipy"}
    shown = [f"{text} {facts.versions[name]}" for name, text in names.items() if name in facts.versions]
    if shown:
        out.append(("Software", f"boldmill {version}; {', '.join(shown)}; Python {facts.versions.get('python', '')}."))
    return out


def _version(facts: Facts, package: str) -> str:
    return f" {facts.versions[package]}" if package in facts.versions else ""


def _anatomical(facts: Facts) -> str:
    qc, cfg = facts.anat.get("qc", {}), facts.preprocess
    count = int(qc.get("t1w_merged") or 1)
    words = [
        f"{count} T1w images were aligned and averaged."
        if count > 1
        else "One T1w image was used, reoriented to RAS and cropped to the head."
    ]
    if cfg.denoise:
        words.append(f"It was denoised with {facts.how('denoise')}.")
    words.append(f"Its intensity was corrected for the receive field with {facts.how('n4')}.")
    if qc.get("brain_extracted_input"):
        words.append("The image came brain-extracted; its own extraction is the brain mask.")
    else:
        words.append(f"The brain mask was made by {facts.how('brain_mask')}.")
    key = next((key for name, key in SPACES.items() if facts.space.startswith(name)), None)
    source = {"templateflow": "TemplateFlow [@templateflow]", "demo": "the demo cohort's own template"}.get(
        facts.template_source, facts.template_source
    )
    words.append(
        f"The brain was normalised to {facts.space}{f' [@{key}]' if key else ''}"
        f"{f' (from {source})' if source else ''} by {facts.how('normalise')}."
    )
    words.append(f"Grey matter, white matter and CSF were segmented with {facts.how('tissue')}.")
    return " ".join(words)


def _functional(facts: Facts, runs: Sequence[Run]) -> str:
    cfg = facts.preprocess
    lengths = ", ".join(f"{r.scan_id}: {r.entry['n_volumes']} volumes, TR {r.entry['tr']:g} s" for r in runs)
    words = [f"{f'{len(runs)} BOLD runs were' if len(runs) > 1 else 'One BOLD run was'} preprocessed ({lengths})."]
    early = [run for run in runs if run.entry["qc"].get("non_steady")]
    if early:
        where = which(runs, lambda r: r in early)
        words.append(f"Non-steady first volumes were found in {where}; they were marked, not cut.")
    if cfg.despike:
        words.append(f"Voxel series were despiked with {facts.how('despike')}.")
    order = "before slice timing [@power2017]" if cfg.motion_before_slice_timing else "after slice timing"
    target = {"median": "the median of a realigned subset of volumes", "mean": "the mean of the run, in two passes"}
    words.append(f"Head motion was estimated by {facts.how('motion')} against {target[cfg.motion_reference]}, {order}.")
    words += [_slice_timing(facts, runs), _distortion(facts, runs), _coregistration(facts, runs)]
    grid = f" at {facts.resolution:g} mm" if facts.resolution else ""
    bent = "distortion, " if any(run.distortion for run in runs) else ""
    words.append(
        f"Motion, {bent}coregistration and warp were composed, "
        f"and every volume was interpolated once (cubic spline) from its own grid to {facts.space}{grid}."
    )
    return " ".join(word for word in words if word)


def _slice_timing(facts: Facts, runs: Sequence[Run]) -> str:
    done = [run for run in runs if run.timing]
    words = []
    if done:
        times = sorted({f"{run.timing['reference']:.4g} s" for run in done if run.timing})
        words.append(
            f"Slice timing was corrected in {which(runs, lambda r: r in done)} with "
            f"{facts.how('slice_timing')} to {' or '.join(times)} after the start of the "
            "volume [@sladky]."
        )
    for run in runs:
        if run not in done and run.recipe:
            why = run.flagged("slice") or "no usable slice times"
            words.append(f"Slice timing was not corrected in {run.scan_id} ({why}).")
    return " ".join(words)


def _distortion(facts: Facts, runs: Sequence[Run]) -> str:
    if facts.preprocess.distortion == "off":
        return "Distortion correction was switched off."
    done = [run for run in runs if run.distortion]
    words = []
    for kind in sorted({run.fieldmap for run in done}):
        of = which(runs, lambda r, kind=kind: r in done and r.fieldmap == kind)  # type: ignore[misc]
        words.append(f"EPI distortion was corrected in {of} with {FIELDMAPS.get(kind, f'a field map ({kind})')}.")
    missing = [run for run in runs if run not in done]
    if missing:
        words.append(
            f"No field map was used ({which(runs, lambda r: r in missing)}): EPI distortion was not corrected there."
        )
    return " ".join(words)


def _coregistration(facts: Facts, runs: Sequence[Run]) -> str:
    words = [f"The BOLD reference was registered rigidly with the T1w by {facts.how('coregistration')}"]
    refined = [run for run in runs if run.entry["qc"].get("coreg_method") == "boundary"]
    if refined:
        words.append(f"and refined at the white-matter boundary [@bbr] in {which(runs, lambda r: r in refined)}")
    text = " ".join(words) + "."
    back = [run for run in runs if run.entry["qc"].get("coreg_method") == "mutual_information"]
    if back and facts.engine("coregistration") == "boldmill":
        where = which(runs, lambda r: r in back)
        text += f" The refinement was not accepted in {where}: the first registration was kept."
    return text


def _ready(runs: Sequence[Run]) -> str:
    kinds = sorted({f"{r.entry.get('layout') or 'unknown pipeline'} ({r.entry.get('kind')})" for r in runs})
    return (
        f"{', '.join(run.scan_id for run in runs)}: preprocessed elsewhere, taken over as {', '.join(kinds)}; only "
        "what the next section names was done here."
    )


def _cleaning(facts: Facts) -> str:
    clean, cfg = facts.clean, facts.preprocess
    moved = any(run.entry["qc"].get("mean_fd") is not None for run in facts.runs)
    computed = [
        f"FD [@fd] (head radius {cfg.fd_radius:g} mm), FD of Jenkinson [@mcflirt], DVARS and standardised DVARS "
        f"[@stddvars] were computed; volumes with FD above {cfg.outlier_fd:g} mm or standardised DVARS above "
        f"{cfg.outlier_dvars:g} are marked as outliers."
    ]
    words = computed if moved else ["Motion is not known: no framewise displacement was computed."]
    parts = _regressed(facts)
    name = f" (strategy {clean.strategy})" if clean.strategy else ""
    words.append(f"Regressed{name}: {'; '.join(parts) if parts else 'nothing'}.")
    words.append(_filter(clean))
    words.append(_censoring(facts))
    if clean.smoothing:
        words.append(f"The cleaned series were smoothed with a Gaussian of {clean.smoothing:g} mm FWHM.")
    freedom = [f"{r.scan_id}: {r.entry['qc']['residual_dof']}" for r in facts.runs if "residual_dof" in r.entry["qc"]]
    if freedom:
        words.append(f"Residual degrees of freedom: {', '.join(freedom)}.")
    if cfg.maps:
        named = {"alff": "ALFF [@alff]", "falff": "fALFF [@falff]", "reho": "ReHo [@reho]"}
        words.append(f"Voxel maps: {', '.join(named[m] for m in cfg.maps)}.")
    return " ".join(word for word in words if word)


def _regressed(facts: Facts) -> list[str]:
    """Return what was regressed, in words: counted in the recipes, else what the settings ask for."""
    clean = facts.clean
    lists = [list(run.recipe["regressors"]) for run in facts.runs if "regressors" in run.recipe]
    asked = {
        "motion": int(clean.motion != "none"),
        "compcor": clean.compcor,
        "tissue": int(clean.tissue != "none"),
        "global": int(clean.global_signal),
        "expand": int(clean.expand),
        "cosine": 0,
    }
    counts = {k: [sum(_kind(n) == k for n in names) for names in lists] or [asked.get(k, 0)] for k in KINDS}
    masks = "eroded white matter and CSF" + (" together" if clean.compcor_masks == "combined" else ", each")
    trend = {"linear": "a linear trend", "quadratic": "a quadratic trend"}.get(clean.drift, "")
    texts = {
        "motion": MOTION[clean.motion],
        "compcor": f"{_range(counts['compcor'])} aCompCor components of {masks} [@compcor; @muschelli]",
        "tissue": {"csf": "the mean CSF signal"}.get(clean.tissue, "the mean white-matter and CSF signals"),
        "global": "the global signal",
        "expand": "derivatives and squares of the mean signals [@ciric]",
        "cosine": f"{_range(counts['cosine'])} cosines slower than {clean.cosine_cutoff:g} s",
        "early": f"{_range(counts['early'])} columns of non-steady volumes",
        "spike": f"{_range(counts['spike'])} columns of censored volumes [@satterthwaite]",
        "other": f"{_range(counts['other'])} further columns",
    }
    return [*(texts[kind] for kind in KINDS if max(counts[kind])), *([trend] if trend else [])]


KINDS = ("motion", "compcor", "tissue", "global", "expand", "cosine", "early", "spike", "other")


def _kind(name: str) -> str:
    """Return the group a confound column belongs to.

    >>> [_kind(name) for name in ("rot_x_power2", "w_comp_cor_01", "csf", "csf_derivative1", "motion_outlier03")]
    ['motion', 'compcor', 'tissue', 'expand', 'spike']
    """
    for kind, start in (
        *(("motion", "trans_"), ("motion", "rot_"), ("cosine", "cosine"), ("early", "non_steady")),
        *(("spike", "motion_outlier"), ("spike", "censored")),
    ):
        if name.startswith(start):
            return kind
    if "comp_cor" in name:
        return "compcor"
    if name in ("csf", "white_matter", "global_signal"):
        return "global" if name == "global_signal" else "tissue"
    return "expand" if name.startswith(("csf_", "white_matter_", "global_signal_")) else "other"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _filter(clean: CleanConfig) -> str:
    low, high = clean.band_low, clean.band_high
    if low is None and high is None:
        return "No temporal filter was used."
    band = f"{low:g}-{high:g} Hz" if low and high else f"above {low:g} Hz" if low else f"below {high:g} Hz"
    kind = (
        "an ideal Fourier box"
        if clean.filter == "fft"
        else f"a Butterworth filter of order {clean.filter_order}, forward and backward"
    )
    if clean.order == "both":
        return f"Series and regressors were filtered alike ({band}, {kind}) and then regressed [@lindquist; @nilearn]."
    return f"The residuals were filtered after the regression ({band}, {kind})."


def _censoring(facts: Facts) -> str:
    clean = facts.clean
    if clean.censor == "none":
        return "No volume was censored."
    how = {
        "interpolate": "left out of the fit and interpolated",
        "spike": "modelled by one regressor each [@satterthwaite]",
    }[clean.censor]
    limit = f"FD above {clean.censor_fd:g} mm"
    limit += f" or standardised DVARS above {clean.censor_dvars:g}" if clean.censor_dvars else ""
    counts = [f"{run.scan_id}: {len(run.recipe['censored'])}" for run in facts.runs if "censored" in run.recipe]
    counted = f" ({', '.join(counts)})" if counts else ""
    return f"Volumes with {limit} were {how} [@power2014]{counted}."


def which(runs: Sequence[Run], chosen: Callable[[Run], bool]) -> str:
    """Name the runs that a rule holds for: all, or each by its id."""
    names = [run.scan_id for run in runs if chosen(run)]
    if len(names) == len(runs):
        return "all runs" if len(runs) > 1 else names[0]
    return ", ".join(names) if names else "no run"
