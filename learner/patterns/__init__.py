"""Patterns: pure statistics and decisions on arrays and rows, and the pipeline that joins them to the store."""
