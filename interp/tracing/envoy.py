"""The nnsight envoy of a transformer. This file and `trace.py` are all that touches nnsight."""

from __future__ import annotations

from nnsight import NNsight


class Transformer(NNsight):  # type: ignore[misc]
    """An envoy that leaves inputs on the device they are on: offloaded weights may be on another, or on none yet."""

    device = property(lambda self: None)
