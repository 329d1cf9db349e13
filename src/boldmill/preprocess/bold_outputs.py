"""What a BOLD run leaves behind: derivative names, sidecars, and the QC numbers of the manifest."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import atomic, read_json, write_text
from boldmill.paths import Layout
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.derivatives import Derivatives, sidecar_of
from boldmill.preprocess.frames import Array
from boldmill.preprocess.images import Volume, read_volume
from boldmill.preprocess.outputs import publish_spaces
from boldmill.preprocess.recipe import Recipe, recipe_path, write_recipe
from boldmill.preprocess.series_io import load_series, rows_of, write_masked_series
from boldmill.preprocess.slicetiming import SliceTimes
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import sample

if TYPE_CHECKING:
    from boldmill.preprocess.bold import AnatInputs


def publish(
    job: Job,
    ticket: Mapping[str, Any],
    anat: AnatInputs,
    made: Mapping[str, Any],
    timing: SliceTimes | None,
    tr: float,
    facts: Mapping[str, Any],
) -> tuple[dict[str, Path], list[Path]]:
    """Move the results from scratch to their BIDS-Derivatives names, write the sidecars and the recipe.

    4D images are written only where ``preprocess.keep`` or ``preprocess.output_spaces`` asks for them.
    """
    d, entities = job.derivatives, ticket["entities"]
    names = {
        "mask": d.path(entities, "func", "mask", space=job.space, desc="brain"),
        "boldref": d.path(entities, "func", "boldref", space=job.space),
        "boldref_native": d.path(entities, "func", "boldref", desc="coreg"),
        "confounds": d.path(entities, "func", "timeseries", ".tsv", desc="confounds"),
        "confounds_json": d.path(entities, "func", "timeseries", ".json", desc="confounds"),
        "coreg": d.path(entities, "func", "xfm", ".txt", from_="T1w", to="boldref", mode="points", desc="coreg"),
        "hmc": d.path(entities, "func", "xfm", ".txt", from_="boldref", to="orig", mode="points", desc="hmc"),
        "figures": Layout.at(d.results).figures(d.dataset, str(ticket["scan_id"])),
        "distortion": d.path(entities, "func", "xfm", from_="boldref", to="orig", mode="image", desc="sdc"),
    }
    matrices = load_series(made["matrices"])
    timed = {"SliceTimingCorrected": timing is not None, "StartTime": timing.reference if timing else None}
    further = read_json(made["spaces"])
    described = {**series_fields(ticket["task"], tr, len(matrices)), **timed}
    files, extra = publish_spaces(job, ticket, anat, made, further, described)
    unwarped = facts["distortion"]
    corrected = unwarped["method"] not in ("none", "off")
    for key in (
        *("mask", "boldref", "boldref_native", "confounds", "confounds_json", "coreg", "figures"),
        *(("distortion",) if corrected else ()),
    ):
        move(Path(made[key]), names[key], copy=key == "boldref_native")
        files[key] = names[key]
    rows = [" ".join(repr(float(v)) for v in matrix.ravel()) for matrix in matrices]
    files["hmc"] = write_text(names["hmc"], "\n".join(rows) + "\n")
    sources = [d.uri_raw(entry["path"]) for entry in ticket["bold"]]
    fields: dict[str, dict[str, Any]] = {
        "mask": {"Type": "Brain"},
        "boldref": {"SkullStripped": True},
        "boldref_native": {"SkullStripped": False},
        "coreg": {"Description": "4x4 matrix: T1w world (RAS, mm) to BOLD-reference world"},
        "hmc": {"Description": "one 4x4 matrix per row and volume: BOLD-reference world (RAS, mm) to volume world"},
    }
    extra += [d.sidecar(files[key], sources=sources, **fields[key]) for key in sorted(fields) if key in files]
    if corrected:
        fields_of_it = {
            "Description": "EPI distortion: shift in voxels along the phase encoding at which the raw image is read",
            "PhaseEncodingDirection": ticket["metadata"]["PhaseEncodingDirection"],
            "Method": unwarped["method"],
            "Units": "voxels",
        }
        measured = [d.uri_raw(path) for path in unwarped["files"]]
        extra.append(d.sidecar(files["distortion"], sources=[*sources, *measured], **fields_of_it))
    fitted = {"field": anat.field, "t1w_mask": anat.t1w_mask}
    fitted |= {key: files[key] for key in ("hmc", "coreg", "mask", "confounds", "confounds_json")}
    extra.append(files.pop("confounds_json"))
    if corrected:  # its sidecar names the phase-encoding axis
        fitted |= {"distortion": files["distortion"], "distortion_json": sidecar_of(files["distortion"])}
    files["recipe"] = _recipe(job, ticket, fitted, timing, tr, len(matrices), facts)
    recipe = Recipe.read(files["recipe"], d.results)
    for what in job.settings.keep:
        image = read_volume(files["mask"])
        path, side = write_image(recipe, d, what, rows_of(made[what]), image)
        files[what] = path
        extra.append(side)
    if made.get("maps"):
        from boldmill.preprocess.maps_interfaces import publish_maps

        images, sidecars = publish_maps(job, ticket, made["maps"], tr)
        files, extra = files | images, [*extra, *sidecars]
    return files, extra


def _recipe(
    job: Job,
    ticket: Mapping[str, Any],
    fitted: Mapping[str, Path],
    timing: SliceTimes | None,
    tr: float,
    n_volumes: int,
    facts: Mapping[str, Any],
) -> Path:
    """Write what makes the images of the run again: the files of its fit, and the settings of the steps after it."""
    d, cleaned = job.derivatives, facts["clean"]
    times = timing and {"times": timing.times.tolist(), "axis": timing.axis, "reference": timing.reference}
    return write_recipe(
        recipe_path(d.results, d.dataset, str(ticket["scan_id"])),
        d.results,
        fitted,
        scan_id=ticket["scan_id"],
        dataset=d.dataset,
        task=ticket["task"],
        entities=dict(ticket["entities"]),
        root=str(ticket["root"]),
        bold={key: ticket["bold"][0].get(key) for key in ("path", "size", "sha256")},
        tr=tr,
        n_volumes=n_volumes,
        despike=job.settings.despike,
        slice_timing=times,
        scale=facts["resample"]["scale"],
        space=job.space,
        grid={"shape": list(job.grid.shape), "affine": job.grid.affine.tolist()},
        engines=job.settings.engines.model_dump(mode="json"),
        clean=job.clean.model_dump(mode="json"),
        regressors=cleaned["regressors"],
        censored=cleaned["censored"],
        dof_words=cleaned["dof_words"],
    )


def series_fields(task: str, tr: float, n_volumes: int) -> dict[str, Any]:
    """Return the sidecar keys every series of a run has."""
    return {"RepetitionTime": tr, "TaskName": task, "SkullStripped": True, "NumberOfVolumes": n_volumes}


def image_path(recipe: Recipe, d: Derivatives, what: str) -> Path:
    """Return where the ``clean`` or ``preproc`` image of a run is written."""
    return d.path(recipe.value["entities"], "func", "bold", space=str(recipe.value["space"]), desc=what)


def write_image(recipe: Recipe, d: Derivatives, what: str, rows: Iterable[Array], mask: Volume) -> tuple[Path, Path]:
    """Write the ``clean`` or ``preproc`` image of a run and its sidecar: the same bytes from job and `boldmill apply`.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    d : Derivatives
        Where it is written.
    what : str
        ``"clean"`` or ``"preproc"``.
    rows : iterable of arrays (N,)
        Volumes in order, in the C order of the mask.
    mask : Volume (X, Y, Z)
        BOLD mask in template space.
    """
    known = recipe.value
    path = image_path(recipe, d, what)
    count, inside = int(known["n_volumes"]), mask.data > 0.5
    write_masked_series(path, rows, count, inside, mask.affine, recipe.tr)
    timing = recipe.timing
    fields = {
        **series_fields(str(known["task"]), recipe.tr, count),
        "SliceTimingCorrected": timing is not None,
        "StartTime": timing.reference if timing else None,
    }
    if what == "clean":
        fields |= {
            "Strategy": known["clean"],
            "Regressors": known["regressors"],
            "DegreesOfFreedom": known["dof_words"],
            "Units": "arbitrary",
        }
    return path, d.sidecar(path, sources=[d.uri_raw(known["bold"]["path"])], **fields)


def move(source: Path, target: Path, *, copy: bool = False) -> None:
    """Move (or copy) a scratch file to its name."""
    with atomic(target) as temporary:
        if copy:
            shutil.copyfile(source, temporary)
            return
        try:
            source.replace(temporary)
        except OSError as error:
            if error.errno != errno.EXDEV:  # scratch on another disk
                raise
            shutil.copyfile(source, temporary)


def quality_of(columns: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the QC numbers of a run from its confounds and the facts of its steps."""
    mean_fd, max_fd = rigid.summary(columns["framewise_displacement"])
    coreg, cleaned = facts["coreg"], facts["clean"]
    return {
        "mean_fd": mean_fd,
        "max_fd": max_fd,
        "mean_fd_jenkinson": rigid.summary(columns["framewise_displacement_jenkinson"])[0],
        "mean_rmsd": rigid.summary(columns["rmsd"])[0],
        "mean_dvars": rigid.summary(columns["dvars"])[0],
        "mean_std_dvars": rigid.summary(columns["std_dvars"])[0],
        "tsnr": cleaned["tsnr"],
        "gcor": cleaned["gcor"],
        "residual_dof": cleaned["residual_dof"],
        "effective_dof": cleaned["effective_dof"],
        "n_regressors": cleaned["n_regressors"],
        "non_steady": facts["motion"]["non_steady"],
        "sdc_method": facts["distortion"]["method"],
        "sdc_max_shift_mm": facts["distortion"].get("max_shift_mm"),
        "coreg_method": coreg["method"],
        "bbr_cost": coreg["cost"],
        "bbr_sign": coreg["sign"],
        "bbr_cost_header": coreg["cost_header"],
        "bbr_moved_mm": coreg["moved"],
        "coreg_from_header_mm": coreg["from_header"],
        "mask_ml": facts["resample"]["mask_ml"],
        "brain_covered": facts["resample"]["coverage"],
        "csf_voxels": facts["confounds"]["csf_voxels"],
        "wm_voxels": facts["confounds"]["wm_voxels"],
    }


def covered_share(mask: Path, template_mask: Path) -> float:
    """Return the share of the template brain inside the run's mask."""
    run = read_volume(mask)
    brain = sample(read_volume(template_mask), run.grid.points(), order=0).reshape(run.data.shape) > 0.5
    return float((run.data[brain] > 0.5).mean()) if brain.any() else 0.0
