"""The HTTP transport and what else speaks over its port."""
