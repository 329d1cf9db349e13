# Pages for people (one per subject, one for the cohort, one for the whole run), one table for auditors.


rule pages_bucket:
    input:
        subjects=plan.subjects,
        refused=ancient(plan.layout.index_quarantine),  # shown, but no reason to make all pages again
    output:
        "<results>/reports/bucket-{bucket}.json",
    log:
        "<results>/logs/pages/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/pages/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("pages"),
        runtime=plan.minutes("pages"),
    params:
        cfg=plan.settings("pages"),
    shell:
        "python -m boldmill pages --subjects {input.subjects:q} --quarantine {input.refused:q}"
        " --results $BOLDMILL_RESULTS --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule cohort_page:
    input:
        subjects=plan.per_preprocessed(plan.layout.preprocessed),
        parcellated=plan.per_bucket(plan.layout.parcellated),
        participants=plan.per_bucket(plan.layout.participants),  # sites
        refused=plan.layout.index_quarantine,
    output:
        page=report(
            plan.layout.cohort, caption="../report/report.rst", category="Report"
        ),
        table=plan.layout.cohort.with_suffix(".tsv"),
    log:
        "<results>/logs/cohort.log",
    benchmark:
        "<results>/benchmarks/cohort.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("cohort"),
        runtime=plan.minutes("cohort"),
    params:
        cfg=plan.settings("cohort"),
    shell:
        "python -m boldmill cohort --results $BOLDMILL_RESULTS --out {output.page:q} --config-json {params.cfg:q}"
        " > {log:q} 2>&1"


rule report_page:
    input:
        snapshot=plan.snapshots.read,
        latest=plan.snapshots.rolling,  # tells how many buckets are newer than the frozen ones
        metrics=plan.models(plan.layout.metrics),
        subjects=plan.per_preprocessed(plan.layout.preprocessed),
        parcellated=plan.per_bucket(plan.layout.parcellated),
        flat=plan.per_preprocessed(plan.layout.flat),
        refused=plan.layout.index_quarantine,
        optional=plan.optional(),
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
        mem_mb=plan.memory("report"),
        runtime=plan.minutes("report"),
    params:
        cfg=plan.settings("report"),
    shell:
        "python -m boldmill report --results $BOLDMILL_RESULTS --snapshot {input.snapshot:q} --out {output.page:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule ledger:
    input:
        page=plan.layout.report,
        pages=plan.per_preprocessed(plan.layout.pages),
        cohort=plan.layout.cohort,
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
        rules.cohort_page.output,
        plan.per_preprocessed(plan.layout.pages),


rule audit:
    input:
        rules.ledger.output,
