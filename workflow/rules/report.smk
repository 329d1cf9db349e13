# One page for people, one table for auditors.


rule report_page:
    input:
        snapshot=rules.snapshot.output,
        metrics=plan.models(plan.layout.metrics),
        subjects=plan.all_subjects(),
        flat=plan.per_bucket(plan.layout.flat),
    output:
        report(plan.layout.report, caption="../report/report.rst", category="Report"),
    params:
        cfg=plan.settings("report"),
        results=plan.config.results,
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.jsonl"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    conda:
        "../../envs/core.yaml"
    shell:
        "python -m boldmill report --results {params.results:q} --snapshot {input.snapshot:q} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule ledger:
    input:
        page=plan.layout.report,
    output:
        plan.layout.ledger,
    params:
        cfg=plan.settings("ledger"),
        results=plan.config.results,
    log:
        "<results>/logs/ledger.log",
    benchmark:
        "<results>/benchmarks/ledger.jsonl"
    conda:
        "../../envs/core.yaml"
    localrule: True
    shell:
        "python -m boldmill ledger --results {params.results:q} --out {output:q} --config-json {params.cfg:q}"
        " > {log:q} 2>&1"


rule report:
    input:
        rules.report_page.output,


rule audit:
    input:
        rules.ledger.output,
