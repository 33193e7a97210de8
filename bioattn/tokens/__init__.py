"""Sequences to tokens; every token knows the bases it covers."""
