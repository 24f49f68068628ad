"""PixArt-alpha, whose transformer receives the picture's size, and PixArt-Sigma, whose transformer does not."""

from __future__ import annotations

import pytest
from test_sana import TestSana as _Sana


class TestPixArt(_Sana):
    """Gates as in SANA; conditioning also enters outside of any module."""

    name = kind = "pixart"
    published = {
        "pixart": ({"cross": 28}, 1152, ("attn", "mlp"), (0.6, 0.62)),
        "pixart-sigma": ({"cross": 28}, 1152, ("attn", "mlp"), (0.6, 0.62)),
    }
    gates_follow_size = True
    call = {"use_resolution_binning": False, "clean_caption": False}


@pytest.mark.long
class TestSigma(TestPixArt):
    name = "sigma"
    gates_follow_size = False
    sizes = {"sigma": True}
