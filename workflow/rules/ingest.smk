# Index the data sets. Always a call of its own (`snakemake ingest`): in one DAG with the stages, every
# refreshed ticket would force all of its children, whether its content changed or not.


rule ingest:
    params:
        cfg=plan.settings("ingest"),
        results=plan.config.results,
    log:
        "<results>/logs/ingest.log",
    conda:
        "../../envs/core.yaml"
    localrule: True
    shell:
        "python -m boldmill ingest --results {params.results:q} --config-json {params.cfg:q} 2>&1 | tee {log}"
