"""Sequences as codes: alphabet, motifs, edits, splits, simulation. No files, no models."""
