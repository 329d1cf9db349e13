# One page for people, one table for auditors.


rule report_page:
    input:
        snapshot=rules.snapshot.output,
        metrics=plan.models(plan.layout.metrics),
        subjects=plan.all_subjects(),
        parcellated=plan.per_bucket(plan.layout.parcellated),
        flat=plan.per_bucket(plan.layout.flat),
    output:
        page=report(
            plan.layout.report, caption="../report/report.rst", category="Report"
        ),
        quarantine=plan.layout.quarantine,
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        cfg=plan.settings("report"),
    shell:
        "python -m boldmill report --results $BOLDMILL_RESULTS --snapshot {input.snapshot:q} --out {output.page:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule ledger:
    input:
        page=plan.layout.report,
    output:
        plan.layout.ledger,
    log:
        "<results>/logs/ledger.log",
    benchmark:
        "<results>/benchmarks/ledger.jsonl"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        cfg=plan.settings("ledger"),
    shell:
        "python -m boldmill ledger --results $BOLDMILL_RESULTS --out {output:q} --config-json {params.cfg:q}"
        " > {log:q} 2>&1"


rule report:
    input:
        rules.report_page.output,


rule audit:
    input:
        rules.ledger.output,
