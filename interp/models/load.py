"""From a name, a folder or a hub id to a stock diffusers pipeline and its anatomy."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from pathlib import Path
from typing import Any

import torch

from interp.errors import InputError, ModelError
from interp.models.anatomy import Anatomy, describe
from interp.models.catalog import CATALOG, Defaults, folder_defaults
from interp.models.families import ANATOMIES, PIPELINES
from interp.models.families.pipeline import PipelineSpec
from interp.models.quiet import quiet

OFFLOADS = ("none", "model", "sequential", "group")
DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A pipeline that can be traced, and what is known of it."""

    name: str
    pipe: Any
    anatomy: Anatomy
    spec: PipelineSpec
    defaults: Defaults
    weights: str
    dtype: str
    device: str
    offload: str


def load_pipeline(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "auto",
    revision: str | None = None,
    offload: str = "none",
    local_files_only: bool = False,
) -> Loaded:
    """Load a model by alias, folder or hub id. Weights must be safetensors; no code from the hub is run."""
    if offload not in OFFLOADS:
        raise InputError(f"offload must be one of {', '.join(OFFLOADS)}; got {offload!r}")
    place = _device(device)
    entry = CATALOG.get(str(name))
    if entry is not None:
        _check_pipeline_class(entry.name, entry.pipeline_class)
    source = str(entry.folder or entry.source) if entry else str(name)
    folder = _folder(source)
    own = folder_defaults(folder) if folder else None
    defaults = own or (entry.defaults if entry else Defaults())
    chosen = _dtype(dtype, place, small=own is not None)
    with quiet():
        pipe = _from_pretrained(
            str(name),
            str(folder or source),
            torch_dtype=chosen,
            revision=revision or (entry.revision if entry else None),
            local_files_only=local_files_only or folder is not None,
        )
    pipe.set_progress_bar_config(disable=True)
    weights = _fingerprint(folder) if folder else _revision(pipe, revision)
    loaded = adopt(pipe, str(name), defaults=defaults, weights=weights, device=place, offload=offload)
    place_pipeline(pipe, place, offload)
    return loaded


def adopt(
    pipe: Any, name: str, *, defaults: Defaults | None = None, weights: str, device: str, offload: str = "none"
) -> Loaded:
    """A pipeline that is already built, with its anatomy; an unsupported class is an error."""
    _check_pipeline_class(name, type(pipe).__name__)
    transformer = check_traceable(pipe.transformer)
    return Loaded(
        name=name,
        pipe=pipe,
        anatomy=describe(transformer, ANATOMIES),
        spec=PIPELINES[type(pipe).__name__],
        defaults=defaults or Defaults(),
        weights=weights,
        dtype=str(transformer.dtype).removeprefix("torch."),
        device=device,
        offload=offload,
    )


def check_traceable(transformer: Any) -> Any:
    """Refuse a compiled or cached transformer: hooks inside it would silently not fire, or see stale states."""
    compiled = [type(transformer).__name__ == "OptimizedModule"]
    compiled += [getattr(module, "_compiled_call_impl", None) is not None for module in transformer.modules()]
    if any(compiled):
        raise ModelError(
            "model: a compiled transformer cannot be traced (states inside it are not visible); "
            "load it again without torch.compile"
        )
    if getattr(transformer, "is_cache_enabled", False):
        raise ModelError(
            "model: a transformer with a cache (FirstBlockCache, ...) cannot be traced: skipped blocks would repeat old "
            "states; call model.pipe.transformer.disable_cache()"
        )
    return transformer


def place_pipeline(pipe: Any, device: str, offload: str) -> None:
    """Move the pipeline to its device, or arrange its offloading."""
    if offload == "sequential" and device == "cpu":
        raise InputError(
            "offload='sequential' does not work on device 'cpu': accelerate needs an accelerator; use group or none"
        )
    try:
        if offload == "none":
            pipe.to(device)
        elif offload == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif offload == "sequential":
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            pipe.enable_group_offload(onload_device=torch.device(device), offload_type="leaf_level")
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise InputError(f"offload={offload!r} does not work on device {device!r}: {_first_line(error)}") from error


