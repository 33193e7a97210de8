"""The protein track: families, many chains, networks over them, one page. `snakemake protein`."""


localrules:
    protein_settings,


rule protein_settings:
    """Write what one step reads; the digest in the name changes exactly when a setting that it reads does."""
    output:
        protein_result("settings", "{step}-{digest}.json"),
    log:
        protein_result("logs", "settings", "{step}-{digest}.log"),
    benchmark:
        protein_result("benchmarks", "settings", "{step}-{digest}.tsv")
    wildcard_constraints:
        step="[A-Za-z0-9_.-]+",
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=100,
        runtime=1,
    params:
        text=protein_settings_text,
    shell:
        "printf '%s\\n' {params.text:q} > {output:q} 2> {log:q}"


rule family:
    """Predict contacts of a family by couplings and by factored attention, and on two nulls.

    A family that cannot be used loses no other: its tables are empty, and the page says why.
    """
    input:
        settings=protein_settings_of("family"),
        files=files_of_family,
    output:
        precision=report(
            protein_result("families", "{family}", "precision.tsv"),
            caption="../report/protein.rst",
            category="Protein",
            labels={"family": "{family}", "table": "precision"},
        ),
        pairs=protein_result("families", "{family}", "pairs.parquet"),
        heads=protein_result("families", "{family}", "heads.tsv"),
        losses=protein_result("families", "{family}", "losses.parquet"),
        patterns=protein_result("families", "{family}", "patterns.npz"),
        summary=protein_result("families", "{family}", "summary.json"),
    log:
        protein_result("logs", "family_{family}.log"),
    benchmark:
        protein_result("benchmarks", "family_{family}.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        gpu=0,
        mem_mb=memory(6000),
        runtime=240,
    params:
        out=subpath(output.precision, parent=True),
    shell:
        "python -m bioattn family --settings {input.settings:q} --name {wildcards.family:q} --reject"
        " --out {params.out:q} > {log:q} 2>&1"


rule chains:
    """Read chains, hold out groups of related ones, and list what was rejected and what leaks."""
    input:
        settings=protein_settings_of("chains"),
        files=files_of_chains,
    output:
        chains=protein_result("chains", "chains.parquet"),
        rejected=protein_result("chains", "rejected.tsv"),
        related=protein_result("chains", "related.tsv"),
        leakage=protein_result("chains", "leakage.tsv"),
    log:
        protein_result("logs", "chains.log"),
    benchmark:
        protein_result("benchmarks", "chains.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        out=subpath(output.chains, parent=True),
    shell:
        "python -m bioattn chains --settings {input.settings:q} --out {params.out:q} > {log:q} 2>&1"


rule trunk:
    """Train one network over many chains.

    Checkpoints lie in {variant}.work, which is no output: a job that is killed goes on from there.
    """
    input:
        settings=protein_settings_of("trunk"),
        chains=protein_result("chains", "chains.parquet"),
    output:
        weights=protein_result("trunks", "{variant}", "weights.safetensors"),
        model=protein_result("trunks", "{variant}", "model.json"),
        history=protein_result("trunks", "{variant}", "history.tsv"),
        record=protein_result("trunks", "{variant}", "run_record.json"),
    log:
        protein_result("logs", "trunk_{variant}.log"),
    benchmark:
        protein_result("benchmarks", "trunk_{variant}.tsv")
    wildcard_constraints:
        variant="[a-z_]+",
    conda:
        TORCH_ENV
    threads: PROTEIN.trunk.threads
    resources:
        gpu=GPUS,
        mem_mb=memory(6000),
        runtime=1440,
    params:
        out=subpath(output.weights, parent=True),
        chains=subpath(input.chains, parent=True),
    shell:
        "python -m bioattn trunk --settings {input.settings:q} --chains {params.chains:q}"
        " --variant {wildcards.variant} --out {params.out:q} > {log:q} 2>&1"


rule distances:
    """Score networks on held-out chains, look inside the trunk, and cut out third residues."""
    input:
        settings=protein_settings_of("distances"),
        chains=protein_result("chains", "chains.parquet"),
        networks=expand(protein_result("trunks", "{variant}", "weights.safetensors"), variant=PROTEIN.trunk.variants),
    output:
        scores=report(
            protein_result("distances", "scores.tsv"),
            caption="../report/protein.rst",
            category="Protein",
            labels={"table": "scores of networks"},
        ),
        proteins=protein_result("distances", "proteins.tsv"),
        calibration=protein_result("distances", "calibration.tsv"),
        examples=protein_result("distances", "examples.npz"),
        summary=protein_result("distances", "summary.json"),
    log:
        protein_result("logs", "distances.log"),
    benchmark:
        protein_result("benchmarks", "distances.tsv")
    conda:
        TORCH_ENV
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=480,
    params:
        out=subpath(output.scores, parent=True),
        chains=subpath(input.chains, parent=True),
        networks=repeated("--network", "networks", folder=True),
    shell:
        "python -m bioattn distances --settings {input.settings:q} --chains {params.chains:q} {params.networks:q}"
        " --out {params.out:q} > {log:q} 2>&1"


rule protein_report:
    """Write the page of the protein track."""
    input:
        settings=protein_settings_of("protein"),
        families=expand(protein_result("families", "{family}", "precision.tsv"), family=PROTEIN.families),
        chains=if_chains(protein_result("chains", "leakage.tsv")),
        scores=if_chains(protein_result("distances", "scores.tsv")),
    output:
        page=report(
            protein_result("report.html"),
            caption="../report/protein.rst",
            category="Protein",
            labels={"table": "report"},
        ),
        rejected=protein_result("rejected.tsv"),
    log:
        protein_result("logs", "report.log"),
    benchmark:
        protein_result("benchmarks", "report.tsv")
    conda:
        LIGHT_ENV
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        results=subpath(output.page, parent=True),
    shell:
        "python -m bioattn protein --settings {input.settings:q} --results {params.results:q} --out {output.page:q}"
        " --rejected {output.rejected:q} > {log:q} 2>&1"
