"""Versioned changes of the store's tables (Alembic). What a released migration does is never changed.

PostgreSQL came with 0010: the migrations up to there make there what they make of an empty SQLite database.
"""
