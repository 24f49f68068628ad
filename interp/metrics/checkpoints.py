"""Weights of the papers' metrics: which files, where to find them, and whether they are the published ones.

A metric's weights come from the given place (a folder, a file, a hub id), else from the caches of Hugging Face and torch.hub,
else from the network, unless HF_HUB_OFFLINE is set. Of a file, only tensors are read: safetensors, or torch.load with
weights_only=True.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.base.errors import InputError, first_line

TABLE = Path(__file__).parent / "weights.toml"
TENSORS = (".safetensors", ".pt", ".pth", ".bin")
BESIDE = ("config.json", "vocab.*", "merges.txt", "tokenizer*.json", "special_tokens_map.json")
"""Files of a transformers folder, except the weights."""
VOCABULARY = ("tokenizer.json", "vocab.json")


@dataclasses.dataclass(frozen=True)
class CheckpointSource:
    """The published weights of one network."""

    what: str
    of: str
    """Hub id, or the address of the file."""
    file: str = ""
    """Name of the file; empty for a folder that transformers wrote."""
    digest: str = ""
    """sha256 of the weights, or its first digits, as published; empty if unknown."""

    @property
    def on_hub(self) -> bool:
        """Whether `of` is a hub id."""
        return "://" not in self.of


SOURCES: Mapping[str, CheckpointSource] = {
    name: CheckpointSource(**fields) for name, fields in tomllib.loads(TABLE.read_text(encoding="utf-8")).items()
}


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights found: a folder that transformers reads, or a file of tensors."""

    name: str
    path: Path
    digest: str
    """sha256 of every file that affects the numbers."""
    published: bool
    """Whether they are the published ones: by sha256, or fetched by the published hub id."""
    source: str
    """Hub id with its revision, or the name of the folder or file."""

    @property
    def label(self) -> str:
        """For results: source, digest, and whether published."""
        known = "published" if self.published else "not known to be published"
        return f"{self.source}, sha256 {self.digest[:12]}, {known}"


def find(name: str, given: str | Path | None = None) -> Weights:
    """The weights of `name` (a key of SOURCES): `given`, a folder, file or hub id, else as in the module's docstring."""
    if name not in SOURCES:
        raise InputError(f"weights of {name!r} are not known; known: {', '.join(SOURCES)}")
    source = SOURCES[name]
    if given is None:
        place, origin = (_from_hub(name, source.of, source.file) if source.on_hub else _from_torch_hub(name, source)), source.of
    elif Path(given).exists():
        place, origin = Path(given), Path(given).name
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", str(given)) and source.on_hub:
        place, origin = _from_hub(name, str(given), source.file), str(given)
    else:
        raise InputError(f"weights {name}={given}: no such folder or file{' or hub id' if source.on_hub else ''}; {how(name)}")
    path = _weights_in(name, source, place)
    files = sorted(_files(path)) if path.is_dir() else [path]
    hashes = {file: _sha256(file) for file in files}
    tensors = [file for file in files if file.suffix in TENSORS]
    known = bool(source.digest) and len(tensors) == 1 and hashes[tensors[0]].startswith(source.digest)
    from_hub = source.on_hub and origin == source.of and (given is None or not Path(given).exists())
    if from_hub:
        revision = next((part for part in reversed(place.parts) if re.fullmatch(r"[0-9a-f]{40}", part)), "")
        origin = f"{origin}@{revision[:12]}" if revision else origin
    digest = hashes[path] if path in hashes else _together(hashes)
    return Weights(name, path, digest, known or from_hub, origin if source.on_hub else path.name)


def tokenizer_of(weights: Weights, given: str | Path | None = None) -> Weights:
    """CLIP's tokenizer for a checkpoint that has none: in the folder `given`, next to the checkpoint, or on the hub."""
    folders = [Path(given)] if given is not None and Path(given).is_dir() else []
    for folder in [*folders, weights.path.parent]:
        if any((folder / file).exists() for file in VOCABULARY):
            return _tokenizer(folder)
    import huggingface_hub as hub

    with contextlib.suppress(Exception):  # the hub client, its cache and the network raise their own errors
        folder = Path(hub.snapshot_download(SOURCES["clip"].of, allow_patterns=list(BESIDE)))
        if any((folder / file).exists() for file in VOCABULARY):
            return _tokenizer(folder)
    raise InputError(
        f"weights {weights.name}: {weights.path.name} has no tokenizer of its own; put CLIP's next to it (tokenizer.json, or "
        "vocab.json and merges.txt), or give CLIP's folder too: --weights clip=FOLDER"
    )


