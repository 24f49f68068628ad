"""From a store to answers, with no model loaded: xarray in, xarray out, no torch.

Every result says by which criterion and parameters it was made, what it is averaged over, its interval (bootstrap over prompt
texts), and has a control or a null beside it.
"""
