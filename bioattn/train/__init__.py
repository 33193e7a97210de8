"""Training, held-out scores and baselines."""