def _tokenizer(folder: Path) -> Weights:
    hashes = {file: _sha256(file) for pattern in BESIDE[1:] for file in folder.glob(pattern)}
    return Weights("clip", folder, _together(hashes), False, folder.name)


def _weights_in(name: str, source: CheckpointSource, place: Path) -> Path:
    """The folder for transformers, or the file."""
    if not source.file:
        if not place.is_dir() or not (place / "config.json").exists():
            raise InputError(f"weights {name}={place} must be a folder with a config.json; {how(name)}")
        return place
    if place.is_file():
        return place
    inside = [file for file in sorted(place.iterdir()) if file.suffix in TENSORS]
    named = [file for file in inside if file.name == source.file] or inside
    if len(named) != 1:
        raise InputError(
            f"weights {name}={place} must hold {source.file}; it holds {len(inside)} files of tensors; {how(name)}"
        )
    return named[0]


def _files(folder: Path) -> list[Path]:
    """Files of a transformers folder that affect the numbers: the tensors it reads, the configuration, the tokenizer."""
    tensors = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    return tensors + [file for pattern in BESIDE for file in folder.glob(pattern)]


def _from_hub(name: str, hub_id: str, file: str) -> Path:
    import huggingface_hub as hub

    try:
        if file:
            return Path(hub.hf_hub_download(hub_id, file))
        folder = Path(hub.snapshot_download(hub_id, allow_patterns=[*BESIDE, "model.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            folder = Path(hub.snapshot_download(hub_id, allow_patterns=[*BESIDE, "pytorch_model.bin"]))
        return folder
    except Exception as error:  # the hub client, its cache and the network raise their own errors
        raise _absent(name, first_line(error)) from None


def _from_torch_hub(name: str, source: CheckpointSource) -> Path:
    """The file in torch.hub's folder (TORCH_HOME), downloaded if missing and checked by its digest."""
    import torch
    from huggingface_hub.constants import is_offline_mode

    path = Path(torch.hub.get_dir()) / "checkpoints" / source.file
    if path.exists():
        return path
    if is_offline_mode():
        raise _absent(name, f"HF_HUB_OFFLINE is set, and {source.file} is not in torch.hub's folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source.of, str(path), hash_prefix=source.digest, progress=False)
    except (OSError, RuntimeError) as error:
        raise _absent(name, first_line(error)) from None
    return path


def _absent(name: str, reason: str) -> InputError:
    return InputError(
        f"weights {name}: {SOURCES[name].what} is not on this machine and cannot be fetched ({reason}); {how(name)}"
    )


def how(name: str) -> str:
    """What to type next."""
    source = SOURCES[name]
    if not source.on_hub:
        return f"get {source.file} from {source.of} and give it: --weights {name}=FILE"
    named = f" {source.file}" if source.file else ""
    where = "FOLDER/" + source.file if source.file else "FOLDER"
    return f"get it (`hf download {source.of}{named} --local-dir FOLDER`) and give it: --weights {name}={where}"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _together(hashes: Mapping[Path, str]) -> str:
    return hashlib.sha256("\n".join(f"{file.name} {value}" for file, value in sorted(hashes.items())).encode()).hexdigest()


def tensors_of(weights: Weights) -> dict[str, Any]:
    """Every tensor of a file by name, on the CPU; `state_dict` is unwrapped, the prefix `module.` dropped."""
    import torch

    path = weights.path
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file's content can make the unpickler raise anything
        raise InputError(
            f"weights {weights.name}={path} cannot be read as tensors ({first_line(error)}); "
            f"code in pickles is never run; {how(weights.name)}"
        ) from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError(f"weights {weights.name}={path} must hold a dictionary of tensors; {how(weights.name)}")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def fill(module: Any, tensors: Mapping[str, Any], weights: Weights) -> None:
    """Load tensors into a torch module: every parameter must be present in its shape; others are ignored."""
    own = {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, value in own.items():
        if name not in tensors:
            raise InputError(f"weights {weights.name}={weights.path} lack {name}; {how(weights.name)}")
        if tensors[name].shape != value.shape:
            got, rule = tuple(tensors[name].shape), tuple(value.shape)
            raise InputError(f"weights {weights.name}={weights.path}: {name} must be {rule}; got {got}; {how(weights.name)}")
    module.load_state_dict({name: tensors[name] for name in own}, strict=False)
