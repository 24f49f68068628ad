"""Code and objects around a pipeline are part of a run: hooks with values, patched classes, schedulers, backends.

Each situation sets something up, which is the first plan's; then changes what it computes, which is another run.
"""

# ruff: noqa: F401, F811  (fixtures of the other file)
from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from messages import refused
from test_identity import PROMPTS, folder, model, plan_of
from torch import nn

import interp
from interp.base.errors import PlanError
from interp.base.plan import Record
from interp.base.same_plan import check_same
from interp.base.site_recorder import SiteRecorder
from interp.models import tiny

pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")
Again = Callable[[], Any]
FACTOR = 1.0


def feed_forward(pipe: Any) -> Any:
    return pipe.transformer.transformer_blocks[1].ff


class Steering:
    def __init__(self) -> None:
        self.value = torch.zeros(32)

    def __call__(self, module: Any, arguments: Any, output: Any) -> Any:
        return output + self.value

    def method(self, module: Any, arguments: Any, output: Any) -> Any:
        return output + self.value


def an_object(pipe: Any, patch: Any) -> Again:
    steering = Steering()
    feed_forward(pipe).register_forward_hook(steering)
    return lambda: setattr(steering, "value", torch.ones(32))


def a_bound_method(pipe: Any, patch: Any) -> Again:
    steering = Steering()
    feed_forward(pipe).register_forward_hook(steering.method)
    return lambda: setattr(steering, "value", torch.ones(32))


class Processor:
    def __init__(self, usual: Any) -> None:
        self.usual, self.strength = usual, 1.0

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.usual(*args, **named)


def an_own_processor(pipe: Any, patch: Any) -> Again:
    own = Processor(pipe.transformer.transformer_blocks[0].attn.processor)
    pipe.transformer.transformer_blocks[0].attn.set_processor(own)
    return lambda: setattr(own, "strength", 2.0)


def scaled(module: Any, arguments: Any, output: Any) -> Any:
    return output * FACTOR


def a_global_constant(pipe: Any, patch: Any) -> Again:
    feed_forward(pipe).register_forward_hook(scaled)
    return lambda: patch.setattr(sys.modules[__name__], "FACTOR", 3.0)


def helper(value: Any) -> Any:
    return value


def helped(module: Any, arguments: Any, output: Any) -> Any:
    return helper(output)


def a_global_function(pipe: Any, patch: Any) -> Again:
    feed_forward(pipe).register_forward_hook(helped)
    return lambda: patch.setattr(sys.modules[__name__], "helper", lambda value: 2 * value)


def a_class_forward(pipe: Any, patch: Any) -> Again:
    from diffusers.models.attention import FeedForward

    usual = FeedForward.forward
    return lambda: patch.setattr(FeedForward, "forward", functools.wraps(usual)(lambda self, *args: 3 * usual(self, *args)))


def a_processors_class(pipe: Any, patch: Any) -> Again:
    kind = type(pipe.transformer.transformer_blocks[0].attn.processor)
    usual = kind.__call__
    return lambda: patch.setattr(kind, "__call__", lambda self, *args, **named: usual(self, *args, **named))


def the_attention_function(pipe: Any, patch: Any) -> Again:
    usual = torch.nn.functional.scaled_dot_product_attention
    own = lambda *args, **named: usual(*args, **named)  # noqa: E731
    return lambda: patch.setattr(torch.nn.functional, "scaled_dot_product_attention", own)


def a_scheduler_of_the_same_name(pipe: Any, patch: Any) -> Again:
    usual = type(pipe.scheduler)
    other = type(usual.__name__, (usual,), {"step": lambda self, *args, **named: usual.step(self, *args, **named)})
    return lambda: patch.setattr(pipe.scheduler, "__class__", other)


def a_hook_of_every_module(pipe: Any, patch: Any) -> Again:
    hooks = torch.nn.modules.module._global_forward_hooks
    return lambda: patch.setitem(hooks, 12345, scaled)


def a_module_in_a_partial(pipe: Any, patch: Any) -> Again:
    probe = nn.Linear(32, 32)

    def probed(module: Any, arguments: Any, output: Any, probe: Any = None) -> Any:
        return output + probe(output)

    feed_forward(pipe).register_forward_hook(functools.partial(probed, probe=probe))
    return lambda: probe.weight.data.mul_(5)


