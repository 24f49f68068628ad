"""A model in, a table or a store out: what an analysis of a finished run cannot answer."""
