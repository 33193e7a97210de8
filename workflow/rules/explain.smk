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
        positions=results("heads", "seed{seed}", "positions.parquet"),
        columns=results("heads", "seed{seed}", "columns.tsv"),
        ablation=results("heads", "seed{seed}", "ablation.tsv"),
        similarity=results("heads", "seed{seed}", "similarity.tsv"),
        distances=results("heads", "seed{seed}", "distances.tsv"),
        tracks=results("heads", "seed{seed}", "tracks.tsv"),
        contributions=results("heads", "seed{seed}", "cwms.npz"),
        readers=results("heads", "seed{seed}", "readers.npz"),
        seqlets=results("heads", "seed{seed}", "seqlets.bed"),
        summary=results("heads", "seed{seed}", "summary.json"),
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


rule stability:
    """Which heads and motifs come back in every replicate."""
    input:
        tables=for_replicates(results("heads", "seed{seed}", "heads.tsv")),
        matrices=for_replicates(results("heads", "seed{seed}", "motifs.npz")),
        positions=for_replicates(results("heads", "seed{seed}", "positions.parquet")),
    output:
        motifs=report(
            results("heads", "stability.tsv"),
            caption="../report/heads.rst",
            category="Attention heads",
            labels={"run": "{run}", "seed": "all", "what": "stability"},
        ),
        heads=results("heads", "head_matches.tsv"),
    log:
        results("logs", "stability.log"),
    benchmark:
        results("benchmarks", "stability.tsv")
    group:
        "post"
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        heads=repeated("--heads", "tables", folder=True),
        out=subpath(output.motifs, parent=True),
    shell:
        "python -m bioattn stability {params.heads:q} --out {params.out:q} > {log:q} 2>&1"


rule attribution:
    """What each base does to the readout of one model, and which attribution says so faithfully."""
    input:
        settings=settings_of("attribution"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
    output:
        mutagenesis=results("attribution", "seed{seed}", "ism.parquet"),
        attributions=results("attribution", "seed{seed}", "attributions.parquet"),
        tracks=results("attribution", "seed{seed}", "head_tracks.parquet"),
        curves=results("attribution", "seed{seed}", "curves.tsv"),
        edges=results("attribution", "seed{seed}", "edges.tsv"),
        faithfulness=report(
            results("attribution", "seed{seed}", "faithfulness.tsv"),
            caption="../report/attribution.rst",
            category="Attribution",
            labels={"run": "{run}", "seed": "{seed}", "what": "faithfulness"},
        ),
    log:
        results("logs", "attribution", "seed{seed}.log"),
    benchmark:
        results("benchmarks", "attribution", "seed{seed}.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=240,
    params:
        out=subpath(output.mutagenesis, parent=True),
        model=subpath(input.model, parent=True),
    shell:
        "python -m bioattn attribution --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --fold 0 --model {params.model:q} --out {params.out:q} > {log:q} 2>&1"


rule hits:
    """Look for the motifs that pairs are made of in all sequences, once for all models."""
    input:
        settings=settings_of("hits"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        meme=motif_file_of,
    output:
        hits=results("interactions", "hits", "hits.parquet"),
        library=results("interactions", "hits", "library.parquet"),
    log:
        results("logs", "hits.log"),
    benchmark:
        results("benchmarks", "hits.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        out=subpath(output.hits, parent=True),
    shell:
        "python -m bioattn hits --settings {input.settings:q} --sequences {input.sequences:q} --split {input.split:q}"
        " --fold 0 --out {params.out:q} > {log:q} 2>&1"


rule coattention:
    """Co-attention of all motif pairs in one model, against permuted identities."""
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
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
        hits=subpath(input.hits, parent=True),
        model=subpath(input.model, parent=True),
    shell:
        "python -m bioattn coattention --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} --fold 0 --model {params.model:q} --out {output:q}"
        " > {log:q} 2>&1"
