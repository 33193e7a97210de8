"""Attention parts: plain numbers and tensors in, tensors out; no configuration, no files."""
