"""Tokenizers compared on a run's data. No other rule asks for it: name the table, results/RUN/bakeoff/bakeoff.tsv."""


rule bakeoff:
    """Train the run's model with every tokenizer of bakeoff.tokenizers, and measure it.

    Numbers of finished models lie in bakeoff.work, which is no output: a job that is
    killed goes on from there.
    """
    input:
        settings=settings_of("bakeoff"),
        sequences=results("data", "sequences.parquet"),
        split=results("split", "split.parquet"),
        meme=motif_file_of,
    output:
        table=report(
            results("bakeoff", "bakeoff.tsv"),
            caption="../report/bakeoff.rst",
            category="Evaluation",
            labels={"run": "{run}", "table": "tokenizers"},
        ),
        seeds=results("bakeoff", "seeds.tsv"),
    log:
        results("logs", "bakeoff.log"),
    benchmark:
        results("benchmarks", "bakeoff.tsv")
    conda:
        TORCH_ENV
    threads: training_threads
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=1440,
    params:
        out=subpath(output.table, parent=True),
    shell:
        "python -m bioattn bakeoff --settings {input.settings:q} --sequences {input.sequences:q}"
        " --split {input.split:q} --fold 0 --out {params.out:q} > {log:q} 2>&1"
