"""Tracing: the only package that imports nnsight. Traces an unmodified pipeline and records its states."""
