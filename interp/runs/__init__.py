"""Runs: a prepared trace, row by row, through batches and workers into a store."""
