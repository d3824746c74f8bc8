"""Versioned changes of the store's tables (Alembic). A migration that was released is never edited."""
