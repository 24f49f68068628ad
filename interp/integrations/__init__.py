"""Adapters for other people's interfaces."""
