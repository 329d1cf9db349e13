# Linear maps of a frame, built once, and one job per bucket of subjects for each representation.


rule operator_parcels:
    input:
        atlas="<results>/atlas/{atlas}/atlas.json",
    output:
        "<results>/operators/parcels-{atlas}.json",
    log:
        "<results>/logs/operators/parcels-{atlas}.log",
    benchmark:
        "<results>/benchmarks/operators/parcels-{atlas}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("operator_parcels"),
        runtime=plan.minutes("operator_parcels"),
    params:
        cfg=plan.settings("operator_parcels"),
    shell:
        "python -m boldmill operators parcels --atlas {input.atlas:q} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule operator_ribbon:
    input:
        template="<results>/templates/template.json",
        coordinates=plan.config.flatmap.regfusion,
    output:
        "<results>/operators/ribbon.json",
    log:
        "<results>/logs/operators/ribbon.log",
    benchmark:
        "<results>/benchmarks/operators/ribbon.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("operator_ribbon"),
        runtime=plan.minutes("operator_ribbon"),
    params:
        cfg=plan.settings("operator_ribbon"),
    shell:
        "python -m boldmill operators ribbon --template {input.template:q} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule operator_flat:
    input:
        plan.config.spaces.flat_files,
    output:
        "<results>/operators/flat.json",
    log:
        "<results>/logs/operators/flat.log",
    benchmark:
        "<results>/benchmarks/operators/flat.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("operator_flat"),
        runtime=plan.minutes("operator_flat"),
    params:
        cfg=plan.settings("operator_flat"),
    shell:
        "python -m boldmill operators flat --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule operator_meshes:
    output:
        "<results>/operators/meshes.json",
    log:
        "<results>/logs/operators/meshes.log",
    benchmark:
        "<results>/benchmarks/operators/meshes.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("operator_meshes"),
        runtime=plan.minutes("operator_meshes"),
    params:
        cfg=plan.settings("operator_meshes"),
    shell:
        "python -m boldmill operators meshes --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule parcellate_bucket:
    input:
        subjects=plan.subjects,
        tables=plan.tables,
        operators=plan.parcel_operators,
    output:
        "<results>/parcellate/bucket-{bucket}.json",
    log:
        "<results>/logs/parcellate/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/parcellate/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("parcellate"),
        runtime=plan.minutes("parcellate"),
    params:
        cfg=plan.settings("parcellate"),
    shell:
        "python -m boldmill parcellate --subjects {input.subjects:q} --tables {input.tables:q}"
        " --operators {input.operators:q} --results $BOLDMILL_RESULTS --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


frames = directory("<results>/flatmap/bucket-{bucket}.frames")


rule flatmap_bucket:
    input:
        subjects=plan.subjects,
        operators=plan.flat_operators,
    output:
        manifest="<results>/flatmap/bucket-{bucket}.json",
        frames=frames if "frames" in plan.config.flatmap.keep else temp(frames),
    log:
        "<results>/logs/flatmap/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/flatmap/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("flatmap"),
        runtime=plan.minutes("flatmap"),
    params:
        cfg=plan.settings("flatmap"),
    shell:
        "python -m boldmill flatmap --subjects {input.subjects:q} --operators {input.operators:q}"
        " --results $BOLDMILL_RESULTS --frames {output.frames:q} --out {output.manifest:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule augment_bucket:
    input:
        tickets=plan.tickets,
        parcellated="<results>/parcellate/bucket-{bucket}.json",
    output:
        plan.atlas_shards("pfc"),
    log:
        "<results>/logs/augment/bucket-{bucket}.log",
    benchmark:
        "<results>/benchmarks/augment/bucket-{bucket}.jsonl"
    conda:
        "../../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("augment"),
        runtime=plan.minutes("augment"),
    params:
        cfg=plan.settings("augment"),
    shell:
        "python -m boldmill augment --tickets {input.tickets:q} --parcellated {input.parcellated:q}"
        " --results $BOLDMILL_RESULTS --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule parcellate:
    input:
        plan.per_bucket(plan.layout.parcellated),


rule flatmap:  # with the clips: frames are temporary, and a stage that waits for another call would make them again
    input:
        plan.per_preprocessed(plan.layout.flat),
        plan.clips(),


rule augment:
    input:
        plan.shards("pfc"),
