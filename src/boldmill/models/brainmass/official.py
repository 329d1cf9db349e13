"""Names and shapes of the published BrainMass weights (podismine/BrainMass), and of this package's, both ways.

Published weights are not shipped; the user supplies the file. They belong to ``preset: paper``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from boldmill.errors import ConfigError
from boldmill.models.brainmass.architecture import PUBLISHED_ROIS, READOUT, SIZES, Architecture

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_BLOCK = "{net}_network.attention_list.{i}"
_NAMES = [
    # published, ours
    (f"{_BLOCK}.self_attn.in_proj_{{p}}", "{net}.blocks.{i}.qkv.{p}"),
    (f"{_BLOCK}.self_attn.out_proj.{{p}}", "{net}.blocks.{i}.out.{p}"),
    (f"{_BLOCK}.linear1.{{p}}", "{net}.blocks.{i}.up.{p}"),
    (f"{_BLOCK}.linear2.{{p}}", "{net}.blocks.{i}.down.{p}"),
    (f"{_BLOCK}.norm{{n}}.{{p}}", "{net}.blocks.{i}.norm{n}.{p}"),
    ("{net}_network.dim_reduction.0.{p}", "{net}.reduce.{p}"),
    ("{net}_network.g.net.{rest}", "{net}.project.{rest}"),
    ("predictor.net.{rest}", "predictor.{rest}"),
    ("cpred.{rest}", "head_clf.{rest}"),
    ("gpred.{rest}", "head_rec.{rest}"),
    ("norm.{p}", "unused_norm.{p}"),
    ("mask_embed", "mask_vector"),
    ("cls_token", "cls_token"),
    ("dist_token", "dist_token"),
]
_FIELDS = {"net": "online|target", "i": r"\d+", "n": "[12]", "p": "weight|bias", "rest": r"\d\.\w+"}

PARTS = ("online.project", "target", "predictor", "head_clf", "head_rec", "unused_norm", "mask_vector", "cls_token",
         "dist_token")  # fmt: skip
"""What a file may lack as a whole: features need the blocks and the readout of the online network alone."""


def _translate(state: Mapping[str, Tensor], source: int) -> dict[str, Tensor]:
    patterns = []
    for pair in _NAMES:
        text = re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{_FIELDS[m[1]]})", re.escape(pair[source]))
        patterns.append((re.compile(text), pair[1 - source]))
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, template in patterns:
            if found := pattern.fullmatch(name):
                renamed[template.format(**found.groupdict())] = value
                break
    return renamed


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors under this package's names; unknown ones are left out."""
    return _translate(state, 0)


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return this package's tensors under the published names; those without one (the projection) are left out."""
    return _translate(state, 1)


