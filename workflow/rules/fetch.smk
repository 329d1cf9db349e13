# Templates and atlases, on a machine with a network (`snakemake fetch` on a login node). Not part of `all`: jobs read
# TEMPLATEFLOW_HOME and stop with one line where a file is missing; none of them downloads.


rule fetch:
    log:
        "<results>/logs/fetch.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        cfg=plan.fetch,
    shell:
        "python -m boldmill fetch --config-json {params.cfg:q} 2>&1 | tee {log}"
