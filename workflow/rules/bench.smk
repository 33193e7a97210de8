"""The benchmark with known truth. No other rule asks for it: `snakemake bench`."""


rule bench_unit:
    """Simulate one structural causal model, train on it, and score verdicts and rivals against the truth.

    Trained models lie beside the output, in seed{seed}.work, so a job that is killed goes on from there.
    """
    output:
        pairs=unit_of_bench("pairs.parquet"),
        scores=unit_of_bench("scores.parquet"),
        costs=unit_of_bench("costs.tsv"),
        summary=unit_of_bench("summary.json"),
    log:
        bench_result("logs", "{suite}_{regime}_{training}_seed{seed}.log"),
    benchmark:
        bench_result("benchmarks", "{suite}_{regime}_{training}_seed{seed}.tsv")
    wildcard_constraints:
        suite="[A-Z]",
        regime=r"[a-z]+[0-9.]*",
        training="[a-z]+",
    conda:
        TORCH_ENV
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=240,
    params:
        out=subpath(output.pairs, parent=True),
        replicates=CONFIG.bench.replicates,
        size=[
            word
            for name, value in (("--sequences", CONFIG.bench.sequences), ("--epochs", CONFIG.bench.epochs))
            if value is not None
            for word in (name, str(value))
        ],
    shell:
        "python -m bioattn bench --suite {wildcards.suite} --regime {wildcards.regime} --training {wildcards.training}"
        " --seed {wildcards.seed} --replicates {params.replicates} {params.size} --out {params.out:q} > {log:q} 2>&1"


rule scoreboard:
    """Score verdicts and rivals over all units."""
    input:
        units=units_of_bench,
    output:
        page=report(
            bench_result("scoreboard", "report.html"),
            caption="../report/bench.rst",
            category="Benchmark",
            labels={"table": "report"},
        ),
        ranking=bench_result("scoreboard", "ranking.tsv"),
    log:
        bench_result("logs", "scoreboard.log"),
    benchmark:
        bench_result("benchmarks", "scoreboard.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        out=subpath(output.page, parent=True),
        units=repeated("--unit", "units", folder=True),
    shell:
        "python -m bioattn scoreboard {params.units:q} --out {params.out:q} > {log:q} 2>&1"
