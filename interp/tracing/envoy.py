"""The nnsight envoy of a transformer. Only this package uses nnsight."""

from __future__ import annotations

from nnsight import NNsight


class Transformer(NNsight):  # type: ignore[misc]
    """An envoy that does not move inputs: offloaded weights may be on another device, or on none yet."""

    device = property(lambda self: None)
