"""Load a pipeline from a folder or the hub; every failure is a one-line error."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp.base.errors import ModelError, first_line
from interp.models.catalog import CATALOG, nearest
from interp.models.families import PIPELINES
from interp.models.quiet import quiet

VARIANT = re.compile(r"[^.]+\.([a-z0-9_]+?)(?:-\d+-of-\d+)?\.safetensors")


def fetch(
    name: str, source: str, *, revision: str | None, local_files_only: bool, dtype: Any, variant: str | None = None
) -> Any:
    """The diffusers pipeline at `source` (folder or hub id), its class checked before any weights are read."""
    place: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    with quiet(), load_errors(name, source):
        from diffusers import DiffusionPipeline

        config = DiffusionPipeline.load_config(source, **place)
        check_pipeline_class(name, str(config.get("_class_name")))
        if Path(source).is_dir():
            check_parts(name, Path(source), config)
        with no_invented_weights(name):
            pipe = DiffusionPipeline.from_pretrained(source, use_safetensors=True, torch_dtype=dtype, variant=variant, **place)
    spec = PIPELINES[type(pipe).__name__]
    left_out = [part for part in spec.left_out if pipe.components.get(part) is not None]
    if left_out:
        pipe.register_modules(**dict.fromkeys(left_out))
    spec.after_loading(pipe)
    for part, module in pipe.components.items():
        if hasattr(module, "parameters") and any(parameter.is_meta for parameter in module.parameters()):
            raise ModelError(f"model {name!r}: weights of its {part} are incomplete; fetch or save the folder again")
    return pipe


def check_pipeline_class(name: str, pipeline_class: str) -> None:
    """Reject a pipeline that no family describes."""
    command = "interp models --support"
    if pipeline_class not in PIPELINES:
        raise ModelError(
            f"model {name!r} is a {pipeline_class}, which cannot be traced; "
            f"{nearest(pipeline_class, PIPELINES, command)} "
            "(interp.register_anatomy adds one)"
        )


OF_BYTES = ("ByT5Tokenizer",)  # tokenizers without a vocabulary


def check_parts(name: str, folder: Path, config: dict[str, Any]) -> None:
    """Check that every part in model_index.json has its folder, and every tokenizer its vocabulary."""
    for part, value in config.items():
        named = isinstance(value, list | tuple) and len(value) == 2 and value[0] is not None
        if named and not (folder / part).is_dir():
            raise ModelError(f"model {name!r}: {folder} has no {part} folder, which its model_index.json names; save it again")
        vocabularies = [file for pattern in ("*vocab*", "tokenizer.json", "*.model") for file in (folder / part).glob(pattern)]
        needs = named and part.startswith("tokenizer") and value[1] not in OF_BYTES
        if needs and not vocabularies:
            raise ModelError(f"model {name!r}: {folder / part} holds no vocabulary (tokenizer.json); save it again")


@contextlib.contextmanager
def no_invented_weights(name: str) -> Iterator[None]:
    """Raise an error if transformers replaced weights missing from the files by random ones."""
    invented: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "MISSING" in text or "newly initialized" in text:
            invented.extend(line.split("|")[0].strip() for line in text.splitlines() if "| MISSING" in line)
            invented.append("")
        return False  # shows none

    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.addFilter(keep)
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.removeFilter(keep)
        logger.setLevel(level)
    if invented:
        raise ModelError(
            f"model {name!r}: its files lack weights ({invented[0] or 'of a text encoder'}), which would be random; "
            "fetch or save the folder again"
        )


@contextlib.contextmanager
def load_errors(name: str, source: str) -> Iterator[None]:
    """Convert errors of diffusers, transformers and the hub to one `ModelError` each."""
    from huggingface_hub import errors as hub

    try:
        yield
    except ModelError:
        raise
    except hub.GatedRepoError:
        raise ModelError(
            f"model {name!r} is gated: accept its licence at https://huggingface.co/{source}, then run `hf auth login`"
        ) from None
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as error:
        raise ModelError(
            f"model {name!r} is not a folder, hub id or revision that can be found ({first_line(error)}); "
            f"{nearest(name, CATALOG)}"
        ) from None
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError) as error:
        raise ModelError(_not_here(name, error)) from None
    except OSError as error:
        raise ModelError(_unreadable(name, source, error)) from None
    except Exception as error:  # a folder's content can make these libraries raise anything
        raise ModelError(f"model {name!r} cannot be loaded from {source}: {first_line(error)}") from error


def _unreadable(name: str, source: str, error: OSError) -> str:
    text = str(error)
    if "Unable to load weights" in text:
        return f"model {name!r} has damaged weights: {first_line(error)} (fetch or save them again)"
    variants = sorted({found[1] for path in Path(source).glob("*/*") if (found := VARIANT.fullmatch(path.name))})
    if variants and ("safetensors" in text or ".bin" in text or "variant" in text):
        return (
            f"model {name!r} has weights of the variant {', '.join(variants)} only; give --variant {variants[0]} "
            f"(interp.load(..., variant={variants[0]!r}))"
        )
    if "safetensors" in text or ".bin" in text:
        return (
            f"model {name!r} must have safetensors weights, all of them: {first_line(error)} "
            "(pickled .bin weights are never loaded; convert them with diffusers' save_pretrained)"
        )
    if not Path(source).is_dir():
        return _not_here(name, error)
    return f"model {name!r} cannot be loaded from {source}: {first_line(error)}"


def _not_here(name: str, error: Exception) -> str:
    return (
        f"model {name!r} is not on this machine and cannot be fetched ({first_line(error)}); check the network or the name, "
        f"download it on a connected machine (`hf download`), or give a local folder; {nearest(name, CATALOG)}"
    )
