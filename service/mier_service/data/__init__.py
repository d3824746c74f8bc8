"""The data folder: immutable files, checkpoints, backups, retention."""
