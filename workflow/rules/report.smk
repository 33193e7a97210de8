"""One page for each run."""


rule report:
    """Write a self-contained HTML file from the run's tables and figures."""
    input:
        settings=settings_of("report"),
        config=results("config.yaml"),
        summary=results("data", "summary.json"),
        leakage=results("split", "leakage.tsv"),
        audit=results("split", "audit.tsv"),
        neighbours=results("split", "neighbours.parquet"),
        metrics=results("evaluation", "metrics.tsv"),
        predictions=results("evaluation", "predictions.parquet"),
        curves=results("evaluation", "curves.parquet"),
        pretrained=if_pretrained(results("pretrain", "run_record.json")),
        history=for_models(results("models", "fold{fold}", "seed{seed}", "history.tsv")),
        heads=if_attention(results("heads", "seed{seed}", "heads.tsv")),
        attribution=if_attention(results("attribution", "seed{seed}", "faithfulness.tsv")),
        stability=if_explained(results("heads", "stability.tsv")),
        interactions=if_pairs(results("interactions", "table", "interactions.tsv")),
        truth=if_simulated(results("input", "truth.json")),
    output:
        report(
            results("report.html"),
            caption="../report/report.rst",
            category="Run",
            labels={"run": "{run}", "table": "report"},
        ),
    log:
        results("logs", "report.log"),
    benchmark:
        results("benchmarks", "report.tsv")
    group:
        "post"
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        results=subpath(output[0], parent=True),
    shell:
        "python -m bioattn report --settings {input.settings:q} --results {params.results:q} --out {output:q}"
        " > {log:q} 2>&1"
