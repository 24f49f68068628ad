"""Figures: one xarray object in, one plotly Figure out.

They work in Jupyter and export HTML; PNG and SVG with the `export` extra.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
