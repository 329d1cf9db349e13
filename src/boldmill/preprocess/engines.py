"""Steps and the engines that can do them: one table of data, read by the workflows, `boldmill doctor` and the docs.

The default engine of every step runs from wheels alone. Other engines are nipype's own interfaces of ANTs, FSL and
AFNI; those of ANTs fall back to the wheel antspyx, the same library without programs. Nothing falls back to another
engine.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boldmill.errors import MachineFault

if TYPE_CHECKING:
    from boldmill.preprocess.config import EnginesConfig, PreprocessConfig

HERE = "boldmill.preprocess"
DEFAULT = "boldmill"
INSTALL = {
    "ants": 'install ANTs (programs on PATH), or the wheel: python -m pip install "boldmill[ants]"',
    "fsl": "install FSL, set FSLDIR and put $FSLDIR/bin on PATH",
    "afni": "install AFNI and put its folder on PATH",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One way to do one step.

    Parameters
    ----------
    step, name : str
        Key and value of ``preprocess.engines``.
    method : str
        What it does, for the table.
    interface : str
        ``module:class`` of the nipype interface; all engines of a step have the same inputs and outputs.
    commands : tuple of str
        Programs it runs; all must be on PATH.
    wheel : str
        Distribution that does it without the programs ("": none).
    tested : str
        What the tests cover.
    """

    step: str
    name: str
    method: str
    interface: str
    commands: tuple[str, ...] = ()
    wheel: str = ""
    tested: str = "run on real images"


def _external(step: str, name: str, method: str, interface: str, *commands: str, wheel: str = "") -> Engine:
    tested = "run with antspyx" if wheel else "command line and conversion only; never executed"
    return Engine(
        step=step, name=name, method=method, interface=interface, commands=commands, wheel=wheel, tested=tested
    )


def _own(step: str, method: str, interface: str) -> Engine:
    return Engine(step=step, name=DEFAULT, method=method, interface=interface)


ANTS, TOOLS, BOLD_TOOLS = f"{HERE}.engine_ants", f"{HERE}.engine_tools", f"{HERE}.engine_bold"
ENGINES: tuple[Engine, ...] = (
    _own("denoise", "non-local means (dipy)", f"{HERE}.denoise:Denoise"),
    _external("denoise", "ants", "DenoiseImage", f"{ANTS}:AntsDenoise", "DenoiseImage", wheel="antspyx"),
    _own("n4", "N4 (SimpleITK)", f"{HERE}.anat_interfaces:BiasField"),
    _external(
        "n4", "ants", "N4BiasFieldCorrection", f"{ANTS}:AntsBiasField", "N4BiasFieldCorrection", wheel="antspyx"
    ),
    _own("brain_mask", "head template by SyN (SimpleITK, dipy)", f"{HERE}.anat_interfaces:BrainMask"),
    _external("brain_mask", "fsl", "BET", f"{TOOLS}:BetMask", "bet"),
    _external("brain_mask", "afni", "3dSkullStrip", f"{TOOLS}:SkullStripMask", "3dSkullStrip"),
    _own("normalise", "affine (SimpleITK) and SyN CC (dipy)", f"{HERE}.anat_warp:BrainWarp"),
    _external(
        "normalise", "ants", "antsRegistration, affine and SyN", f"{ANTS}:AntsBrainWarp",
        "antsRegistration", wheel="antspyx",
    ),
    _own("tissue", "Gaussian mixture with warped priors (numpy)", f"{HERE}.anat_interfaces:Tissue"),
    _external("tissue", "fsl", "FAST", f"{TOOLS}:FastTissue", "fast"),
    _own("motion", "Gauss-Newton realignment (scipy)", f"{HERE}.bold_interfaces:EstimateMotion"),
    _external(
        "motion", "ants", "antsRegistration, rigid, per volume", f"{BOLD_TOOLS}:AntsMotion",
        "antsRegistration", wheel="antspyx",
    ),
    _external("motion", "fsl", "MCFLIRT", f"{BOLD_TOOLS}:McflirtMotion", "mcflirt"),
    _external("motion", "afni", "3dvolreg", f"{BOLD_TOOLS}:VolregMotion", "3dvolreg"),
    _own("slice_timing", "Fourier shift (scipy)", f"{HERE}.bold_interfaces:CorrectSliceTiming"),
    _external("slice_timing", "afni", "3dTshift", f"{HERE}.engine_series:TshiftTiming", "3dTshift"),
    _own("despike", "tanh squashing as 3dDespike (numpy)", f"{HERE}.bold_interfaces:Despike"),
    _external("despike", "afni", "3dDespike", f"{HERE}.engine_series:DespikeSeries", "3dDespike"),
    _own("coregistration", "mutual information (SimpleITK), boundary (scipy)", f"{HERE}.bold_interfaces:Coregister"),
    _external(
        "coregistration", "ants", "antsRegistration, rigid", f"{BOLD_TOOLS}:AntsCoregister",
        "antsRegistration", wheel="antspyx",
    ),
    _external("coregistration", "fsl", "FLIRT with BBR", f"{BOLD_TOOLS}:FlirtCoregister", "flirt"),
)  # fmt: skip


