"""Pretraining, training and evaluation."""


rule pretrain:
    """Learn from unlabelled sequences, once for all folds and replicates of a run.

    Checkpoints lie in pretrain.work, as those of `train` do beside its folder.
    """
    input:
        settings=settings_of("pretrain"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        fasta=unlabelled_of,
        meme=motif_file_of,
    output:
        weights=results("pretrain", "weights.safetensors"),
        model=results("pretrain", "model.json"),
        history=report(
            results("pretrain", "history.tsv"),
            caption="../report/pretraining.rst",
            category="Training",
            labels={"run": "{run}", "table": "pretraining"},
        ),
        record=results("pretrain", "run_record.json"),
    log:
        results("logs", "pretrain.log"),
    benchmark:
        results("benchmarks", "pretrain.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=720,
    params:
        out=subpath(output.weights, parent=True),
        fasta=repeated("--fasta", "fasta"),
    shell:
        "python -m bioattn pretrain --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} {params.fasta:q} --out {params.out:q} > {log:q} 2>&1"


rule train:
    """Train one model.

    Checkpoints lie in seed{seed}.work, which is no output: Snakemake would delete it
    when the job is killed, and the next start could not go on from there. The
    outputs are not protected() either: a changed setting must be able to replace
    them, and --rerun-triggers in README and profiles keep them from being made anew
    for nothing.
    """
    input:
        settings=settings_of("train"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        pretrained=if_pretrained(results("pretrain", "weights.safetensors")),
        meme=motif_file_of,
    output:
        weights=results("models", "fold{fold}", "seed{seed}", "weights.safetensors"),
        model=results("models", "fold{fold}", "seed{seed}", "model.json"),
        history=report(
            results("models", "fold{fold}", "seed{seed}", "history.tsv"),
            caption="../report/training.rst",
            category="Training",
            labels={"run": "{run}", "fold": "{fold}", "seed": "{seed}"},
        ),
        record=results("models", "fold{fold}", "seed{seed}", "run_record.json"),
    log:
        results("logs", "train", "fold{fold}_seed{seed}.log"),
    benchmark:
        results("benchmarks", "train", "fold{fold}_seed{seed}.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=720,
    params:
        out=subpath(output.weights, parent=True),
        pretrained=repeated("--pretrained", "pretrained", folder=True),
        fold=lambda wildcards: wildcards.fold,
    shell:
        "python -m bioattn train --settings {input.settings:q} --sequences {input.sequences:q} --split {input.split:q}"
        " {params.pretrained:q} --fold {params.fold} --seed {wildcards.seed} --out {params.out:q} > {log:q} 2>&1"


rule evaluate:
    """Score all models and the baselines on held-out sequences."""
    input:
        settings=settings_of("evaluate"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        neighbours=results("split", "neighbours.parquet"),
        models=for_models(results("models", "fold{fold}", "seed{seed}", "weights.safetensors")),
        meme=motif_file_of,
    output:
        metrics=report(
            results("evaluation", "metrics.tsv"),
            caption="../report/metrics.rst",
            category="Evaluation",
            labels={"run": "{run}", "table": "metrics and baselines"},
        ),
        predictions=results("evaluation", "predictions.parquet"),
        curves=results("evaluation", "curves.parquet"),
    log:
        results("logs", "evaluate.log"),
    benchmark:
        results("benchmarks", "evaluate.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=240,
    params:
        out=subpath(output.metrics, parent=True),
        models=repeated("--model", "models", folder=True),
    shell:
        "python -m bioattn evaluate --settings {input.settings:q} --sequences {input.sequences:q} --split {input.split:q}"
        " --neighbours {input.neighbours:q} {params.models:q} --out {params.out:q} > {log:q} 2>&1"
