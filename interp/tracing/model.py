"""The `Model` that traces use: a diffusers pipeline with its anatomy."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from interp.base.errors import InputError, InterpWarning
from interp.models import picture_files
from interp.models.catalog import entry_of
from interp.models.identity import fingerprint, sampled_fingerprint
from interp.models.load import Loaded, adopt, anatomy_of, check_traceable, load_pipeline
from interp.models.scheduling import scheduler_state
from interp.models.state import state_of
from interp.tracing.cache import Cache, NamesFilter, run_with_cache
from interp.tracing.envoy import View, has_modules, module_references
from interp.tracing.prepare import prepare

IDENTITIES = ("full", "sampled")


class Model:
    """A stock diffusers pipeline with its anatomy.

    model.pipe       the diffusers pipeline, unmodified: `model.pipe(prompt)` works as usual
    model.nn         its transformer as an nnsight envoy, for your own traces
    model.anatomy    blocks, streams, gates and sites

    One trace at a time: `model.lock` is held while tracing.
    """

    def __init__(self, loaded: Loaded, origin: Mapping[str, Any] | None = None, identity: str = "full") -> None:
        self.loaded = loaded
        self.name = loaded.name
        """The model's name as given by the user."""
        self.pipe = loaded.pipe
        """The diffusers pipeline."""
        self.anatomy = loaded.anatomy
        """Blocks, streams, gates and sites of the transformer."""
        self.defaults = loaded.defaults
        """Default arguments of a run."""
        self.origin = origin
        """The arguments of `load` that load this model in another process; `None` for `wrap`."""
        self.lock = threading.RLock()
        self.identity = identity
        """How weights are identified: `full`, every value, or `sampled`."""
        self._warned_of: set[str] = set()
        self._identified: dict[str, Any] | None = None
        self._view: View | None = None
        self._described = module_references(self.pipe.transformer)

    @property
    def nn(self) -> Any:
        """The transformer as an nnsight envoy, made again if its modules have changed. It stays installed in the modules until
        `release`, or a trace by interp: take `model.nn` again after one.
        """
        if self._view is not None and not has_modules(self.pipe.transformer, self._view.modules):
            self.release()
        if self._view is None:
            self._view = View(self.pipe.transformer)
        return self._view.envoy

    def refresh(self) -> None:
        """Describe the pipeline as it is now: another transformer, dtype or device since it was loaded."""
        self.release()
        transformer = check_traceable(self.pipe.transformer)
        if not has_modules(transformer, self._described):
            self.anatomy, self._described = anatomy_of(self.pipe), module_references(transformer)
        self.loaded = dataclasses.replace(
            self.loaded,
            anatomy=self.anatomy,
            dtype=str(transformer.dtype).removeprefix("torch."),
            device=str(self.pipe._execution_device) if self.loaded.offload == "none" else self.loaded.device,
        )

    def weights(self) -> str:
        """The fingerprint of the weights as they are now."""
        return fingerprint(self.pipe, sampled=self.identity == "sampled")

    def identify(self) -> dict[str, Any]:
        """Fields of a plan that identify the model as it is now: weights, sampled, scheduler, state."""
        if self._identified:
            return self._identified
        found = {
            "weights": self.weights(),
            "sampled": sampled_fingerprint(self.pipe, offloaded=False),
            "scheduler": scheduler_state(self.pipe.scheduler),
            "state": state_of(self.pipe, self.loaded.spec.set_by_calls),
        }
        if self._identified is not None:
            self._identified = found
        return found

    @contextlib.contextmanager
    def identified_once(self) -> Iterator[None]:
        """Identify the model once for all runs that are prepared inside: nothing changes it in between."""
        before, self._identified = self._identified, self._identified or {}
        try:
            yield
        finally:
            self._identified = before

    def release(self) -> None:
        """Remove the envoy of `nn`: every module has its own forward again."""
        if self._view is not None:
            self._view.remove()
        self._view = None

    def run_with_cache(
        self, prompt: str | Sequence[str], names_filter: NamesFilter = None, **arguments: Any
    ) -> tuple[xr.DataArray, Cache]:
        """Run one prompt (or a few, as one batch) and keep the sites that match `names_filter`: (images, cache).

        The filter is a pattern of site names such as "block.5/*" or "*/alpha.*", several, or a function of the name; by
        default all hidden states. `arguments` are those of `interp.trace`: steps, seed, height, width, interventions, settings.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return run_with_cache(prepare(self, prompts, **arguments), names_filter)

    def sizes(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Height and width in pixels; unset ones take the defaults."""
        spec = self.loaded.spec
        default_height, default_width = spec.default_size(self.pipe)
        chosen = height or self.defaults.height or default_height, width or self.defaults.width or default_width
        if not spec.takes_size and chosen != (default_height, default_width):
            raise InputError(
                f"height and width must be {default_height} x {default_width} for {self.name}: it draws no other size"
            )
        return chosen

    def settings(self, given: dict[str, Any] | None = None) -> dict[str, Any]:
        """Further arguments of the pipeline; unset ones take the defaults. Pictures as a plan holds them."""
        spec, own = self.loaded.spec, self.loaded.spec.settings(self.pipe)
        found = {**own, **self.defaults.settings, **spec.checked(self.name, own, given or {})}
        return found | {name: picture_files.described(name, found[name]) for name in spec.pictures if found[name]}

    def warn_unknown_words(self, prompts: Sequence[str]) -> None:
        """Warn once of words in the prompts that a small model was not trained on."""
        if not self.defaults.vocabulary:
            return
        words = {word for prompt in prompts for word in re.findall(r"[^\W\d_]+", prompt.lower())}
        unknown = sorted(words - self.defaults.vocabulary - self._warned_of)
        if unknown:
            self._warned_of.update(unknown)
            shown = ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else "")
            warnings.warn(
                f"{self.name} was not trained on {len(unknown)} of these words ({shown}); its pictures of them are arbitrary",
                InterpWarning,
                stacklevel=3,
            )

    def warn_long_prompts(self, prompts: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Warn of prompts that a text encoder truncates."""
        cut: dict[str, int] = {}
        long: dict[str, None] = {}
        for name, setting in self.loaded.spec.tokenizers.items():
            tokenizer = getattr(self.pipe, name, None)
            if tokenizer is None:
                continue
            limit = settings[setting] if setting else tokenizer.model_max_length
            found = [text for text in prompts if len(tokenizer(text, truncation=False, verbose=False).input_ids) > limit]
            long.update(dict.fromkeys(found))
            cut.update({name: limit} if found else {})
        if cut:
            limits = ", ".join(f"{name} reads {limit} tokens" for name, limit in cut.items())
            warnings.warn(
                f"{len(long)} prompts are cut: {limits}. First: {next(iter(long))[:60]!r}",
                InterpWarning,
                stacklevel=3,
            )

    def another(self, name: str) -> Model:
        """Another model by name, such as the worse one of autoguidance."""
        return load(name)

    def _quantized(self) -> str:
        found = self.loaded.quantization
        return "" if found is None else f", {sum(found['layers'].values())} layers quantised ({', '.join(found['layers'])})"

    def __repr__(self) -> str:
        anatomy = self.anatomy
        streams, gates = ", ".join(anatomy.stream_names), ", ".join(anatomy.gates)
        return (
            f"<interp.Model {self.name!r}: {anatomy.model_class}, {len(anatomy.blocks)} blocks x {anatomy.channels} channels; "
            f"streams {streams}; gates {gates}; {self.loaded.dtype} on {self.loaded.device}{self._quantized()}>"
        )


def load(
    model: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "auto",
    revision: str | None = None,
    offload: str = "none",
    local_files_only: bool = False,
    quantize: str | None = None,
    variant: str | None = None,
    identity: str = "full",
) -> Model:
    """Load a model by alias (`interp models` lists them), diffusers folder or hub id.

    `dtype` is a torch dtype or its name; by default float32 on a CPU, else bfloat16. `device` is "auto", "cpu", "cuda:0", ...
    `offload` is "none", "model", "sequential" or "group". Weights must be safetensors.
    `quantize` is "int8", "float8" (torchao) or "nf4" (bitsandbytes), for the blocks' linear layers except the AdaLN
    projections: gates stay exact.
    `variant` names the files of weights, such as "fp16" for `*.fp16.safetensors`.
    `identity` "full" hashes every value of the weights for each run, "sampled" about 1,024 values of each tensor; a run's plan
    records which.
    """
    if identity not in IDENTITIES:
        raise InputError(f"identity must be one of {', '.join(IDENTITIES)}; got {identity!r}")
    kept = {"revision": revision, "local_files_only": local_files_only, "quantize": quantize, "variant": variant}
    loaded = load_pipeline(model, dtype=dtype, device=device, offload=offload, **kept)  # type: ignore[arg-type]
    again = str(Path(model).resolve()) if Path(model).is_dir() and entry_of(model) is None else str(model)
    return Model(loaded, {"name": again, "dtype": loaded.dtype, "identity": identity, **kept}, identity)


def as_model(model: Model | str | Path) -> Model:
    """The model itself, or the one of this name or folder."""
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | Path):
        hint = "a diffusers pipeline is wrapped first: interp.wrap(pipe)" if hasattr(model, "components") else "such as 'demo'"
        raise InputError(f"model must be an interp.Model, a name or a folder ({hint}); got {type(model).__name__}")
    return load(model)


def wrap(pipe: Any, name: str = "my pipeline") -> Model:
    """Wrap an existing diffusers pipeline as a model; `name` is stored with its runs."""
    if not hasattr(pipe, "components"):
        raise InputError(f"wrap needs a diffusers pipeline; got {type(pipe).__name__} (interp.load takes names and folders)")
    device = str(pipe._execution_device)
    return Model(adopt(pipe, name, device=device))
