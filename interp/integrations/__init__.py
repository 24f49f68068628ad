"""Adapters for other libraries' interfaces."""
