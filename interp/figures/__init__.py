"""Figures: one xarray object in, one plotly Figure out.

They work in Jupyter and export HTML; PNG and SVG with the `export` extra.
"""

from interp.figures import causes, experiments, massive, places, style

__all__ = ["causes", "experiments", "massive", "places", "style"]
