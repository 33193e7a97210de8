"""From candidates to verdicts: interventions on sites and attention edges, in every replicate."""


rule screen:
    """Put all motif pairs into a few backgrounds of one model, alone and together."""
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
    output:
        results("interactions", "seed{seed}", "screen.parquet"),
    log:
        results("logs", "screen", "seed{seed}.log"),
    benchmark:
        results("benchmarks", "screen", "seed{seed}.tsv")
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
        "python -m bioattn screen --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} --fold 0 --model {params.model:q} --out {output:q}"
        " > {log:q} 2>&1"


rule candidates:
    """Choose the motif pairs to intervene on: candidates, and a random sample of the others."""
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        coattention=for_replicates(results("interactions", "seed{seed}", "coattention.npz")),
        screen=if_inserted(results("interactions", "seed{seed}", "screen.parquet")),
    output:
        results("interactions", "candidates.tsv"),
    log:
        results("logs", "candidates.log"),
    benchmark:
        results("benchmarks", "candidates.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        hits=subpath(input.hits, parent=True),
        coattention=repeated("--coattention", "coattention"),
        screen=repeated("--screen", "screen"),
    shell:
        "python -m bioattn candidates --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} {params.coattention:q} {params.screen:q} --fold 0"
        " --out {output:q} > {log:q} 2>&1"


rule knockout:
    """Knock out the sites of motif pairs in real sequences, with and without the attention edge between them."""
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
        candidates=results("interactions", "candidates.tsv"),
    output:
        results("interactions", "seed{seed}", "knockout.parquet"),
    log:
        results("logs", "knockout", "seed{seed}.log"),
    benchmark:
        results("benchmarks", "knockout", "seed{seed}.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=480,
    params:
        hits=subpath(input.hits, parent=True),
        model=subpath(input.model, parent=True),
    shell:
        "python -m bioattn knockout --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} --fold 0 --model {params.model:q}"
        " --candidates {input.candidates:q}"
        " --out {output:q} > {log:q} 2>&1"


rule knockin:
    """Put chosen motif pairs into many backgrounds of one model, and compare their distances and strands."""
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        model=results("models", "fold0", "seed{seed}", "weights.safetensors"),
        candidates=results("interactions", "candidates.tsv"),
    output:
        cells=results("interactions", "seed{seed}", "knockin.parquet"),
        syntax=results("interactions", "seed{seed}", "syntax.parquet"),
    log:
        results("logs", "knockin", "seed{seed}.log"),
    benchmark:
        results("benchmarks", "knockin", "seed{seed}.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=480,
    params:
        hits=subpath(input.hits, parent=True),
        model=subpath(input.model, parent=True),
        syntax=lambda wildcards, output: ["--syntax", output.syntax],
    shell:
        "python -m bioattn knockin --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} --fold 0 --model {params.model:q}"
        " --candidates {input.candidates:q} --out {output.cells:q} {params.syntax:q} > {log:q} 2>&1"


rule environment:
    """Draw training sequences anew, so that motifs are independent of each other, or of GC."""
    input:
        settings=settings_of("hits"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
    output:
        sequences=results("environments", "{environment}", "sequences.parquet"),
        split=results("environments", "{environment}", "split.parquet"),
    log:
        results("logs", "environment_{environment}.log"),
    benchmark:
        results("benchmarks", "environment_{environment}.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        hits=subpath(input.hits, parent=True),
        out=subpath(output.sequences, parent=True),
    shell:
        "python -m bioattn environment --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} --kind {wildcards.environment} --fold 0 --out {params.out:q}"
        " > {log:q} 2>&1"


use rule train as train_environment with:
    input:
        settings=settings_of("train"),
        sequences=results("environments", "{environment}", "sequences.parquet"),
        split=results("environments", "{environment}", "split.parquet"),
        pretrained=if_pretrained(results("pretrain", "weights.safetensors")),
        meme=motif_file_of,
    output:
        weights=results("environments", "{environment}", "seed{seed}", "weights.safetensors"),
        model=results("environments", "{environment}", "seed{seed}", "model.json"),
        history=results("environments", "{environment}", "seed{seed}", "history.tsv"),
        record=results("environments", "{environment}", "seed{seed}", "run_record.json"),
    log:
        results("logs", "train", "{environment}_seed{seed}.log"),
    benchmark:
        results("benchmarks", "train", "{environment}_seed{seed}.tsv")
    params:
        out=subpath(output.weights, parent=True),
        pretrained=repeated("--pretrained", "pretrained", folder=True),
        fold=0,


use rule knockin as knockin_environment with:
    input:
        settings=settings_of("coattention"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        model=model_elsewhere,
        candidates=results("interactions", "candidates.tsv"),
    output:
        cells=results("interactions", "{elsewhere}", "seed{seed}", "knockin.parquet"),
    log:
        results("logs", "knockin", "{elsewhere}_seed{seed}.log"),
    benchmark:
        results("benchmarks", "knockin", "{elsewhere}_seed{seed}.tsv")
    params:
        hits=subpath(input.hits, parent=True),
        model=subpath(input.model, parent=True),
        # The effects of pairs alone are compared.
        syntax=[],


rule interactions:
    """Combine the replicates into one verdict for each pair of motifs."""
    input:
        settings=settings_of("interactions"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        hits=results("interactions", "hits", "hits.parquet"),
        candidates=results("interactions", "candidates.tsv"),
        coattention=for_replicates(results("interactions", "seed{seed}", "coattention.npz")),
        knockout=for_replicates(results("interactions", "seed{seed}", "knockout.parquet")),
        screen=if_inserted(results("interactions", "seed{seed}", "screen.parquet")),
        knockin=if_inserted(results("interactions", "seed{seed}", "knockin.parquet")),
        syntax=if_inserted(results("interactions", "seed{seed}", "syntax.parquet")),
        environments=in_environments(results("interactions", "{elsewhere}", "seed{seed}", "knockin.parquet")),
        measured=measured_of,
    output:
        table=report(
            results("interactions", "table", "interactions.tsv"),
            caption="../report/interactions.rst",
            category="Interactions",
            labels={"run": "{run}", "table": "verdicts"},
        ),
        columns=report(
            results("interactions", "table", "columns.tsv"),
            caption="../report/interactions.rst",
            category="Interactions",
            labels={"run": "{run}", "table": "definition of the columns"},
        ),
        spacing=results("interactions", "table", "spacing.tsv"),
        parquet=results("interactions", "table", "interactions.parquet"),
    log:
        results("logs", "interactions.log"),
    benchmark:
        results("benchmarks", "interactions.tsv")
    group:
        "post"
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        hits=subpath(input.hits, parent=True),
        out=subpath(output.table, parent=True),
        coattention=repeated("--coattention", "coattention"),
        knockout=repeated("--knockout", "knockout"),
        screen=repeated("--screen", "screen"),
        knockin=repeated("--knockin", "knockin"),
        syntax=repeated("--syntax", "syntax"),
        environments=environment_options,
    shell:
        "python -m bioattn interactions --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --hits {params.hits:q} --candidates {input.candidates:q}"
        " {params.coattention:q} {params.knockout:q}"
        " {params.screen:q} {params.knockin:q} {params.syntax:q} {params.environments:q} --fold 0 --out {params.out:q} > {log:q} 2>&1"