def find(step: str, name: str) -> Engine:
    """Return an entry of the table; ``KeyError`` where there is none."""
    for engine in ENGINES:
        if (engine.step, engine.name) == (step, name):
            return engine
    raise KeyError(f"no engine '{name}' for {step}")


def programs(engine: Engine) -> bool:
    """Whether all programs of an engine are on PATH."""
    return bool(engine.commands) and all(shutil.which(command) for command in engine.commands)


def provider(engine: Engine) -> str:
    """Return what would do the step on this machine: programs before the wheel; empty where nothing can."""
    if engine.name == DEFAULT:
        return "wheels"
    if programs(engine):
        return ", ".join(str(shutil.which(command)) for command in engine.commands)
    if engine.wheel:
        try:
            return f"{engine.wheel} {importlib.metadata.version(engine.wheel)}"
        except importlib.metadata.PackageNotFoundError:
            return ""
    return ""


def chosen(settings: EnginesConfig) -> list[Engine]:
    """Return the entry of every step for the settings ``preprocess.engines``."""
    return [find(step, name) for step, name in settings.model_dump().items()]


def check(settings: PreprocessConfig) -> None:
    """Stop before anything runs where a chosen engine cannot work on this machine.

    Raises
    ------
    MachineFault
        Names the step, the missing programs, and what to install.
    """
    for engine in chosen(settings.engines):
        need(engine)


def need(engine: Engine) -> None:
    """Stop where one engine cannot work on this machine, as :func:`check` does."""
    if not provider(engine):
        fix = f"{INSTALL[engine.name]}; or set preprocess.engines.{engine.step}: {DEFAULT}"
        where = f"preprocess.engines.{engine.step}: {engine.name}"
        raise MachineFault("engine not available", where, missing(engine), fix)


def missing(engine: Engine) -> str:
    """Return what an engine lacks on this machine."""
    absent = ", ".join(command for command in engine.commands if not shutil.which(command))
    return f"{absent} not on PATH" + (f", {engine.wheel} not installed" if engine.wheel else "")


def interface(step: str, name: str) -> Any:
    """Return the interface class of a step's engine, imported when first needed."""
    module, _, kind = find(step, name).interface.partition(":")
    return getattr(importlib.import_module(module), kind)


def node(step: str, name: str, node_name: str, **inputs: Any) -> Any:
    """Return a nipype node of a step's engine; all engines of a step take the same inputs."""
    from boldmill.preprocess.nodes import pe

    return pe.Node(interface(step, name)(**inputs), name=node_name)


def described(settings: EnginesConfig, steps: Collection[str]) -> dict[str, str]:
    """Return ``{step: "engine: method"}`` of some steps, with a wheel's version, for manifests and methods text."""
    out = {}
    for engine in chosen(settings):
        if engine.step in steps:
            by = "" if engine.name == DEFAULT or programs(engine) else f" ({provider(engine)})"
            out[engine.step] = f"{engine.name}: {engine.method}{by}"
    return out


def wheels(settings: EnginesConfig) -> dict[str, str]:
    """Return distribution and version of each step that a wheel of another engine does: results depend on it."""
    used = {e.step: provider(e) for e in chosen(settings) if e.wheel and not programs(e)}
    return {step: by for step, by in used.items() if by}


def table() -> str:
    """Return the table of steps and engines in Markdown."""
    lines = ["| step | engine | method | needs | tested |", "|---|---|---|---|---|"]
    for engine in ENGINES:
        needs = ", ".join(f"`{command}`" for command in engine.commands) or "nothing more"
        needs += f" or `{engine.wheel}`" if engine.wheel else ""
        lines.append(f"| {engine.step} | {engine.name} | {engine.method} | {needs} | {engine.tested} |")
    return "\n".join(lines) + "\n"
