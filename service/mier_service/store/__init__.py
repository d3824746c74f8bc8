"""Rows of everything that a crash must not lose, in SQLite or PostgreSQL."""
