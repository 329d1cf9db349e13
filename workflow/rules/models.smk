# Train each model on the snapshot, evaluate each against its baselines.


rule train_model:
    input:
        snapshot=plan.snapshots.read,
        init=plan.first_weights,
    output:
        "<results>/models/{model}/model.safetensors",
    log:
        "<results>/logs/train/{model}.log",
    benchmark:
        "<results>/benchmarks/train/{model}.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        gpu=1,
        nodes=1,
        ranks=0,
        mem_mb=plan.memory("train_{model}"),
        runtime=plan.minutes("train_{model}"),
    params:
        cfg=plan.settings("train_{model}"),
    shell:
        "exec python -m boldmill launch --gpus {resources.gpu} --nodes {resources.nodes} --ranks {resources.ranks}"
        " --threads {threads} -- train --model {wildcards.model} --snapshot {input.snapshot:q}"
        " --out {output:q} --config-json {params.cfg:q} >> {log:q} 2>&1"


rule evaluate_model:
    input:
        snapshot=plan.snapshots.read,
        checkpoint="<results>/models/{model}/model.safetensors",
    output:
        "<results>/evaluate/{model}/metrics.tsv",
    log:
        "<results>/logs/evaluate/{model}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{model}.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=plan.memory("evaluate"),
        runtime=plan.minutes("evaluate"),
    params:
        cfg=plan.settings("evaluate"),
    shell:
        "python -m boldmill evaluate --model {wildcards.model} --checkpoint {input.checkpoint:q}"
        " --snapshot {input.snapshot:q} --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule train:
    input:
        plan.models(plan.layout.checkpoint),


rule evaluate:
    input:
        plan.models(plan.layout.metrics),
