"""What a trained model reads: predictions, attribution, motifs of heads, co-attention. Correlation, not causation."""
