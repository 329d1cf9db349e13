# Index the data sets. Always a call of its own (`snakemake ingest`): in one DAG with the stages, every
# refreshed ticket would force all of its children, whether its content changed or not.


rule ingest:
    log:
        "<results>/logs/ingest.log",
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        cfg=plan.settings("ingest"),
    shell:
        "python -m boldmill ingest --results $BOLDMILL_RESULTS --config-json {params.cfg:q} 2>&1 | tee {log}"
