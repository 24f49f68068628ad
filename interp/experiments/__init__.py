"""Experiments: a model in, a store out. `kinds/` defines them, one file each; the other modules are what they share."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
