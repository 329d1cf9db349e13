# Template, atlases, and one job per bucket of subjects, several subjects at a time: T1w and all runs of each.


rule templates:
    output:
        "<results>/templates/template.json",
    log:
        "<results>/logs/templates.log",
    benchmark:
        "<results>/benchmarks/templates.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("templates"),
        runtime=plan.minutes("templates"),
    params:
        cfg=plan.settings("templates"),
    shell:
        "python -m boldmill templates --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule atlas:
    input:
        template="<results>/templates/template.json",
    output:
        "<results>/atlas/{atlas}/atlas.json",
    log:
        "<results>/logs/atlas/{atlas}.log",
    benchmark:
        "<results>/benchmarks/atlas/{atlas}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("atlas"),
        runtime=plan.minutes("atlas"),
    params:
        cfg=plan.settings("atlas"),
    shell:
        "python -m boldmill atlas --template {input.template:q} --out {output:q} --config-json {params.cfg:q}"
        " > {log:q} 2>&1"


rule preprocess_bucket:
    input:
        bucket="<results>/index/buckets/bucket-{bucket}.json",
        template="<results>/templates/template.json",
    output:
        "<results>/preprocess/bucket-{bucket}.json",
    log:
        "<results>/logs/preprocess/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/preprocess/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=plan.memory("preprocess"),
        runtime=plan.minutes("preprocess"),
    params:
        cfg=plan.settings("preprocess"),
    shell:
        "python -m boldmill preprocess --bucket {input.bucket:q} --template {input.template:q}"
        " --results $BOLDMILL_RESULTS --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule preprocess:
    input:
        plan.per_preprocessed(plan.layout.preprocessed),
