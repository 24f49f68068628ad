"""Keep diffusers and transformers from writing warnings and progress bars that are about their defaults, not the user's run."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

LIBRARIES = ("diffusers", "transformers", "huggingface_hub", "accelerate")
IMPORTED = (
    "torchao",
    "bitsandbytes",
    "torch.utils._pytree",
)  # by diffusers, if they are there: each tells of kernels it misses


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Only errors of the model libraries come through inside."""
    loggers = [logging.getLogger(name) for name in (*LIBRARIES, *IMPORTED)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    bars = [(library, library.is_progress_bar_enabled()) for library in (diffusers_logging, transformers_logging)]
    try:
        for library, _ in bars:
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for library, enabled in bars:
            if enabled:
                library.enable_progress_bar()
