"""Pair representations: triangle updates, outer products, and the trunk that joins them."""
