# What a trained model uses: maps, stability and pictures per task.


rule interpret_model:
    input:
        snapshot=plan.snapshots.read,
        checkpoint="<results>/models/{model}/model.safetensors",
        atlas=plan.drawn_atlas,
        labels=plan.config.interpret.surface_labels,
    output:
        "<results>/interpret/{model}/regions.tsv",
    log:
        "<results>/logs/interpret/{model}.log",
    benchmark:
        "<results>/benchmarks/interpret/{model}.jsonl"
    conda:
        "../../envs/torch.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=plan.memory("interpret"),
        runtime=plan.minutes("interpret"),
    params:
        cfg=plan.settings("interpret"),
    shell:
        "python -m boldmill interpret --model {wildcards.model} --checkpoint {input.checkpoint:q}"
        " --snapshot {input.snapshot:q} --atlas {input.atlas:q} --threads {threads} --out {output:q}"
        " --config-json {params.cfg:q} > {log:q} 2>&1"


rule interpret:
    input:
        plan.optional("interpret"),
