# Sourced before each job, as `source PREFIX/bin/activate ENVIRONMENT`.
export CONDA_PREFIX="$1" CONDA_DEFAULT_ENV="$1" PATH="$1/bin:$PATH"
