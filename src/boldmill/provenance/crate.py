"""A Workflow Run RO-Crate of a release: one action per step of the workflow, its files in one list.

Profile: Provenance Run Crate 0.5 (https://w3id.org/ro/wfrun/provenance/0.5), which extends Workflow Run Crate, on
RO-Crate 1.1. The Snakefile is the workflow; each stage is a tool (`boldmill <stage>`) behind a step; all jobs of a
stage with the same settings are one action, since one action per job would give hundreds of megabytes. The files of an
action are a collection: number, bytes and the digest of their listing stand in the crate, names in `files.parquet`.
No agent is named: who ran the jobs, and where, stays in the records of the results folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.provenance.terms import Terms

if TYPE_CHECKING:
    from boldmill.provenance.release import Release, Step

METADATA = "ro-crate-metadata.json"
FILES = "files.parquet"
DESCRIPTION = "dataset_description.json"
SNAKEFILE = "workflow/Snakefile"
DATA = "data/"
WFRUN_CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
PARAMETER = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
DONE = "http://schema.org/CompletedActionStatus"
PEAK = "https://w3id.org/ro/terms/workflow-run#resourceUsage"

Refs = list[dict[str, str]]


def ref(name: str) -> dict[str, str]:
    """Return a reference to an entity."""
    return {"@id": name}


def refs(names: Iterable[str]) -> Refs:
    """Return references to entities."""
    return [ref(name) for name in names]


class Crate:
    """The crate of a release, filled by :meth:`fill` and written by :meth:`write`.

    Parameters
    ----------
    release : Release
        What to describe.
    parts : dict
        Path inside the crate -> file: the Snakefile, its rules, the list of files, the description.
    carried : dict
        Files of the results that lie below ``data/``, by their path there. The list of files names them; the crate
        names the folder alone, since their names tell subjects.
    """

    def __init__(self, release: Release, parts: dict[str, Path], carried: dict[str, Path]) -> None:
        from rocrate.rocrate import ROCrate

        self.release, self.parts, self.carried = release, parts, carried
        self.crate = ROCrate(gen_preview=False, version="1.1")
        self.crate.metadata.extra_contexts.append(WFRUN_CONTEXT)

    def add(self, identity: str, kind: str | list[str], /, **properties: Any) -> dict[str, str]:
        """Add a contextual entity and return a reference to it; empty properties are left out."""
        from rocrate.model.contextentity import ContextEntity

        given = {key: value for key, value in properties.items() if value not in ("", [], None)}
        self.crate.add(ContextEntity(self.crate, identity, properties={"@type": kind, **given}))
        return ref(identity)

    def fill(self) -> None:
        """Describe everything; the same release always gives the same entities in the same order."""
        release = self.release
        for name, title in PROFILES.items():
            self.add(name, "CreativeWork", name=title, version=name.rpartition("/")[2])
        sources = [self._source(terms) for terms in release.terms]
        terms = self._terms()
        self.add(SNAKEMAKE, "ComputerLanguage", name="Snakemake", identifier=ref("https://doi.org/10.1093/bioinformatics/bts480"),
                 url=ref("https://snakemake.github.io"))  # fmt: skip
        engine = self.add("#snakemake", "SoftwareApplication", name="Snakemake", softwareVersion=self._engine())
        software = self._software()
        steps = {step.name: self._step(number, step, software) for number, step in enumerate(release.steps, start=1)}
        self._workflow(sources, steps)
        run = self._run(sources, engine, steps)
        root = self.crate.root_dataset
        root["name"] = f"{release.project}: results of boldmill"
        root["description"] = (
            f"Brain MRI of {len(release.terms)} data sets, brought through one Snakemake workflow: "
            f"{len(release.steps)} steps, {len(release.files)} files."
        )
        root["datePublished"] = release.date
        root["license"] = terms
        root["conformsTo"] = refs(PROFILES)
        root["mainEntity"] = ref(SNAKEFILE)
        root["isBasedOn"] = sources
        root["mentions"] = [run, ref("#orchestration"), *(ref(f"#run-{name}") for name in steps)]
        self.crate.metadata["conformsTo"] = refs(
            ["https://w3id.org/ro/crate/1.1", "https://w3id.org/workflowhub/workflow-ro-crate/1.0"]
        )

    def write(self, folder: Path) -> None:
        """Write the crate: its metadata and every part."""
        self.crate.write(folder)

    def _source(self, terms: Terms) -> dict[str, str]:
        number, size, digest = self.release.source(terms.dataset)
        return self.add(
            f"#data-{terms.dataset}",
            "Dataset",
            name=terms.title or terms.dataset,
            alternateName=terms.dataset,
            description=f"{terms.kind} data: {number} files, {size} bytes were read",
            license=terms.licence,
            identifier=[*([_doi(terms.doi)] if terms.doi else []), f"sha256:{digest}"],
            conditionsOfAccess=list(terms.conditions),
            creditText=list(terms.references),
        )

    def _terms(self) -> dict[str, str]:
        words = " | ".join(terms.sentence() for terms in self.release.terms) or "no data set is named"
        about = f"Whoever uses this release is bound by the terms of every data set it was made from. {words}"
        return self.add("#terms-of-use", "CreativeWork", name="Terms of use of the data sets", description=about)

    def _engine(self) -> str:
        return next((v for s in self.release.steps if (v := s.software.get("snakemake"))), "unknown")

    def _software(self) -> dict[tuple[str, str], dict[str, str]]:
        pairs = sorted({pair for step in self.release.steps for pair in step.software.items()})
        return {
            (name, version): self.add(
                f"#software-{name}-{version}", "SoftwareApplication", name=name, softwareVersion=version
            )
            for name, version in pairs
        }

    def _step(self, position: int, step: Step, software: dict[tuple[str, str], dict[str, str]]) -> dict[str, str]:
        """Add tool, step, action and files of one step; return the reference to its files."""
        known = {one.name for one in self.release.steps}
        given, values = [], []
        for key, value in step.parameters.items():
            name, held = f"#parameter-{step.name}-{key}", f"#value-{step.name}-{key}"
            kind = _kind(value)
            given.append(self.add(name, "FormalParameter", name=key, additionalType=kind, conformsTo=ref(PARAMETER),
                                  workExample=ref(held)))  # fmt: skip
            values.append(self.add(held, "PropertyValue", name=key, value=_text(value), exampleOfWork=ref(name)))
        read = [f"#data-{used[5:]}" if used.startswith("data:") else f"#files-{used}" for used in sorted(step.uses)
                if used.startswith("data:") or used in known]  # fmt: skip
        number, size, digest = self.release.listing(step)
        files = self.add(
            f"#files-{step.name}",
            "Collection",
            name=f"Files of {step.stage}",
            description=f"{number} files, {size} bytes: rows of {FILES} of stage {step.stage}, settings {step.digest}",
            identifier=f"sha256:{digest}",
            isPartOf=ref(FILES),
        )
        out = self.add(f"#output-{step.name}", "FormalParameter", name=f"files of {step.stage}",
                       additionalType="Collection", conformsTo=ref(PARAMETER), workExample=files)  # fmt: skip
        tool = self.add(
            f"#tool-{step.name}",
            "SoftwareApplication",
            name=f"boldmill {step.stage}",
            softwareVersion=f"stage version {step.version}, code {step.code}",
            softwareRequirements=[software[pair] for pair in sorted(step.software.items())],
            input=given,
            output=[out],
        )
        self.add(f"#step-{step.name}", "HowToStep", name=step.stage, position=str(position), workExample=tool)
        peak = self.add(f"#peak-{step.name}", "PropertyValue", name="peak memory of one job", propertyID=PEAK,
                        value=str(step.peak_mib), unitText="MiB")  # fmt: skip
        self.add(
            f"#run-{step.name}",
            "CreateAction",
            name=f"Jobs of {step.stage} with settings {step.digest}",
            instrument=tool,
            object=[*values, *refs(read)],
            result=[files],
            startTime=step.started,
            endTime=step.ended,
            actionStatus=ref(DONE),
            resourceUsage=[peak],
        )
        self.add(f"#control-{step.name}", "ControlAction", name=f"orchestration of {step.stage}",
                 instrument=ref(f"#step-{step.name}"), object=ref(f"#run-{step.name}"))  # fmt: skip
        return files

    def _workflow(self, sources: Refs, steps: dict[str, dict[str, str]]) -> None:
        wanted = self.add("#input-data", "FormalParameter", name="data sets", additionalType="Dataset",
                          conformsTo=ref(PARAMETER), workExample=sources)  # fmt: skip
        made = self.add("#output-files", "FormalParameter", name="files", additionalType="File",
                        conformsTo=ref(PARAMETER), workExample=ref(FILES))  # fmt: skip
        kinds = {FILES: "application/vnd.apache.parquet", DESCRIPTION: "application/json", SNAKEFILE: "text/x-python"}
        about = {
            FILES: "Every file: path, sha256, bytes, stage and settings; outputs relative to the results folder, "
            "sources relative to their data set",
            DESCRIPTION: "BIDS description of the release: GeneratedBy, SourceDatasets, terms of use",
            SNAKEFILE: "The workflow",
        }
        for name, path in sorted(self.parts.items()):
            properties: dict[str, Any] = {"name": name, "contentSize": str(path.stat().st_size)}
            properties["encodingFormat"] = kinds.get(name, "text/x-python" if name.startswith("workflow/") else "")
            properties["description"] = about.get(name, "")
            kept = {key: value for key, value in properties.items() if value}
            if name == SNAKEFILE:
                kept |= {
                    "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
                    "programmingLanguage": ref(SNAKEMAKE),
                    "version": self.release.steps[-1].code,
                    "input": [wanted],
                    "output": [made],
                    "step": [ref(f"#step-{step}") for step in steps],
                    "hasPart": [
                        *(ref(f"#tool-{step}") for step in steps),
                        *(ref(part) for part in sorted(self.parts) if part.endswith(".smk")),
                    ],
                }
            elif name.endswith(".smk"):
                kept |= {"@type": ["File", "SoftwareSourceCode"], "programmingLanguage": ref(SNAKEMAKE)}
            elif name == FILES:
                kept |= {"exampleOfWork": made}
            self.crate.add_file(path, name, properties=kept)
        if self.carried:
            size = sum(path.stat().st_size for path in self.carried.values())
            words = f"{len(self.carried)} files, {size} bytes, with the paths that {FILES} gives them"
            self.crate.add_dataset(None, DATA, properties={"name": "Files of the results", "description": words})

    def _run(self, sources: Refs, engine: dict[str, str], steps: dict[str, dict[str, str]]) -> dict[str, str]:
        first = min(step.started for step in self.release.steps)
        run = self.add(
            "#run",
            "CreateAction",
            name=f"Run of the workflow of {self.release.project}",
            instrument=ref(SNAKEFILE),
            object=sources,
            result=[ref(FILES), *steps.values()],
            startTime=first,
            endTime=self.release.date,
            actionStatus=ref(DONE),
        )
        self.add("#orchestration", "OrganizeAction", name="Run of Snakemake", instrument=engine, result=run,
                 object=[ref(f"#control-{name}") for name in steps], startTime=first)  # fmt: skip
        return run


def _doi(doi: str) -> str:
    bare = doi.removeprefix("doi:").removeprefix("https://doi.org/")
    return f"https://doi.org/{bare}"


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {bool: "Boolean", int: "Integer", float: "Float"}
    return kinds.get(type(value), "Text")


def _text(value: Any) -> str:
    from boldmill.atomic import canonical_json

    return value if isinstance(value, str) and value else canonical_json(value)
