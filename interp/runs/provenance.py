"""Provenance of a run: model class and revision, dtype, device, batch size, threads, versions."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from typing import Any

import torch

from interp.tracing.model import Model

PACKAGES = ("torch", "diffusers", "transformers", "nnsight", "zarr", "xarray", "numpy")
CHANGEABLE = ("batch_size", "device", "threads", "offload", "versions")  # a change in these warns and does not raise


def provenance(model: Model, batch_size: int) -> dict[str, Any]:
    """The provenance as plain JSON values."""
    loaded = model.loaded
    return {
        "model_class": loaded.anatomy.model_class,
        "pipeline_class": loaded.spec.pipeline_class,
        "gates_set_by": list(loaded.anatomy.conditioning.players) if loaded.anatomy.conditioning else None,
        "revision": loaded.revision,
        "device": loaded.device,
        "offload": loaded.offload,
        "quantize": (model.origin or {}).get("quantize"),
        "quantization": loaded.quantization,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of this package and of the packages its numbers depend on."""
    return {name: importlib.metadata.version(name) for name in ("interp", *PACKAGES)}