def _from_pretrained(name: str, source: str, **arguments: Any) -> Any:
    from diffusers import DiffusionPipeline
    from huggingface_hub import errors as hub

    try:
        return DiffusionPipeline.from_pretrained(source, use_safetensors=True, **arguments)
    except hub.GatedRepoError:
        raise ModelError(
            f"model {name!r} is gated: accept its licence at https://huggingface.co/{source}, then run `hf auth login`"
        ) from None
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as error:
        known = ", ".join(CATALOG)
        raise ModelError(
            f"model {name!r} is no folder, hub id or revision that can be found ({_first_line(error)}); known names: {known}"
        ) from None
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError) as error:
        raise ModelError(_not_here(name, error)) from None
    except OSError as error:
        text = str(error)
        if "Unable to load weights" in text:
            raise ModelError(f"model {name!r} has damaged weights: {_first_line(error)} (fetch or save them again)") from None
        if "safetensors" in text or ".bin" in text:
            raise ModelError(
                f"model {name!r} must have safetensors weights, all of them: {_first_line(error)} "
                "(pickled .bin weights are never loaded; convert them with diffusers' save_pretrained)"
            ) from None
        if not Path(source).is_dir():
            raise ModelError(_not_here(name, error)) from None
        raise ModelError(f"model {name!r} cannot be loaded from {source}: {_first_line(error)}") from None
    except (ValueError, TypeError, AttributeError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"model {name!r} cannot be loaded from {source}: {_first_line(error)}") from error


def _not_here(name: str, error: Exception) -> str:
    known = ", ".join(CATALOG)
    return (
        f"model {name!r} is not on this machine and cannot be fetched ({_first_line(error)}); check the network or the name, "
        f"download it once where there is one (`hf download`), or give a local folder; known names: {known}"
    )


def _folder(source: str) -> Path | None:
    """The local folder that `source` names, checked to be a diffusers pipeline; `None` for a hub id."""
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelError(
                f"model folder {path} is not a diffusers pipeline: it has no model_index.json "
                "(give the folder that pipe.save_pretrained wrote)"
            )
        return path
    if path.exists():
        raise ModelError(f"model {source!r} is a file; give a diffusers pipeline folder (single files are not supported)")
    looks_like_hub_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    if looks_like_hub_id:
        return None
    raise ModelError(
        f"model {source!r} is no known name and no folder; known names: {', '.join(CATALOG)}; "
        "or give a hub id (owner/name) or the path of a diffusers folder"
    )


def _check_pipeline_class(name: str, pipeline_class: str) -> None:
    if pipeline_class not in PIPELINES:
        raise ModelError(
            f"model {name!r} is a {pipeline_class}, which cannot be traced yet; supported: {', '.join(sorted(PIPELINES))} "
            "(interp.register_anatomy adds one)"
        )


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {device!r} cannot be used here: {_first_line(error)} (auto, cpu and cuda:N are usual)"
        ) from None
    return device


def _dtype(dtype: str | torch.dtype | None, device: str, *, small: bool) -> torch.dtype:
    """The chosen dtype; by default float32 on a CPU and for tiny and demo folders, else bfloat16."""
    if dtype is None:
        return torch.float32 if small or device == "cpu" else torch.bfloat16
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}; got {name!r}")
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def _fingerprint(folder: Path) -> str:
    """Identity of a folder's weights: configs, and each safetensors file's size and first megabyte (header included)."""
    digest = hashlib.sha256()
    for path in sorted([*folder.rglob("*.safetensors"), *folder.rglob("*config.json")]):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**20))
    return f"sha256:{digest.hexdigest()[:16]}"


def _revision(pipe: Any, asked: str | None) -> str:
    """The hub commit a pipeline came from, read from the cache's folder name; else the revision asked for."""
    parts = Path(str(getattr(pipe, "name_or_path", ""))).parts
    found = [after for before, after in itertools.pairwise(parts) if before == "snapshots"]
    return found[0] if found else (asked or "main")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
