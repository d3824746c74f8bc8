"""Metrics, traces, logs and probes, put around what they watch."""
