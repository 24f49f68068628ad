"""From a name, a folder or a hub id to a stock diffusers pipeline and its anatomy."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from interp.base.errors import InputError, InterpWarning, ModelError, first_line
from interp.models import quantize as quantization
from interp.models.anatomy import Anatomy, describe
from interp.models.catalog import CATALOG, Defaults, entry_of, folder_defaults, nearest, source_of
from interp.models.families import ANATOMIES, PIPELINES
from interp.models.families.pipeline import PipelineSpec
from interp.models.fetch import check_pipeline_class, fetch
from interp.models.identity import revision_of
from interp.models.references import with_reference
from interp.models.state import computes_alike

OFFLOADS = ("none", "model", "sequential", "group")
DTYPES = ("float32", "bfloat16", "float16")
HARMLESS_HOOKS = ("group_offloading", "lazy_prefetch_group_offloading", "layerwise_casting", "peft_autocast_disable")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A traceable pipeline and its metadata."""

    name: str
    pipe: Any
    anatomy: Anatomy
    spec: PipelineSpec
    defaults: Defaults
    revision: str | None
    """Commit of a hub model."""
    dtype: str
    device: str
    offload: str
    quantization: Mapping[str, Any] | None = None
    """The quantised layers, and whether gates are exact."""


def load_pipeline(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "auto",
    revision: str | None = None,
    offload: str = "none",
    local_files_only: bool = False,
    quantize: str | None = None,
    variant: str | None = None,
) -> Loaded:
    """Load a model by alias, folder or hub id. Weights must be safetensors; no code from the hub is run."""
    if offload not in OFFLOADS:
        raise InputError(f"offload must be one of {', '.join(OFFLOADS)}; got {offload!r}")
    place = usable_device(device)
    entry, source = entry_of(name), source_of(name)
    if entry is not None and Path(name).is_dir():
        warnings.warn(
            f"model {name!r} is the catalog's model, not the folder of that name here; write ./{name} for the folder",
            InterpWarning,
            stacklevel=3,
        )
    folder = _folder(source)
    own = folder_defaults(folder) if folder else None
    asked = revision or (entry.revision if entry else None)
    pipe = fetch(
        str(name),
        str(folder or source),
        revision=asked,
        local_files_only=local_files_only or folder is not None,
        dtype=_dtype(dtype, place, small=own is not None),
        variant=variant,
    )
    pipe.set_progress_bar_config(disable=True)
    loaded = adopt(
        pipe,
        str(name),
        defaults=own or (entry.defaults if entry else Defaults()),
        revision=revision_of(str(folder or source), asked),
        device=place,
        offload=offload,
        quantize=quantize,
    )
    place_pipeline(pipe, place, offload)
    return loaded


def adopt(
    pipe: Any,
    name: str,
    *,
    defaults: Defaults | None = None,
    revision: str | None = None,
    device: str,
    offload: str = "none",
    quantize: str | None = None,
) -> Loaded:
    """Wrap an existing pipeline with its anatomy; an unsupported class is an error."""
    check_pipeline_class(name, type(pipe).__name__)
    spec = PIPELINES[type(pipe).__name__]
    transformer = check_traceable(pipe.transformer)
    settings, given = spec.settings(pipe), dict((defaults or Defaults()).settings)
    for setting, value in given.items():
        if setting not in settings or not isinstance(value, type(settings[setting])):
            known = ", ".join(settings) or "none"
            raise ModelError(f"model {name!r}: its interp.json gives {setting}={value!r}; settings of this model: {known}")
    anatomy, dtype = anatomy_of(pipe), str(transformer.dtype).removeprefix("torch.")
    if quantize is not None:
        quantization.quantize(transformer, anatomy, quantize)
    changed = quantization.quantization(transformer, anatomy)
    if changed is not None and changed["gates"] != quantization.EXACT:
        warnings.warn(f"model {name!r} is quantised: its gates are {changed['gates']}", InterpWarning, stacklevel=3)
    return Loaded(
        name=name,
        pipe=pipe,
        anatomy=anatomy,
        spec=spec,
        defaults=defaults or Defaults(),
        revision=revision,
        dtype=dtype,
        device=device,
        offload=offload,
        quantization=changed,
    )


