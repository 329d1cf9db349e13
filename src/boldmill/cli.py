"""``boldmill <command>``: a lazy dispatcher. A command's module is imported only when it is called.

Each command module offers ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str, str]] = {
    # name: (group, module, help)
    "init": ("start", "boldmill.setup.init", "write a commented configuration from what lies in BIDS folders"),
    "doctor": ("start", "boldmill.setup.doctor", "check tools, templates, GPU, SLURM and disk; say what to fix"),
    "fetch": ("start", "boldmill.setup.fetch", "bring template and atlas files and check them (needs a network)"),
    "demo-data": ("start", "boldmill.demo.command", "generate the demo cohort (BIDS) with its ground truth"),
    "ingest": ("start", "boldmill.index.command", "index the configured data sets and write one ticket per scan"),
    "apply": ("start", "boldmill.preprocess.apply_command", "make the 4D images of preprocessed runs again"),
    "export": ("move", "boldmill.shards.export_command", "write the flat clips of a snapshot as WebDataset tar files"),
    "import": ("move", "boldmill.shards.import_command", "make shards and a snapshot of WebDataset tar files"),
    "import-weights": (
        "move",
        "boldmill.models.brainmass.import_command",
        "turn published weights into a model.safetensors",
    ),
    "export-weights": ("move", "boldmill.models.brainmass.export_command", "write weights with the published names"),
    "plan": ("look", "boldmill.plan.command", "say what will run and why, and what it will cost, before it runs"),
    "status": ("look", "boldmill.setup.status", "show progress and the failure table; exit 3 if scans are quarantined"),
    "clean": ("look", "boldmill.setup.clean", "say what could be freed below the results; --delete frees it"),
    "audit": ("look", "boldmill.provenance.audit", "verify, trace, stale, leakage; export; forget a person"),
    "describe": ("look", "boldmill.shards.describe_command", "show what a shard, folder or snapshot holds"),
    "bench": ("look", "boldmill.bench.command", "measure ours against a peer, side by side"),
    "stages": ("look", "boldmill.stages_lock", "show stage versions; accept a code change that moves no bytes"),
    "schema": ("look", "boldmill.config.command", "print the JSON schema of the configuration"),
    "templates": ("stage", "boldmill.spaces.templates_command", "prepare head template, mask and tissue priors"),
    "atlas": ("stage", "boldmill.spaces.atlas_command", "prepare atlas volume, surface labels and names"),
    "preprocess": ("stage", "boldmill.preprocess.command", "preprocess one subject: T1w and all its runs"),
    "operators": ("stage", "boldmill.represent.operators_command", "build the sparse projection operators"),
    "parcellate": ("stage", "boldmill.represent.parcellate_command", "parcel time series of one bucket"),
    "flatmap": ("stage", "boldmill.represent.flatmap_command", "cortical flat maps of one bucket"),
    "augment": ("stage", "boldmill.represent.augment_command", "pFC views of one bucket"),
    "clips": ("stage", "boldmill.shards.clips_command", "flat clips of one bucket"),
    "shards": ("stage", "boldmill.shards.command", "Parquet shards of one bucket"),
    "snapshot": ("stage", "boldmill.shards.snapshot_command", "write shards and splits into a manifest"),
    "freeze": ("stage", "boldmill.shards.freeze_command", "keep the shards of a snapshot under a name"),
    "train": ("stage", "boldmill.train.command", "train one model on a snapshot"),
    "launch": ("stage", "boldmill.cluster.launch_command", "train on all GPUs of a job; stop in time and go on"),
    "evaluate": ("stage", "boldmill.evaluate.command", "evaluate one model against its baselines"),
    "interpret": ("stage", "boldmill.interpret.command", "explain a trained model: regions, edges, pictures"),
    "cohort": ("stage", "boldmill.quality.cohort_command", "write the cohort page: quality, outliers, inclusion"),
    "few-shot": ("stage", "boldmill.evaluate.fewshot_command", "learn each task from k subjects per class"),
    "zero-shot": ("stage", "boldmill.evaluate.transfer_command", "apply what one task taught to another, unchanged"),
    "ablation": ("stage", "boldmill.ablation.command", "one table of all variants of an ablation"),
    "pages": ("stage", "boldmill.report.pages_command", "write the page of every subject of one bucket"),
    "report": ("stage", "boldmill.report.command", "write the self-contained HTML report"),
    "ledger": ("stage", "boldmill.provenance.ledger", "fold all provenance records into one table"),
}

GROUPS = {
    "start": "getting started",
    "look": "looking",
    "move": "exchanging",
    "stage": "stages (called by the workflow)",
}


def usage() -> str:
    """Return the help text, without importing any command."""
    lines = ["usage: boldmill COMMAND [options]", "", "One Snakemake DAG: raw MRI in, brain foundation models out."]
    for group, title in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<14} {text}" for name, (of, _, text) in COMMANDS.items() if of == group]
    lines += ["", "`boldmill COMMAND --help` shows options and an example. Run everything: snakemake --profile local"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from boldmill import __version__

        print(__version__)
        return 0
    from boldmill.errors import EXIT_FAILURE, EXIT_PIPE, EXIT_USAGE, BoldmillError, ConfigError, disk_fault, nearest

    name = words[0]
    if name not in COMMANDS:
        print(f"boldmill: unknown command '{name}'{nearest(name, COMMANDS)}. Try: boldmill --help", file=sys.stderr)
        return EXIT_USAGE

    import argparse
    import importlib

    module = importlib.import_module(COMMANDS[name][1])
    parser = argparse.ArgumentParser(
        prog=f"boldmill {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_args(words[1:])))
    except ConfigError as error:
        print(f"boldmill {name}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BoldmillError as error:
        print(f"boldmill {name}: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except BrokenPipeError:  # the reader went away (`boldmill ... | head`); what was left to do was not done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which the interpreter flushes when it ends
        return EXIT_PIPE
    except Exception as error:
        fault = disk_fault(error, "the disk")
        if fault is None:
            raise
        print(f"boldmill {name}: {fault}", file=sys.stderr)
        return EXIT_FAILURE
