r"""Write one self-contained HTML page per subject of a bucket, with its methods text (markdown and BibTeX) beside it.

A subject whose files are missing or broken is named in the manifest with its reason; the others get their pages.

example:
  boldmill pages --subjects results/preprocess/demo/sub-01.json --results results \
    --out results/reports/bucket-000.json --config-json "$(cat pages.settings.json)"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests, or lists of them")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--quarantine", type=Path, help="scans refused at ingest (default: index/quarantine.tsv)")
    parser.add_argument("--out", type=Path, required=True, help="bucket manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of stage `pages` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Write every page of the bucket."""
    from tqdm import tqdm

    from boldmill.atomic import read_json, sha256_text, write_json, write_text
    from boldmill.errors import EXIT_OK, DataFault
    from boldmill.index.buckets import listed as expand
    from boldmill.index.quarantine import read_quarantine
    from boldmill.paths import Layout
    from boldmill.provenance.record import Recorder, prov_path
    from boldmill.report.subject import build
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    layout = Layout.at(args.results)
    entries: dict[str, dict[str, Any]] = {}
    listed = args.quarantine or layout.index_quarantine
    refused = read_quarantine(listed)
    manifests = expand(args.subjects, args.results)
    inputs = [*args.subjects, *manifests, *([listed] if listed.exists() else [])]
    with Recorder(settings, out=args.out, inputs=inputs) as record:
        for path in tqdm(sorted(manifests), desc="pages", unit="subject", disable=None):
            manifest = read_json(path)
            dataset, subject = str(manifest["dataset"]), str(manifest["subject"])
            try:
                page = build(path, args.results, settings, refused)
            except DataFault as fault:
                reason = " ".join(f"{fault.what}: {fault.where}: {fault.why}".split())
                entries[f"{dataset}/{subject}"] = {"status": "failed", "reason": reason, "fix": fault.fix}
                continue
            html = layout.subject_page(dataset, subject)
            texts = {"page": (html, page.html)}
            texts["methods"] = (html.with_name(f"{html.stem}_methods.md"), page.markdown)
            texts["bibliography"] = (html.with_name(f"{html.stem}_methods.bib"), page.bib)
            for target, text in texts.values():
                record.add_output(write_text(target, text))
            for source in (*page.read, *filter(Path.is_file, [prov_path(path)])):
                record.add_input(source)
            files = {key: target.relative_to(layout.results).as_posix() for key, (target, _) in texts.items()}
            entry = {"status": "ok", "files": files, "bytes": html.stat().st_size}
            entry["sha256"] = {key: sha256_text(text) for key, (_, text) in texts.items()}
            entries[f"{dataset}/{subject}"] = entry
        write_json(args.out, {"schema": 1, "subjects": entries})
    bad = sum(entry["status"] != "ok" for entry in entries.values())
    print(f"{args.out}: {len(entries) - bad} pages, {bad} failed")
    return EXIT_OK
