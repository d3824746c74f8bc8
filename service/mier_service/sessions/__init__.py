"""Use cases of a session's life: created, filled, promoted, rolled back, moved, deleted."""
