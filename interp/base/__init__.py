"""Errors, sites, prompts, plans, options, statistics: what every other package is built on. It imports no torch."""