def flatten(content: Any, where: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a published file under the names of its whole model.

    Taken are files with the keys ``model``, ``online_network_state_dict`` and ``target_network_state_dict`` (any of
    them) and bare state dicts, of the model or of the encoder, also with the prefix ``module.`` of DDP.

    Raises
    ------
    ConfigError
        It holds no BrainMass weights.
    """
    import torch

    given = content if isinstance(content, Mapping) else {}
    flat: dict[str, Tensor] = {}
    for key, prefix in (("model", ""), ("online_network_state_dict", "online_network."),
                        ("target_network_state_dict", "target_network.")):  # fmt: skip
        part = given.get(key)
        if isinstance(part, Mapping):
            flat.update({prefix + _plain(name): value for name, value in part.items()})
    for name, value in given.items() if not flat else ():
        plain = _plain(name)
        encoder = plain.startswith(("attention_list.", "dim_reduction.", "g.net."))
        flat[f"online_network.{plain}" if encoder else plain] = value
    tensors = {name: value for name, value in flat.items() if isinstance(value, torch.Tensor)}
    if not any(name.startswith("online_network.attention_list.") for name in tensors):
        shown = ", ".join(sorted(map(str, given))[:5]) or type(content).__name__
        raise ConfigError("no BrainMass weights", where, f"it has no online_network.attention_list (found: {shown})",
                          "give a checkpoint or state_dict of the published BrainMass")  # fmt: skip
    return tensors


def _plain(name: object) -> str:
    return str(name).removeprefix("module.")


def published_architecture(state: Mapping[str, Tensor], heads: int | None, where: str | Path) -> Architecture:
    """Return the architecture of published weights (our names), read from their shapes.

    Parameters
    ----------
    state : mapping
        Output of :func:`rename`.
    heads : int or None
        Attention heads, which no shape shows; None: those of the published size of that depth.

    Raises
    ------
    ConfigError
        The blocks are not whole, or the heads are neither given nor known.
    """
    numbers = {int(name.split(".")[2]) for name in state if name.startswith("online.blocks.")}
    depth = len(numbers)
    try:
        if numbers != set(range(depth)):
            raise KeyError(f"block {min(set(range(max(numbers))) - numbers)}")
        width = state["online.blocks.0.qkv.weight"].shape[1]
        ffn = state["online.blocks.0.up.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise _incomplete(where, [str(error).strip("'")]) from error
    known = {size.depth: size.heads for name, size in SIZES.items() if name != "tiny"}
    chosen = heads or known.get(depth)
    if chosen is None:
        why = f"no shape shows the attention heads, and no published size has {depth} blocks"
        raise ConfigError("unknown number of heads", where, why, "give --heads")
    if width % chosen:
        raise ConfigError("impossible number of heads", where, f"{chosen} heads do not divide {width} channels",
                          "give another --heads")  # fmt: skip
    project = "online.project.0.weight", "online.project.3.weight"
    return Architecture(
        rois=width,
        width=width,
        depth=depth,
        heads=chosen,
        ffn=ffn,
        latent=state[project[1]].shape[0] if project[1] in state else 1024,
        hidden=state[project[0]].shape[0] if project[0] in state else 2 * READOUT * width,
        style="paper",
        rec_layers=3 if "head_rec.4.weight" in state else 2,
        estimator="ledoit_wolf",
    )


def complete(
    state: Mapping[str, Tensor], fresh: Mapping[str, Tensor], where: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the whole state of a module and the parts the file lacks.

    Parameters
    ----------
    state : mapping
        Tensors of the file under our names.
    fresh : mapping
        State of a fresh module of that architecture: gives names, shapes, and what the file lacks. A target network
        that is not there becomes a copy of the online one.

    Raises
    ------
    ConfigError
        A tensor has another shape, is not finite, or is missing while others of its part are there.
    """
    missing = [name for name in fresh if name not in state]
    lacking = [part for part in PARTS if not any(_of(name, part) for name in state)]
    if cut := [name for name in missing if not any(_of(name, part) for part in lacking)]:
        raise _incomplete(where, cut)
    whole: dict[str, Tensor] = {}
    for name, like in fresh.items():
        value = state.get(name)
        if value is None:
            twin = state.get(name.replace("target.", "online.", 1)) if _of(name, "target") else None
            whole[name] = (like if twin is None else twin).to(like.dtype).clone()
            continue
        if value.shape != like.shape:
            why = f"{name} is {tuple(value.shape)}, the architecture needs {tuple(like.shape)}"
            raise ConfigError("weights do not fit", where, why, "give the weights of one published model")
        if not bool(value.isfinite().all()):
            raise ConfigError("unusable weights", where, f"{name} has values that are not finite", "give another file")
        whole[name] = value.to(like.dtype).clone()
    return whole, lacking


def _of(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _incomplete(where: str | Path, missing: list[str]) -> ConfigError:
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    return ConfigError("weights are not whole", where, f"it lacks {shown}", "give the whole file")


def unlike_published(arch: Architecture) -> list[str]:
    """Return, in words, what makes the published code compute something else with these weights than this package."""
    reasons = []
    if arch.style != "paper":
        reasons.append("trained with extra tokens and positions in every pass, which the published features lack")
    if arch.rec_layers != 2:
        reasons.append("its reconstruction head has three layers, the published one two")
    if arch.rois != PUBLISHED_ROIS:
        reasons.append(f"it has {arch.rois} ROIs, the published code is written for {PUBLISHED_ROIS}")
    if arch.hidden != 2 * arch.features:
        reasons.append(f"its projector is {arch.hidden} wide, the published one {2 * arch.features}")
    return reasons
