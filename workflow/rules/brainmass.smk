# Few-shot curves, zero-shot transfers, the ablation of BrainMass, and the target of ABIDE.


rule few_shot_model:
    input:
        snapshot=plan.snapshots.read,
        checkpoint="<results>/models/{model}/model.safetensors",
    output:
        "<results>/evaluate/{model}/few_shot.tsv",
    log:
        "<results>/logs/few_shot/{model}.log",
    benchmark:
        "<results>/benchmarks/few_shot/{model}.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=plan.memory("few_shot"),
        runtime=plan.minutes("few_shot"),
    params:
        cfg=plan.settings("few_shot"),
    shell:
        "python -m boldmill few-shot --model {wildcards.model} --checkpoint {input.checkpoint:q}"
        " --snapshot {input.snapshot:q} --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule zero_shot_model:
    input:
        snapshot=plan.snapshots.read,
        checkpoint="<results>/models/{model}/model.safetensors",
    output:
        "<results>/evaluate/{model}/zero_shot.tsv",
    log:
        "<results>/logs/zero_shot/{model}.log",
    benchmark:
        "<results>/benchmarks/zero_shot/{model}.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=plan.memory("zero_shot"),
        runtime=plan.minutes("zero_shot"),
    params:
        cfg=plan.settings("zero_shot"),
    shell:
        "python -m boldmill zero-shot --model {wildcards.model} --checkpoint {input.checkpoint:q}"
        " --snapshot {input.snapshot:q} --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule train_ablation:
    input:
        snapshot=plan.snapshots.read,
        init=plan.first_weights,
    output:
        "<results>/ablation/{variant}/model.safetensors",
    log:
        "<results>/logs/ablation/train-{variant}.log",
    benchmark:
        "<results>/benchmarks/ablation/train-{variant}.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        gpu=1,
        nodes=1,
        ranks=0,
        mem_mb=plan.memory("train_brainmass"),
        runtime=plan.minutes("train_brainmass"),
    params:
        cfg=plan.settings("train_brainmass"),
    shell:
        "exec python -m boldmill launch --gpus {resources.gpu} --nodes {resources.nodes} --ranks {resources.ranks}"
        " --threads {threads} -- train --model brainmass --snapshot {input.snapshot:q}"
        " --out {output:q} --config-json {params.cfg:q} >> {log:q} 2>&1"


rule evaluate_ablation:
    input:
        snapshot=plan.snapshots.read,
        checkpoint="<results>/ablation/{variant}/model.safetensors",
    output:
        "<results>/ablation/{variant}/metrics.tsv",
    log:
        "<results>/logs/ablation/evaluate-{variant}.log",
    benchmark:
        "<results>/benchmarks/ablation/evaluate-{variant}.jsonl"
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
        "python -m boldmill evaluate --model brainmass --checkpoint {input.checkpoint:q}"
        " --snapshot {input.snapshot:q} --threads {threads} --out {output:q} --config-json {params.cfg:q} > {log:q} 2>&1"


rule ablation_table:
    input:
        snapshot=plan.snapshots.read,
        metrics=plan.variants(plan.layout.variant_metrics),
    output:
        plan.layout.ablation,
    log:
        "<results>/logs/ablation/table.log",
    benchmark:
        "<results>/benchmarks/ablation/table.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=plan.memory("ablation"),
        runtime=plan.minutes("ablation"),
    params:
        cfg=plan.settings("ablation"),
    shell:
        "python -m boldmill ablation --metrics {input.metrics:q} --snapshot {input.snapshot:q} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule few_shot:
    input:
        plan.optional("few-shot"),


rule zero_shot:
    input:
        plan.optional("zero-shot"),


rule ablation:
    input:
        plan.optional("ablation"),


rule abide:
    input:
        rules.shards.input,
        rules.report.input,
        rules.audit.input,
