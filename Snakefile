# The workflow lives in workflow/; this file lets `snakemake --cores 2` work from the root of a clone.
include: "workflow/Snakefile"


# Without a named default, a root file that only includes would silently have "Nothing to be done".
workflow.default_target = "all"
