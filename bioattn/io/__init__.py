"""Files in and out: FASTA, samples, motifs, tables, weights. The only place that knows file formats."""
