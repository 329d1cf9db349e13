# Parquet shards per bucket, and the snapshot that training reads.


rule clips_bucket:
    input:
        tickets=plan.tickets,
        subjects=plan.subjects,
        flat=plan.flat,
        frames=plan.frames,
    output:
        "<results>/shards/flat_clips/bucket-{bucket}.parquet",
    log:
        "<results>/logs/clips/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/clips/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("clips"),
        runtime=plan.minutes("clips"),
    params:
        cfg=plan.settings("clips"),
    shell:
        "python -m boldmill clips --bucket {wildcards.bucket} --tickets {input.tickets:q} --subjects {input.subjects:q}"
        " --flat {input.flat:q} --results $BOLDMILL_RESULTS --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule shard_bucket:
    input:
        tickets=plan.tickets,
        participants="<results>/index/participants/bucket-{bucket}.json",
        subjects=plan.subjects,
        parcellated="<results>/parcellate/bucket-{bucket}.json",
        clips="<results>/shards/flat_clips/bucket-{bucket}.parquet",
    output:
        scans="<results>/shards/scans/bucket-{bucket}.parquet",
        timeseries=plan.atlas_shards("timeseries"),
        fc=plan.atlas_shards("fc"),
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
        " --clips {input.clips:q} --results $BOLDMILL_RESULTS --out-scans {output.scans:q}"
        " --out-timeseries {output.timeseries:q} --out-fc {output.fc:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule snapshot:
    input:
        shards=plan.all_shards(),
        scans=plan.shards("scans"),
    output:
        plan.snapshots.rolling,
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
        "python -m boldmill snapshot --scans {plan.scan_shards} --atlases {plan.atlases:q} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


# The shards of a name are taken once. Their list is then a file like a raw one: no data update leads to it, so neither
# `freeze` nor training follows. (An ancient() input would not do: Snakemake asks no job below a running one whether its
# own settings changed, so that a new setting beside new data would be passed over.)
rule freeze_shards:
    input:
        plan.snapshots.rolling,
    output:
        plan.snapshots.to_freeze,
    log:
        "<results>/logs/freeze_shards.log",
    benchmark:
        "<results>/benchmarks/freeze_shards.jsonl"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        cfg=plan.settings("freeze_shards"),
    shell:
        "python -m boldmill freeze --snapshot {input:q} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule freeze:
    input:
        plan.snapshots.frozen,
    output:
        plan.snapshots.named,
    log:
        "<results>/logs/freeze.log",
    benchmark:
        "<results>/benchmarks/freeze.jsonl"
    localrule: True
    conda:
        "../../envs/core.yaml"
    params:
        cfg=plan.settings("freeze"),
    shell:
        "python -m boldmill snapshot --frozen {input:q} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule shards:
    input:
        plan.all_shards(),
        plan.snapshots.rolling,
        plan.snapshots.read,
