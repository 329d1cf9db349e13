# Template, atlases, and one job per subject: its T1w and all of its runs.


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
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
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
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        cfg=plan.settings("atlas"),
    shell:
        "python -m boldmill atlas --template {input.template:q} --out {output:q} --config-json {params.cfg:q}"
        " > {log:q} 2>&1"


rule preprocess_subject:
    input:
        tickets=plan.tickets,
        template="<results>/templates/template.json",
    output:
        "<results>/preprocess/{dataset}/sub-{subject}.json",
    log:
        "<results>/logs/preprocess/{dataset}/sub-{subject}.log",
    benchmark:
        "<results>/benchmarks/preprocess/{dataset}/sub-{subject}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        cfg=plan.settings("preprocess"),
    shell:
        "python -m boldmill preprocess --tickets {input.tickets:q} --template {input.template:q}"
        " --results $BOLDMILL_RESULTS --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule preprocess:
    input:
        plan.all_subjects(),
