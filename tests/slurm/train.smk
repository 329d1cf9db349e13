# The training rule of the workflow on a snapshot that is there already (tests/slurm/test_training.py).
import sys

SOURCE = config["source"]
sys.path.insert(0, SOURCE)
from boldmill.cluster.signals import ignore_warning
from boldmill.config import load
from boldmill.workflow import Plan, shell_prefix

if not workflow.is_main_process:  # as open_plan does
    ignore_warning()
plan = Plan(load.parse(config["project"]), None)


pathvars:
    results=plan.config.results,


shell.prefix(shell_prefix(SOURCE, plan.config.results, own_environment=False))


rule snapshot:
    output:
        "<results>/datasets/latest/manifest.json",
    shell:
        "false"


include: f"{SOURCE}/../workflow/rules/models.smk"
