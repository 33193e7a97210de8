"""What the models attend to. Heads are a dimension inside the files, never jobs: loading torch costs seconds."""


rule heads:
    """Motifs, logos and names of every attention head of one model."""
    input:
        settings=settings_of("heads"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
        meme=motif_file_of,
    output:
        table=report(
            results("heads", "seed{seed}", "heads.tsv"),
            caption="../report/heads.rst",
            category="Attention heads",
            labels={"run": "{run}", "seed": "{seed}", "what": "table"},
        ),
        sheet=report(
            results("heads", "seed{seed}", "contact_sheet.svg"),
            caption="../report/heads.rst",
            category="Attention heads",
            labels={"run": "{run}", "seed": "{seed}", "what": "contact sheet"},
        ),
        meme=results("heads", "seed{seed}", "motifs.meme"),
        matrices=results("heads", "seed{seed}", "motifs.npz"),
        mutagenesis=results("heads", "seed{seed}", "ism.parquet"),
        positions=results("heads", "seed{seed}", "positions.parquet"),
        # As many logos as motifs were found, so the folder is the output.
        logos=directory(results("heads", "seed{seed}", "logos")),
    log:
        results("logs", "heads", "seed{seed}.log"),
    benchmark:
        results("benchmarks", "heads", "seed{seed}.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=240,
    params:
        out=subpath(output.table, parent=True),
        model=subpath(input.model, parent=True),
    shell:
        "python -m bioattn heads --settings {input.settings:q} --sequences {input.sequences:q} --split {input.split:q}"
        " --fold 0 --model {params.model:q} --out {params.out:q} > {log:q} 2>&1"


rule coattention:
    """Co-attention of all motif pairs in one model, against permuted identities."""
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
        meme=motif_file_of,
    output:
        results("interactions", "seed{seed}", "coattention.npz"),
    log:
        results("logs", "coattention", "seed{seed}.log"),
    benchmark:
        results("benchmarks", "coattention", "seed{seed}.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=240,
    params:
        model=subpath(input.model, parent=True),
    shell:
        "python -m bioattn coattention --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --fold 0 --model {params.model:q} --out {output:q} > {log:q} 2>&1"
