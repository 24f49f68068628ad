"""Figures: one xarray object in, one plotly Figure out.

They work in Jupyter and export HTML; PNG and SVG with the `export` extra.
"""

from interp.figures import causes, drawn, evaluation, experiments, guidance, massive, people, places, style

__all__ = ["causes", "drawn", "evaluation", "experiments", "guidance", "massive", "people", "places", "style"]
