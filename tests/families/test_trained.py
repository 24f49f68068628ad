"""The trained demo model that ships with the package."""

from __future__ import annotations

from pathlib import Path

from test_sd3 import TestSD3 as _SD3

import interp


class TestDemo(_SD3):
    name = "demo"
    prompts = ("a red circle", "a blue star on a white background", "a green ring", "a cross")

    def load(self, folder: Path) -> interp.Model:
        return interp.load("demo")