def an_ia3_adapter(pipe: Any, patch: Any) -> Again:
    import peft

    config = peft.IA3Config(target_modules=["to_k"], feedforward_modules=[], init_ia3_weights=False)
    peft.inject_adapter_in_model(config, pipe.transformer, "a")
    layers = [module for module in pipe.transformer.modules() if isinstance(module, peft.tuners.ia3.IA3Layer)]
    return lambda: [layer.enable_adapters(False) for layer in layers]


def the_image_processor(pipe: Any, patch: Any) -> Again:
    return lambda: pipe.image_processor.register_to_config(do_normalize=False)


def a_normalizer(pipe: Any, patch: Any) -> Again:
    from tokenizers import normalizers

    return lambda: setattr(pipe.tokenizer.backend_tokenizer, "normalizer", normalizers.Lowercase())


def the_attention_backend(pipe: Any, patch: Any) -> Again:
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    return lambda: patch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName._NATIVE_MATH)


SITUATIONS = (
    an_object,
    a_bound_method,
    an_own_processor,
    a_global_constant,
    a_global_function,
    a_class_forward,
    a_processors_class,
    the_attention_function,
    a_scheduler_of_the_same_name,
    a_hook_of_every_module,
    a_module_in_a_partial,
    an_ia3_adapter,
    the_image_processor,
    a_normalizer,
    the_attention_backend,
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=[one.__name__ for one in SITUATIONS])
def test_changed_code_is_another_run(situation: Any, model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    change = situation(model.pipe, monkeypatch)
    before = plan_of(model)
    check_same(plan_of(model), before, "run.zarr")
    change()
    with pytest.raises(PlanError, match="holds another run: its (state|scheduler)"):
        check_same(plan_of(model), before, "run.zarr")


@pytest.mark.parametrize(
    ("scheduler", "name", "value"), [("", "sigma_max", 0.6), ("UniPCMultistepScheduler", "disable_corrector", [0])]
)
def test_what_a_scheduler_uses_beyond_its_config(scheduler: str, name: str, value: Any, model: interp.Model) -> None:
    import diffusers

    if scheduler:
        model.pipe.scheduler = getattr(diffusers, scheduler)(prediction_type="flow_prediction", use_flow_sigmas=True)
    before = plan_of(model)
    interp.generate(model, PROMPTS[:1], steps=2)
    check_same(plan_of(model), before, "run.zarr")
    setattr(model.pipe.scheduler, name, value)
    with pytest.raises(PlanError, match="its scheduler"):
        check_same(plan_of(model), before, "run.zarr")


def test_the_other_model_of_autoguidance(model: interp.Model, folder: Path) -> None:
    from interp.guidance import AutoGuidance

    other = interp.load(folder)
    guided = AutoGuidance(other, 2.0)
    before = plan_of(model, guidance=guided)
    check_same(plan_of(model, guidance=guided), before, "run.zarr")
    one = before["guidance"][0]
    older = {key: one[key] for key in ("method", "model", "scale")} | {"weights": one["sampled"]}
    check_same(plan_of(model, guidance=guided), {**before, "guidance": [older]}, "a store of an earlier version")
    feed_forward(other.pipe).register_forward_hook(scaled)
    with pytest.raises(PlanError, match="its guidance"):
        check_same(plan_of(model, guidance=guided), before, "run.zarr")


def test_a_replaced_forward_of_an_offloaded_module_is_refused(model: interp.Model) -> None:
    """nnsight calls the class's forward of a module that accelerate hooks."""
    import accelerate

    layer = model.pipe.transformer.transformer_blocks[1].norm1.linear
    accelerate.cpu_offload(model.pipe.transformer, execution_device="cpu")
    usual = layer.forward
    layer.forward = lambda value: 2 * usual(value)
    with refused(interp.ModelError, "model", "transformer_blocks.1.norm1.linear", "hook"):
        interp.generate(model, PROMPTS[:1], steps=1)


def test_weights_that_a_callback_changes(model: interp.Model, tmp_path: Path) -> None:
    def change(progress: Any) -> None:
        if progress.done == 1:
            model.pipe.transformer.proj_out.weight.data.mul_(3)

    with refused(interp.TraceError, "model", "weights", "run.zarr", "delete"):
        interp.trace(model, PROMPTS, out=tmp_path / "run.zarr", steps=1, on_progress=change)


def nothing(pipe: Any) -> None:
    pipe.transformer.enable_gradient_checkpointing()
    pipe.transformer.disable_gradient_checkpointing()


def offloaded_and_back(pipe: Any) -> None:
    import accelerate

    accelerate.hooks.add_hook_to_module(pipe.transformer, accelerate.hooks.CpuOffload(execution_device="cpu"))
    pipe.remove_all_hooks()


def offloaded(pipe: Any) -> None:
    import accelerate

    accelerate.cpu_offload(pipe.transformer, execution_device="cpu")


def sliced(pipe: Any) -> None:
    pipe.vae.use_slicing = True


def its_own_forward(pipe: Any) -> None:
    pipe.transformer.forward = MethodType(type(pipe.transformer).forward, pipe.transformer)


@pytest.mark.parametrize("change", [nothing, offloaded_and_back, offloaded, sliced, its_own_forward])
@pytest.mark.parametrize("identity", ["full", "sampled"])
def test_what_computes_alike_is_the_same_run(change: Any, identity: str, folder: Path) -> None:
    model = interp.load(folder, identity=identity)
    before = plan_of(model)
    change(model.pipe)
    check_same(plan_of(model), before, "run.zarr")


def test_a_live_envoy_is_the_same_run(model: interp.Model) -> None:
    before = plan_of(model)
    assert model.nn is not None
    check_same(plan_of(model), before, "run.zarr")


ELSEWHERE = """
import json, sys, interp
from interp.base.plan import Record
from interp.base.site_recorder import SiteRecorder
from interp.models import tiny
from interp.tracing.prepare import prepare
def some(site, step, value):
    return value.sum(dim=-1) if site.kind in {"hidden", "alpha", "beta"} else value.sum(dim=-1)
record = Record(stats=False, gates=False, recorders=(SiteRecorder("some", "block.0/image/hidden", some, {"token": 4}),))
found = {name: interp.load(f"{sys.argv[1]}/{name}").identify() for name in sys.argv[2:]}
plan = prepare(interp.load(f"{sys.argv[1]}/sd3"), ["a"], steps=1, record=record).plan.to_json()
print(json.dumps([found, plan], default=str))
"""


@pytest.mark.processes
def test_another_process_finds_the_same(tmp_path: Path) -> None:
    """Every family, under two seeds of Python's hashes; a recorder with a set of constants."""
    for name in tiny.FAMILIES:
        tiny.build(name, tmp_path / name)
    found = [
        subprocess.run(
            [sys.executable, "-c", ELSEWHERE, str(tmp_path), *tiny.FAMILIES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    ]
    assert found[0] == found[1]


def test_a_recorder_uses_what_it_uses(model: interp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(stats=False, gates=False, recorders=(SiteRecorder("some", "block.0/image/hidden", some, {"token": 4}),))
    before = plan_of(model, record=record)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    with pytest.raises(PlanError, match=r"state\.recorders"):
        check_same(plan_of(model, record=record), before, "run.zarr")


def some(site: Any, step: int, value: Any) -> Any:
    return FACTOR * value.sum(dim=-1)


def test_a_value_in_a_module_of_ones_own(model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_settings.py").write_text("STRENGTH = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_settings")
    monkeypatch.setitem(globals(), "own_settings", own)
    feed_forward(model.pipe).register_forward_hook(strengthened)
    before = plan_of(model)
    own.STRENGTH = 2.0
    with pytest.raises(PlanError, match=r"its state\.transformer"):
        check_same(plan_of(model), before, "run.zarr")


def strengthened(module: Any, arguments: Any, output: Any) -> Any:
    return output * own_settings.STRENGTH  # type: ignore[name-defined]  # noqa: F821


OWN_LIBRARY = """
import logging, threading, enum
import torch
log, lock, generator = logging.getLogger(__name__), threading.Lock(), torch.Generator()
class Mode(enum.Enum):
    ON = 1
def deep(n, value):
    log.debug("deep")
    return value if not n else deeper(n - 1, value)
def deeper(n, value):
    with lock:
        return deep(n, value)
class Probe:
    def __init__(self):
        self.mode, self.again = Mode.ON, self
    def __call__(self, module, arguments, output):
        return deep(3, output) if self.mode is Mode.ON else generator
"""


def test_a_library_of_ones_own_can_be_resumed(model: interp.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loggers, locks, recursion and objects that hold themselves are no reason to refuse; another copy of its code is."""
    (tmp_path / "own_library.py").write_text(OWN_LIBRARY)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_library")
    feed_forward(model.pipe).register_forward_hook(own.Probe())
    before = plan_of(model)
    assert "unverifiable" not in before["state"]
    check_same(plan_of(model), before, "run.zarr")
    monkeypatch.setattr(own, "deeper", lambda n, value: value)
    with pytest.raises(PlanError, match=r"its state\.transformer"):
        check_same(plan_of(model), before, "run.zarr")
