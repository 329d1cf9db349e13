# Template, atlas, and one job per subject: its T1w and all of its runs.


rule templates:
    output:
        "<results>/templates/template.json",
    params:
        cfg=plan.settings("templates"),
    log:
        "<results>/logs/templates.log",
    benchmark:
        "<results>/benchmarks/templates.jsonl"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    conda:
        "../../envs/core.yaml"
    shell:
        "python -m boldmill templates --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule atlas:
    input:
        template="<results>/templates/template.json",
    output:
        "<results>/atlas/atlas.json",
    params:
        cfg=plan.settings("atlas"),
    log:
        "<results>/logs/atlas.log",
    benchmark:
        "<results>/benchmarks/atlas.jsonl"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    conda:
        "../../envs/core.yaml"
    shell:
        "python -m boldmill atlas --template {input.template:q} --out {output:q} --config-json {params.cfg:q}"
        " > {log:q} 2>&1"


rule preprocess_subject:
    input:
        tickets=plan.tickets,
        template="<results>/templates/template.json",
    output:
        "<results>/preprocess/{dataset}/sub-{subject}.json",
    params:
        cfg=plan.settings("preprocess"),
        results=plan.config.results,
    log:
        "<results>/logs/preprocess/{dataset}/sub-{subject}.log",
    benchmark:
        "<results>/benchmarks/preprocess/{dataset}/sub-{subject}.jsonl"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    conda:
        "../../envs/core.yaml"
    shell:
        "python -m boldmill preprocess --tickets {input.tickets:q} --template {input.template:q}"
        " --results {params.results:q} --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule preprocess:
    input:
        plan.all_subjects(),
