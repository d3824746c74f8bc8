"""Contexts that adapt, and fine-tuning in processes of its own."""
