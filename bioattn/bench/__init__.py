"""Benchmark with known truth: what verdicts, scores and published ways make of simulated pairs of motifs."""
