"""A session's lineage read from its log, and made again from it."""
