"""boldmill: one Snakemake DAG that mills raw MRI into brain foundation models."""

__version__ = "0.1.0"
