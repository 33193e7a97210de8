"""Settings, simulation, ingestion, split."""


localrules:
    settings,
    resolved_config,


rule settings:
    """Write what one step reads. The digest in the name makes a changed setting rerun what depends on it, no more."""
    output:
        results("settings", "{step}-{digest}.json"),
    log:
        results("logs", "settings", "{step}-{digest}.log"),
    benchmark:
        results("benchmarks", "settings", "{step}-{digest}.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=100,
        runtime=1,
    params:
        text=settings_text,
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


rule resolved_config:
    """Write the run's whole configuration beside its results."""
    output:
        report(
            results("config.yaml"),
            category="Run",
            labels={"run": "{run}", "table": "configuration"},
        ),
    log:
        results("logs", "resolved_config.log"),
    benchmark:
        results("benchmarks", "resolved_config.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=100,
        runtime=1,
    params:
        text=config_text,
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


rule simulate:
    """Draw promoters with known truth and write them as a user would bring theirs."""
    input:
        settings=settings_of("simulate"),
        meme=motif_file_of,
    output:
        samples=results("input", "samples.tsv"),
        sequences=results("input", "sequences.fa"),
        labels=results("input", "labels.tsv"),
        pairs=results("input", "truth_pairs.tsv"),
        motifs=results("input", "truth_motifs.tsv"),
        truth=results("input", "truth.json"),
        causes=results("input", "truth_sequences.tsv"),
        sites=results("input", "truth_sites.parquet"),
    log:
        results("logs", "simulate.log"),
    benchmark:
        results("benchmarks", "simulate.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        out=subpath(output.samples, parent=True),
    shell:
        "python -m bioattn simulate --settings {input.settings:q} --out {params.out:q} > {log:q} 2>&1"


rule ingest:
    """Read and check sequences and labels."""
    input:
        settings=settings_of("ingest"),
        samples=samples_of,
        files=files_of,
    output:
        sequences=results("data", "sequences.parquet"),
        rejected=results("data", "rejected.tsv"),
        summary=results("data", "summary.json"),
        balance=report(
            results("data", "balance.tsv"),
            category="Data",
            labels={"run": "{run}", "table": "what tells the classes apart without order"},
        ),
        composition=results("data", "composition.tsv"),
    log:
        results("logs", "ingest.log"),
    benchmark:
        results("benchmarks", "ingest.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        out=subpath(output.sequences, parent=True),
    shell:
        "python -m bioattn ingest --settings {input.settings:q} --samples {input.samples:q}"
        " --out {params.out:q} > {log:q} 2>&1"


rule split:
    """Hold out groups of related sequences, and find the nearest training sequence of each held-out one."""
    input:
        settings=settings_of("split"),
        sequences=results("data", "sequences.parquet"),
    output:
        split=results("split", "split.parquet"),
        leakage=report(
            results("split", "leakage.tsv"),
            category="Data",
            labels={"run": "{run}", "table": "leakage between subsets"},
        ),
        neighbours=results("split", "neighbours.parquet"),
        audit=report(
            results("split", "audit.tsv"),
            category="Data",
            labels={"run": "{run}", "table": "nearest training sequences"},
        ),
    log:
        results("logs", "split.log"),
    benchmark:
        results("benchmarks", "split.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        out=subpath(output.split, parent=True),
    shell:
        "python -m bioattn split --settings {input.settings:q} --sequences {input.sequences:q}"
        " --out {params.out:q} > {log:q} 2>&1"
