"""Mechanistic interpretability for Diffusion Transformers.

    model = interp.load("demo")
    run = interp.trace(model, ["a large red circle on a black background"], out="cache/first.zarr")
    run.stats["max_abs"], run.gates["alpha"], run.images["image"]

Importing this package imports neither torch nor diffusers: names are resolved when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
