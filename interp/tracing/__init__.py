"""Tracing: the only place that imports nnsight. One traced run of an unmodified pipeline, and what watches it."""
