"""What the store says is what was traced: a pipeline that its owner changed is another run, whatever was changed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from messages import refused
from torch import nn

import interp
from interp.base.errors import InterpWarning, PlanError
from interp.base.plan import Record
from interp.base.same_plan import check_same, check_verifiable
from interp.base.site_recorder import SiteRecorder
from interp.models import tiny
from interp.models.hashing import BLOCK, block_sums
from interp.models.identity import fingerprint
from interp.models.state import state_of
from interp.tracing.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore::interp.InterpWarning")
PROMPTS = ["a red cat", "two dog"]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build("sd3", tmp_path_factory.mktemp("identity") / "sd3", blocks=2)


@pytest.fixture
def model(folder: Path) -> interp.Model:
    return interp.load(folder)


def plan_of(model: interp.Model, **given: Any) -> dict[str, Any]:
    return prepare(model, PROMPTS, steps=2, **given).plan.to_json()


def tensor(pipe: Any, part: str, name: str) -> torch.Tensor:
    return getattr(pipe, part).state_dict()[name]


def element(part: str, name: str, place: tuple[int, ...] = (-1,)) -> Change:
    """One element of a tensor changed by one unit in the last place."""

    def change(pipe: Any) -> None:
        flat = tensor(pipe, part, name)
        flat[place] = torch.nextafter(flat[place], torch.tensor(torch.inf))

    return change


class OwnProcessor:
    """diffusers' own, by another name."""

    def __init__(self, usual: Any) -> None:
        self.usual = usual

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.usual(*args, **named)


def add_lora(pipe: Any) -> None:
    import peft

    pipe.transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "a")


def double(module: Any, arguments: Any, output: Any) -> Any:
    return output * 2


def lora_then(change: Change) -> Change:
    """A change of a pipeline that has an adapter already: compared with the pipeline that has it."""
    change.__dict__["first"] = add_lora
    return change


def set_attribute(path: str, name: str, value: Any) -> Change:
    def change(pipe: Any) -> None:
        target = pipe
        for part in path.split(".") if path else ():
            target = target[int(part)] if part.isdecimal() else getattr(target, part)
        setattr(target, name, value)

    return change


def swap_scheduler(pipe: Any) -> None:
    from diffusers import FlowMatchHeunDiscreteScheduler

    pipe.scheduler = FlowMatchHeunDiscreteScheduler.from_config(pipe.scheduler.config)


def patch_step(pipe: Any) -> None:
    usual = pipe.scheduler.step

    def step(*args: Any, **named: Any) -> Any:
        return usual(*args, **named)

    pipe.scheduler.step = step


def negate_two(pipe: Any) -> None:
    """The sign bits of two words: a plain sum modulo 2^64 would not see it."""
    weight = tensor(pipe, "transformer", "transformer_blocks.0.attn.to_q.weight")
    weight[0, 1] *= -1
    weight[0, 3] *= -1


def swap_rows(pipe: Any) -> None:
    weight = tensor(pipe, "transformer", "transformer_blocks.0.attn.to_q.weight")
    weight[[0, 1]] = weight[[1, 0]]


def numpy_write(pipe: Any) -> None:
    tensor(pipe, "vae", "encoder.layers.0.weight").numpy()[0, 0, 0, 0] += 1


def zero_column(pipe: Any) -> None:
    """A massive channel's input column, by `.data`: no version counter moves."""
    pipe.transformer.proj_out.weight.data[:, 5] = 0


