"""Experiments whose answers are known. No other rule asks for them: `snakemake principles`."""


rule principle:
    """Run one experiment. What its verdicts are is judged once all are on the page."""
    output:
        verdicts=principle_result("{experiment}", "verdicts.tsv"),
        table=principle_result("{experiment}", "table.tsv"),
        about=principle_result("{experiment}", "experiment.json"),
        figure=report(
            principle_result("{experiment}", "figure.svg"),
            caption="../report/principles.rst",
            category="Principles",
            labels={"experiment": "{experiment}"},
        ),
    log:
        principle_result("logs", "{experiment}.log"),
    benchmark:
        principle_result("benchmarks", "{experiment}.tsv")
    wildcard_constraints:
        experiment="[a-z_]+",
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=120,
    params:
        out=subpath(output.verdicts, parent=True),
        size=CONFIG.principles.size,
        seeds=CONFIG.principles.n_seeds,
    shell:
        "python -m bioattn principle {wildcards.experiment} --size {params.size} --seeds {params.seeds}"
        " --no-judge --out {params.out:q} > {log:q} 2>&1"


rule principles_report:
    """Write all verdicts as one table and one page."""
    input:
        verdicts=expand(principle_result("{experiment}", "verdicts.tsv"), experiment=EXPERIMENTS),
    output:
        page=report(
            principle_result("report.html"),
            caption="../report/principles.rst",
            category="Principles",
            labels={"table": "report"},
        ),
        verdicts=principle_result("verdicts.tsv"),
    log:
        principle_result("logs", "report.log"),
    benchmark:
        principle_result("benchmarks", "report.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        out=subpath(output.page, parent=True),
        experiments=repeated("--experiment", "verdicts", folder=True),
    shell:
        "python -m bioattn principles {params.experiments:q} --out {params.out:q} > {log:q} 2>&1"


rule principles_judged:
    """Stop the run if a claim does not hold; the log says which."""
    input:
        principle_result("verdicts.tsv"),
    output:
        touch(principle_result("judged.done")),
    log:
        principle_result("logs", "judged.log"),
    benchmark:
        principle_result("benchmarks", "judged.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
    shell:
        "python -m bioattn judge {input:q} > {log:q} 2>&1"
