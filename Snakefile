# boldmill: raw BIDS in, three trained and evaluated models out.
#   snakemake --profile local                            the demo cohort (config.yaml)
#   snakemake --profile slurm --configfile my.yaml       your data on a cluster
#   snakemake parcellate --profile local                 up to one stage; -R parcellate_bucket forces it
# Parsing reads one index and nothing else; logic lives in src/boldmill, rules only declare.
import sys

from snakemake.utils import min_version

min_version("9.20")

SOURCE = f"{workflow.basedir}/src"
sys.path.insert(0, SOURCE)
from boldmill.errors import BoldmillError
from boldmill.workflow import open_plan, shell_prefix


configfile: "config.yaml"


try:
    plan = open_plan(
        config,
        main_process=workflow.is_main_process,
        argv=sys.argv[1:],
    )
except BoldmillError as error:
    sys.exit(f"boldmill: {error}")


pathvars:
    results=plan.config.results,


shell.prefix(
    shell_prefix(
        SOURCE,
        plan.config.results,
        own_environment=bool(workflow.deployment_settings.deployment_method),
    )
)


wildcard_constraints:
    bucket="[0-9]{3,4}",
    atlas="[A-Za-z0-9-]+",
    model="brainmass|fmri_mae|fm_app",
    variant="[A-Za-z0-9_-]+",


include: "workflow/rules/ingest.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/represent.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/interpret.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/brainmass.smk"


rule all:
    default_target: True
    input:
        rules.shards.input,
        rules.train.input,
        rules.evaluate.input,
        rules.interpret.input,
        rules.report.input,
        rules.audit.input,
        plan.optional(),


onsuccess:
    shell(f"{plan.status()} --unquoted || true")


onerror:
    shell(f"{plan.status()} --unquoted || true")
