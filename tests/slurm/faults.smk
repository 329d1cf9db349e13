# Jobs that end in each of the ways SLURM has (tests/slurm/test_faults.py).


rule all:
    input:
        "hungry.txt",
        "sleepy.txt",
        "slow.txt",
        "unwanted.txt",


rule hungry:
    output:
        "hungry.txt",
    log:
        "logs/hungry.log",
    retries: 1
    resources:
        mem_mb=lambda wildcards, attempt: 450 * attempt,
        runtime=5,
    shell:
        "python -c 'import time; held = b\"x\" * (500 << 20); time.sleep(4)' > {log} 2>&1; touch {output}"


rule sleepy:
    output:
        "sleepy.txt",
    log:
        "logs/sleepy.log",
    resources:
        slurm_partition="pair",
        mem_mb=400,
        runtime=10,
    shell:
        "if [ ! -e again ]; then sleep 300; fi > {log} 2>&1; touch {output}"


rule slow:
    output:
        "slow.txt",
    log:
        "logs/slow.log",
    resources:
        mem_mb=400,
        runtime=1,
    shell:
        "if [ ! -e again ]; then sleep 300; fi > {log} 2>&1; touch {output}"


rule unwanted:
    output:
        "unwanted.txt",
    log:
        "logs/unwanted.log",
    resources:
        slurm_partition="pair",
        mem_mb=400,
        runtime=10,
    shell:
        "if [ ! -e again ]; then sleep 300; fi > {log} 2>&1; touch {output}"
