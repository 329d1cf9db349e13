# Parquet shards per bucket, and the snapshot that training reads.


rule shard_bucket:
    input:
        tickets=plan.tickets,
        participants="<results>/index/participants/bucket-{bucket}.json",
        subjects=plan.subjects,
        parcellated="<results>/parcellate/bucket-{bucket}.json",
        flat=plan.flat,
    output:
        scans="<results>/shards/scans/bucket-{bucket}.parquet",
        timeseries=plan.atlas_shards("timeseries"),
        fc=plan.atlas_shards("fc"),
        flat_clips="<results>/shards/flat_clips/bucket-{bucket}.parquet",
    log:
        "<results>/logs/shards/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/shards/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("shards"),
        runtime=plan.minutes("shards"),
    params:
        cfg=plan.settings("shards"),
    shell:
        "python -m boldmill shards --bucket {wildcards.bucket} --tickets {input.tickets:q}"
        " --participants {input.participants:q} --subjects {input.subjects:q} --parcellated {input.parcellated:q}"
        " --flat {input.flat:q} --results $BOLDMILL_RESULTS --out-scans {output.scans:q}"
        " --out-timeseries {output.timeseries:q} --out-fc {output.fc:q} --out-flat-clips {output.flat_clips:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule snapshot:
    input:
        shards=plan.all_shards(),
        scans=plan.shards("scans"),
    output:
        plan.layout.snapshot(plan.config.snapshot.name),
    log:
        "<results>/logs/snapshot.log",
    benchmark:
        "<results>/benchmarks/snapshot.jsonl"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        cfg=plan.settings("snapshot"),
    shell:
        "python -m boldmill snapshot --scans {input.scans:q} --atlases {plan.atlases:q} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule shards:
    input:
        plan.all_shards(),
        rules.snapshot.output,