def new_block(pipe: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        fresh = type(pipe.transformer.transformer_blocks[0])(dim=32, num_attention_heads=2, attention_head_dim=16)
    pipe.transformer.transformer_blocks[0] = fresh.eval()


def own_hook(pipe: Any) -> None:
    pipe.transformer.transformer_blocks[1].ff.register_forward_hook(double)


def own_pre_hook(pipe: Any) -> None:
    pipe.text_encoder.register_forward_pre_hook(lambda module, arguments: None)


def own_forward(pipe: Any) -> None:
    module = pipe.transformer.proj_out
    usual = module.forward
    module.forward = lambda value: 2 * usual(value)


def own_encoder(pipe: Any) -> None:
    usual = pipe.encode_prompt
    pipe.encode_prompt = lambda *args, **named: usual(*args, **named)


def add_token(pipe: Any) -> None:
    pipe.tokenizer.add_tokens(["zebra"])


CHANGES: dict[str, Change] = {
    "last weight of a block": element("transformer", "transformer_blocks.1.attn.to_q.weight", (-1, -1)),
    "a middle weight": element("transformer", "transformer_blocks.0.ff.net.0.proj.weight", (7, 13)),
    "a bias": element("transformer", "proj_out.bias"),
    "a buffer": element("transformer", "pos_embed.pos_embed", (0, 3, 2)),
    "a text encoder's weight": element("text_encoder", "text_model.embeddings.token_embedding.weight", (5, 3)),
    "the second text encoder's": element("text_encoder_2", "text_projection.weight", (1, 2)),
    "the T5's": element("text_encoder_3", "encoder.block.0.layer.0.SelfAttention.q.weight", (3, 3)),
    "the VAE's": element("vae", "decoder.layers.0.weight", (0, 1, 0, 1)),
    "two signs": negate_two,
    "two rows exchanged": swap_rows,
    "a write through numpy": numpy_write,
    "a column by .data": zero_column,
    "a block replaced": new_block,
    "the whole pipeline in bfloat16": lambda pipe: pipe.to(torch.bfloat16),
    "one encoder in bfloat16": lambda pipe: pipe.text_encoder.to(torch.bfloat16),
    "a LoRA": add_lora,
    "a LoRA's scale": lora_then(lambda pipe: pipe.transformer.set_adapters("a", 0.25)),
    "a LoRA disabled": lora_then(lambda pipe: pipe.transformer.disable_adapters()),
    "a LoRA fused": lora_then(lambda pipe: pipe.transformer.fuse_lora()),
    "a LoRA removed": lora_then(lambda pipe: pipe.transformer.delete_adapters("a")),
    "another scheduler": swap_scheduler,
    "the scheduler's shift": lambda pipe: pipe.scheduler.set_shift(9.0),
    "the scheduler's config": lambda pipe: pipe.scheduler.register_to_config(shift=4.0),
    "the scheduler's step": patch_step,
    "an attention processor": lambda pipe: pipe.transformer.set_attn_processor(
        OwnProcessor(pipe.transformer.transformer_blocks[0].attn.processor)
    ),
    "an attention's scale": set_attribute("transformer.transformer_blocks.1.attn", "scale", 0.5),
    "a norm's epsilon": set_attribute("transformer.transformer_blocks.0.norm1.norm", "eps", 0.1),
    "training mode": lambda pipe: pipe.transformer.train(),
    "a dropout": set_attribute("transformer.transformer_blocks.0.ff.net.1", "p", 0.3),
    "an activation": set_attribute("text_encoder.text_model.encoder.layers.0.mlp", "activation_fn", nn.ReLU()),
    "a forward hook": own_hook,
    "a forward pre-hook of the text encoder": own_pre_hook,
    "a module's forward": own_forward,
    "the pipeline's encode_prompt": own_encoder,
    "the transformer's config": lambda pipe: pipe.transformer.register_to_config(patch_size=1),
    "the VAE's scaling factor": lambda pipe: pipe.vae.register_to_config(scaling_factor=0.2),
    "the VAE's tiling": lambda pipe: pipe.vae.enable_tiling(),
    "a text encoder's attention": lambda pipe: pipe.text_encoder_3.set_attn_implementation("eager"),
    "a tokenizer's length": set_attribute("tokenizer", "model_max_length", 4),
    "a tokenizer's side": set_attribute("tokenizer", "padding_side", "left"),
    "a tokenizer's word": add_token,
    "the pipeline's token limit": set_attribute("", "tokenizer_max_length", 4),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_pipeline_is_another_run(name: str, model: interp.Model) -> None:
    change = CHANGES[name]
    getattr(change, "first", lambda pipe: None)(model.pipe)
    before = plan_of(model)
    with torch.no_grad():
        change(model.pipe)
    after = plan_of(model)
    with pytest.raises(PlanError, match="holds another run: its (weights|sampled|state|scheduler|dtype)"):
        check_same(after, before, "run.zarr")


@pytest.mark.parametrize("name", ["a column by .data", "the scheduler's shift", "a forward hook"])
def test_a_half_done_store_is_not_continued(name: str, model: interp.Model, tmp_path: Path) -> None:
    prepared = prepare(model, PROMPTS, steps=2)
    interp.runs.run.execute(prepared, tmp_path / "run.zarr", only=[0])
    with torch.no_grad():
        CHANGES[name](model.pipe)
    with refused(PlanError, "run.zarr", "its", "--out"):
        interp.trace(model, PROMPTS, out=tmp_path / "run.zarr", steps=2)
    with refused(interp.InputError, "model", "prepared", "again"):
        interp.runs.run.execute(prepared, tmp_path / "run.zarr")


@contextlib.contextmanager
def matmul_precision() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def without_fast_attention() -> Iterator[None]:
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(True)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "inside",
    [matmul_precision, without_fast_attention, deterministic, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["matmul precision", "attention", "deterministic", "autocast"],
)
def test_what_changes_arithmetic_is_in_the_plan(inside: Any, model: interp.Model) -> None:
    before = plan_of(model)
    with inside():
        after = plan_of(model)
    with pytest.raises(PlanError, match=r"its state\.arithmetic"):
        check_same(after, before, "run.zarr")
    check_same(plan_of(model), before, "run.zarr")


def recorder(function: Any) -> Record:
    return Record(stats=False, gates=False, recorders=(SiteRecorder("norm", "block.*/image/hidden", function, {"token": 4}),))


def test_recorders_of_one_name_are_told_apart(model: interp.Model) -> None:
    def first(site: Any, step: int, value: torch.Tensor) -> torch.Tensor:
        return value.norm(dim=-1)

    def other(site: Any, step: int, value: torch.Tensor) -> torch.Tensor:
        return value.abs().sum(dim=-1)

    other.__qualname__ = first.__qualname__
    plans = [plan_of(model, record=recorder(function)) for function in (first, other)]
    with pytest.raises(PlanError, match=r"its state\.recorders\.norm"):
        check_same(plans[1], plans[0], "run.zarr")


def powers(power: Any) -> Any:
    return lambda site, step, value: (value**power).sum(dim=-1)


def test_a_closure_is_read_or_said_to_be_unverifiable(model: interp.Model, tmp_path: Path) -> None:
    two, three = (plan_of(model, record=recorder(powers(power))) for power in (2, 3))
    with pytest.raises(PlanError, match=r"state\.recorders"):
        check_same(three, two, "run.zarr")
    held = recorder(powers(object()))
    with pytest.raises(PlanError, match=r"cannot be continued: recorder norm.*holds power, a object"):
        check_verifiable(plan_of(model, record=held), "run.zarr")
    with pytest.warns(InterpWarning, match="cannot be described"), contextlib.suppress(interp.TraceError):
        interp.trace(model, PROMPTS[:1], out=tmp_path / "run.zarr", steps=2, record=held)


def test_what_changes_nothing_changes_no_plan(folder: Path, model: interp.Model, tmp_path: Path) -> None:
    before = plan_of(model)
    interp.trace(model, PROMPTS, out=tmp_path / "run.zarr", steps=2)
    interp.generate(model, PROMPTS, steps=2, guidance="cfg:4")
    model.pipe(PROMPTS[0], num_inference_steps=1, height=64, width=64, output_type="np")
    model.pipe.set_progress_bar_config(disable=True)
    copied = interp.wrap(copy.deepcopy(model.pipe), "copy")
    for one in (model, interp.load(folder), copied):
        given = {} if one is not copied else {"settings": {"max_sequence_length": 8}, "height": 64, "width": 64}
        check_same(plan_of(one, **given), before, "run.zarr")


def test_offloading_does_not_change_the_fingerprint(model: interp.Model, tmp_path: Path) -> None:
    import accelerate

    weights, state = fingerprint(model.pipe), state_of(model.pipe)
    model.pipe.transformer.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level", offload_to_disk_path=str(tmp_path / "offloaded")
    )
    assert fingerprint(model.pipe) == weights
    accelerate.cpu_offload(model.pipe.text_encoder, execution_device="cpu")
    assert next(model.pipe.text_encoder.parameters()).is_meta
    assert fingerprint(model.pipe) == weights
    assert state_of(model.pipe) == state
    kept = model.pipe.text_encoder.text_model.encoder.layers[0].mlp.fc1._hf_hook.weights_map
    kept["weight"][3, 2] += 1
    assert fingerprint(model.pipe) != weights


def test_a_weight_that_is_nowhere_is_refused(model: interp.Model) -> None:
    model.pipe.vae.to("meta")
    with refused(interp.ModelError, "model", "meta", "again"):
        fingerprint(model.pipe)


def test_a_sampled_identity_says_so_and_misses_what_it_does_not_look_at(folder: Path) -> None:
    model = interp.load(folder, identity="sampled")
    weights = plan_of(model)["weights"]
    assert weights.startswith("sha256:")
    assert plan_of(interp.load(folder))["weights"].startswith("full:")
    with refused(interp.InputError, "identity", "full", "quick"):
        interp.load(folder, identity="quick")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_every_byte_counts(dtype: torch.dtype) -> None:
    """Any one element changed changes the sums; slices and copies of one content agree."""
    generator = torch.Generator().manual_seed(0)
    size = 8 * BLOCK // torch.empty(0, dtype=dtype).element_size() + 13
    values = torch.randint(0, 2, (size,), generator=generator).to(dtype)
    sums = block_sums(values)
    assert len(sums) == 2
    padded = torch.cat([values[:3], values])
    assert torch.equal(block_sums(padded[3:]), sums), "the same content at another offset"
    for place in [0, 1, 7, size // 2, size - 14, size - 1, *torch.randint(0, size, (20,), generator=generator).tolist()]:
        changed = values.clone()
        changed[place] = 1 - changed[place].to(torch.int8)
        assert not torch.equal(block_sums(changed), sums), place


def test_sums_are_those_of_their_formula() -> None:
    import numpy as np

    words = torch.randint(-(2**63), 2**63 - 1, (1000,), generator=torch.Generator().manual_seed(1))
    keys = [int(key) | 1 for key in np.random.PCG64(2605).random_raw(BLOCK)]
    plain = [word % 2**64 for word in words.tolist()]
    expected = sum(key * (word ^ (word >> 32)) for key, word in zip(keys, plain, strict=False)) % 2**64
    assert block_sums(words).tolist() == [(expected + 2**63) % 2**64 - 2**63]
