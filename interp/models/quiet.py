"""Silence warnings and progress bars of diffusers and transformers that are about their own defaults."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

LIBRARIES = ("diffusers", "transformers", "huggingface_hub", "accelerate")
IMPORTED = ("torchao", "bitsandbytes", "torch.utils._pytree")  # by diffusers: each warns about missing kernels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show only errors of the model libraries inside."""
    before = {name: logging.getLogger(name).level for name in (*LIBRARIES, *IMPORTED)}
    _only_errors(IMPORTED)
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    _only_errors(LIBRARIES)  # which set their own levels when they are imported
    bars = [(library, library.is_progress_bar_enabled()) for library in (diffusers_logging, transformers_logging)]
    try:
        for library, _ in bars:
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "In CPU autocast", UserWarning)  # Mochi's transformer asks for float32 in it
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        for library, enabled in bars:
            if enabled:
                library.enable_progress_bar()


def _only_errors(names: tuple[str, ...]) -> None:
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
