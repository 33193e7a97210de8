"""The protein track: from sequences and alignments to contacts, and what is known of them."""
