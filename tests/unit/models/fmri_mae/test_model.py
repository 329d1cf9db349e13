"""The fMRI-MAE module: published sizes, embeddings, predictions and loss; its parts against dense references."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boldmill.errors import ConfigError
from boldmill.models.fmri_mae.architecture import Architecture, design
from boldmill.models.fmri_mae.grid import PatchGrid, frame_normalise, n_visible, tube_masks
from boldmill.models.fmri_mae.model import FmriMae, masked_mse
from boldmill.models.fmri_mae.official import rename


def small(mask: np.ndarray, **changes: object) -> FmriMae:  # type: ignore[type-arg]
    torch.manual_seed(0)
    values = {"width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    values |= {"patch": 8, "patch_t": 4, "frames": 8} | changes  # type: ignore[dict-item]
    return FmriMae(Architecture(**values), mask)  # type: ignore[arg-type]


def disc() -> np.ndarray:  # type: ignore[type-arg]
    y, x = np.mgrid[:30, :44]  # no multiple of 8
    return ((y - 15) / 13) ** 2 + ((x - 22) / 17) ** 2 < 1


def dense(pixels: torch.Tensor, mask: np.ndarray, patch: int) -> np.ndarray:  # type: ignore[type-arg]
    """Unmask onto the padded grid: (B, T, X) -> (B, T, H, W)."""
    height, width = (-(-s // patch) * patch for s in mask.shape)
    full = np.zeros((*pixels.shape[:2], height, width), np.float32)
    full[:, :, : mask.shape[0], : mask.shape[1]][:, :, mask] = pixels.numpy()
    return full


@pytest.mark.parametrize(("preset", "whole", "encoder"), [("S", 35.2, 21.9), ("B", 99.7, 86.2), ("tiny", 2.0, None)])
def test_published_parameter_counts(preset: str, whole: float, encoder: float | None) -> None:
    mask = np.ones((224, 560), bool)
    with torch.device("meta"):
        model = FmriMae(design(preset), mask)
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model, model.encoder)]
    assert round(millions[0], 1) == whole
    assert encoder is None or round(millions[1], 1) == encoder


def test_visible_count_of_the_published_grid() -> None:
    assert (n_visible(490, 0.9), n_visible(490, 0.75), n_visible(160, 0.5)) == (48, 122, 80)


def test_patches_are_those_of_the_dense_image() -> None:
    mask = disc()
    model = small(mask)
    grid, pixels = model.grid, torch.randn(2, 8, int(mask.sum()))
    full = dense(pixels, mask, 8)
    blocks = full.reshape(2, 8, 4, 8, 6, 8).transpose(0, 2, 4, 1, 3, 5).reshape(2, 24, 8, 64)  # (B, G, T, A)
    filled = grid.filled.numpy()
    on = dense(torch.ones(1, 1, int(mask.sum())), mask, 8).reshape(4, 8, 6, 8).transpose(0, 2, 1, 3).reshape(24, 64)
    assert filled.tolist() == np.flatnonzero(on.any(axis=1)).tolist()
    np.testing.assert_array_equal(grid.patches(pixels), blocks[:, filled])
    picked = torch.tensor([[0, 3], [5, 1]])
    np.testing.assert_array_equal(grid.patches(pixels, picked)[1], blocks[1, filled[[5, 1]]])
    np.testing.assert_array_equal(grid.valid.numpy(), on[filled] > 0)
    # tokens: time-major, each patch flattened frame by frame
    tokens = model.tubes(pixels, picked, stride=2).detach()
    np.testing.assert_array_equal(tokens[1, 2], blocks[1, filled[5], [4, 6]].ravel())


def test_frame_normalisation_against_loops() -> None:
    clip = torch.randn(2, 3, 50).half() * 4 + 1
    clip[0, 0, 0] = 60.0
    found = frame_normalise(clip, 3.0)
    assert found.dtype == torch.float32 and float(found.abs().max()) <= 3
    for b in range(2):
        for t in range(3):
            frame = clip[b, t].double().numpy()
            expected = np.clip((frame - frame.mean()) / (frame.std(ddof=1) + 1e-6), -3, 3)
            np.testing.assert_allclose(found[b, t], expected, atol=2e-6)
    assert torch.isfinite(frame_normalise(torch.ones(1, 2, 5))).all()  # a constant frame is 0, not NaN
    assert float(frame_normalise(torch.ones(1, 2, 5)).abs().max()) == 0


@given(seed=st.integers(0, 2**32), ratio=st.sampled_from([0.5, 0.75, 0.9]))
def test_tubes_part_the_filled_patches(seed: int, ratio: float) -> None:
    grid = PatchGrid(disc(), 8)
    visible, hidden = tube_masks(["a", "b"], [0, 3], "epoch-0", seed, grid, ratio)
    keep = int((1 - ratio) * 24)
    assert visible.shape == (2, keep) and hidden.shape == (2, grid.n_filled - keep)
    for one, other in zip(visible, hidden, strict=True):
        assert sorted([*one, *other]) == list(range(grid.n_filled))
    alone = tube_masks(["b"], [3], "epoch-0", seed, grid, ratio)[0]
    assert np.array_equal(alone[0], visible[1])
    same, some = tube_masks(["a", "b"], [0, 3], "epoch-0", seed, grid, ratio, decode_share=0.25)
    assert np.array_equal(same, visible) and some.shape[1] == (grid.n_filled - keep) // 4
    assert all(set(few) <= set(every) for few, every in zip(some, hidden, strict=True))


def test_tubes_change_with_scan_clip_epoch_and_seed() -> None:
    grid = PatchGrid(np.ones((64, 64), bool), 8)
    base = tube_masks(["a"], [0], "epoch-0", 7, grid, 0.5)[0]
    for other in ((["b"], [0], "epoch-0", 7), (["a"], [1], "epoch-0", 7), (["a"], [0], "epoch-1", 7),
                  (["a"], [0], "epoch-0", 8)):  # fmt: skip
        assert not np.array_equal(base, tube_masks(*other, grid, 0.5)[0])


def test_ratio_that_hides_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0 of .* would be visible"):
        tube_masks(["a"], [0], "p", 7, PatchGrid(disc(), 8), 0.99)


def test_first_prediction_is_zero_and_the_loss_counts_valid_hidden_target_pixels_only() -> None:
    """Zero head: the loss is the mean square of the counted pixels, found here by loops on the dense image."""
    mask = disc()
    model = small(mask)
    clips = torch.randn(2, 8, int(mask.sum())).half()
    visible, hidden = (torch.from_numpy(m) for m in tube_masks(["a", "b"], [0, 0], "p", 7, model.grid, 0.75))
    pixels = frame_normalise(clips, 3.0)
    full, on = dense(pixels, mask, 8), dense(torch.ones(1, 1, int(mask.sum())), mask, 8)[0, 0] > 0
    total, counted = 0.0, 0
    for b in range(2):
        for patch in model.grid.filled[hidden[b]].tolist():
            row, col = 8 * (patch // 6), 8 * (patch % 6)
            for t in (0, 2, 4, 6):  # every 2nd frame
                inside = on[row : row + 8, col : col + 8]
                values = full[b, t, row : row + 8, col : col + 8][inside].astype(np.float64)
                total, counted = total + float((values**2).sum()), counted + int(inside.sum())
    assert model(clips, visible, hidden).item() == pytest.approx(total / counted, rel=1e-6)
    assert int(model.weights(hidden).sum()) == counted


def test_masked_mse_against_loops() -> None:
    p, t = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    m = torch.rand(2, 3, 4) < 0.5
    pairs = zip(p.flatten().tolist(), t.flatten().tolist(), m.flatten().tolist(), strict=True)
    kept = [(a - b) ** 2 for a, b, on in pairs if on]
    assert float(masked_mse(p, t, m)) == pytest.approx(sum(kept) / len(kept), rel=1e-6)


def test_a_valid_pixel_that_is_zero_still_counts() -> None:
    """The mask is data: a clip of zeros has the same counted pixels as any other."""
    mask = disc()
    model = small(mask)
    hidden = torch.arange(4)[None]
    assert model.grid.n_pixels == mask.sum()
    assert int(model.weights(hidden).sum()) == 4 * int(model.grid.valid[:4].sum())  # 4 target frames


def test_hidden_patches_do_not_reach_the_prediction() -> None:
    mask = disc()
    model = small(mask)
    torch.nn.init.normal_(model.decoder.head.weight)
    visible, hidden = (torch.from_numpy(m) for m in tube_masks(["a"], [0], "p", 7, model.grid, 0.75))
    pixels = torch.randn(1, 8, int(mask.sum()))
    base = model.predict(pixels, visible, hidden)
    for picked, same in ((hidden[0, 0], True), (visible[0, 0], False)):
        changed = pixels.clone()
        where = model.grid.table[picked][model.grid.valid[picked]]
        changed[:, :, where] += 1
        assert torch.equal(base, model.predict(changed, visible, hidden)) == same


def test_gradient_reaches_every_parameter() -> None:
    mask = disc()
    model = small(mask)
    torch.nn.init.normal_(model.decoder.head.weight, std=0.1)  # zero at first: it would hold back all the others
    clips = torch.randn(2, 8, int(mask.sum()))
    visible, hidden = (torch.from_numpy(m) for m in tube_masks(["a", "b"], [0, 0], "p", 7, model.grid, 0.75))
    model(clips, visible, hidden).backward()
    for name, parameter in model.named_parameters():
        # a shift of all keys moves no softmax: its gradient is rounding
        if not name.endswith("attn.k.bias"):
            assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_clip_length_must_be_whole_patches() -> None:
    with pytest.raises(ConfigError, match="clips have 10 frames"):
        design("tiny", frames=10)


def test_another_grid_is_refused() -> None:
    model = small(disc())
    model.check_mask(disc())
    with pytest.raises(ConfigError, match="flat grids differ"):
        model.check_mask(disc()[::-1] | disc())


@pytest.mark.data
@pytest.mark.parametrize("generation", [1, 2])
def test_published_embeddings_predictions_and_loss(generation: int, golden: Callable[[str], Path]) -> None:
    """Weights and clips of both published generations give their embeddings, predictions and loss."""
    z = np.load(golden(f"flat_mae_v{generation}_tiny.npz"), allow_pickle=False)
    their = json.loads(str(z["config_json"]))
    arch = Architecture(
        width=their["embed_dim"], depth=their["depth"], heads=their["num_heads"],
        decoder_width=their["decoder_embed_dim"], decoder_depth=their["decoder_depth"],
        decoder_heads=their["decoder_num_heads"], patch=their["patch_size"], patch_t=their["t_patch_size"],
        frames=their["num_frames"], target_stride=their["t_pred_stride"],
        class_position=not their.get("no_embed_class", False),
        decoder_positions_again=not their.get("no_decode_pos", False),
    )  # fmt: skip
    model = FmriMae(arch, z["pixel_mask"]).eval()
    state = rename({name[3:]: torch.from_numpy(z[name]).float() for name in z.files if name[:3] == "sd/"})
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and missing == ["grid.mask"]
    pixels = torch.from_numpy(z["clip"])[:, :, torch.from_numpy(z["pixel_mask"])]
    visible, hidden = (torch.from_numpy(z[name][:, : z[name].shape[1] // 2]) for name in ("visible_ids", "pred_ids"))
    with torch.no_grad():
        whole = model.encoder(model.tubes(pixels), model.grid.filled.expand(2, -1))
        masked = model.encoder(model.tubes(pixels, visible), model.places(visible))
        predicted = model.predict(pixels, visible, hidden)
        loss = masked_mse(predicted, model.tubes(pixels, hidden, arch.target_stride), model.weights(hidden))
    np.testing.assert_allclose(whole[:, :1], z["cls_embeds_full"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(whole[:, 1:], z["patch_embeds_full"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(masked[:, 1:], z["patch_embeds_masked"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(predicted, z["preds"], atol=1e-5, rtol=0)
    assert float(loss) == pytest.approx(float(z["loss"]), rel=1e-6)


def test_loss_falls_below_the_variance_of_the_data(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    from boldmill.models.fmri_mae import train as module
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings, stage_json

    cfg = synth.config(models={"fmri_mae": {"steps": 80, "batch": 4, "lr": 1e-3, "mask_ratio": 0.75}})
    settings = Settings(stage_json(cfg, "train_fmri_mae"))
    history = module.train(Snapshot.load(manifest), settings, tmp_path, "cpu", 1, False).history
    assert history[0]["loss"] == pytest.approx(1.0, abs=0.1)  # zero head
    assert history[-1]["loss"] < 0.85 and history[-1]["validation_loss"] < 0.9
