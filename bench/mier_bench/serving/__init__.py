"""Servers as processes beside the bench, and the least that a client of theirs can be."""