def anatomy_of(pipe: Any) -> Anatomy:
    """The anatomy of a pipeline's transformer as the pipeline calls it: with a reference's tokens where it gives them."""
    return as_called_by(type(pipe).__name__, describe(pipe.transformer, ANATOMIES))


def as_called_by(pipeline_class: str, anatomy: Anatomy) -> Anatomy:
    """An anatomy as a class of pipelines calls it."""
    spec = PIPELINES.get(pipeline_class)
    return anatomy if spec is None or spec.reference is None else with_reference(anatomy, spec.reference)


def check_traceable(transformer: Any) -> Any:
    """Reject a compiled or cached transformer: states inside it would be invisible, stale or missing. With accelerate's hooks,
    also one with a replaced forward, which nnsight would pass over.
    """
    if not isinstance(transformer, torch.nn.Module):
        raise ModelError(f"model: the pipeline's transformer must be a module; got {type(transformer).__name__}")
    for path, module in transformer.named_modules():
        forward = module.__dict__.get("forward")
        if "_hf_hook" in module.__dict__ and forward is not None and not computes_alike(module, forward):
            raise ModelError(
                f"model: the forward of {path or 'the transformer'} is replaced while accelerate offloads it, and a "
                "trace would leave the replacement out; use a forward hook in its place, or load without offloading"
            )
        compiled = getattr(module, "_compiled_call_impl", None) is not None or type(module).__name__ == "OptimizedModule"
        if compiled or hasattr(forward, "_torchdynamo_orig_callable"):
            raise ModelError(
                "model: a compiled transformer cannot be traced (states inside it are not visible); "
                "load it again without torch.compile"
            )
        hooks = getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
        changing = [hook for hook in hooks if hook not in HARMLESS_HOOKS]
        if changing:
            raise ModelError(
                f"model: a transformer with {changing[0]} cannot be traced (it skips work or repeats old states); "
                "load it again without caching"
            )
    return transformer


def place_pipeline(pipe: Any, device: str, offload: str) -> None:
    """Move the pipeline to its device, or enable its offloading."""
    if offload == "sequential" and device == "cpu":
        raise InputError("offload='sequential' does not work on device 'cpu': it needs an accelerator; use group or none")
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
        raise InputError(f"offload={offload!r} does not work on device {device!r}: {first_line(error)}") from error


def _folder(source: str) -> Path | None:
    """The local folder that `source` names, checked to be a diffusers pipeline; `None` for a hub id."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            if not (path / "model_index.json").is_file():
                raise ModelError(
                    f"model folder {path} is not a diffusers pipeline: it has no model_index.json "
                    "(give the folder that pipe.save_pretrained wrote)"
                )
            return path
        if path.exists():
            raise ModelError(f"model {source!r} is a file; give a diffusers pipeline folder (single files are not supported)")
    except OSError as error:
        raise ModelError(f"model {source[:80]!r} cannot be read: {error.strerror}") from None
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return None
    raise ModelError(
        f"model {source!r} is not a known name or folder; {nearest(source, CATALOG)}; "
        "or give a hub id (owner/name) or the path of a diffusers folder"
    )


def usable_device(device: str) -> str:
    """The device, `auto` resolved; an error if it cannot hold a tensor."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise InputError(f"device {device!r} cannot be used here: {reason} (auto, cpu and cuda:N are usual)") from None
    return device


def default_dtype(name: str | Path, device: str) -> str:
    """The default dtype of a model on a device."""
    folder = _folder(source_of(name))
    small = folder is not None and folder_defaults(folder) is not None
    return str(_dtype(None, device, small=small)).removeprefix("torch.")


def _dtype(dtype: str | torch.dtype | None, device: str, *, small: bool) -> torch.dtype:
    """The chosen dtype; by default float32 on a CPU and for tiny and demo folders, else bfloat16."""
    if dtype is None:
        return torch.float32 if small or device == "cpu" else torch.bfloat16
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}; got {name!r}")
    chosen: torch.dtype = getattr(torch, name)
    return chosen
