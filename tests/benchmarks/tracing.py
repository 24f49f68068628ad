"""What tracing costs: the plain pipeline, plain torch hooks with the same reductions as one would write them, nnsight's
`tracer.cache` that keeps the states and reduces them afterwards, and `interp.trace` to disk. The first keeps nothing; the
others keep statistics and gates of every block and step. Memory is the peak of a process that does one of them, over that of
one that draws without tracing; on a card, the card's.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import full_size
import torch
from common import Options, card_peaks, interval, peak_of, ratio, said, shown, table, turns
from torch import Tensor

import interp
from interp.models import tiny
from interp.models.quiet import quiet
from interp.testing import untraced
from interp.tracing.prepare import Prepared, prepare

TITLE = "What tracing costs"
SHAPE = {"blocks": 12, "heads": 8, "head_width": 64, "resolution": 128}
PROMPTS = [f"a red cat {number}" for number in range(4)]
STEPS = 20
WAYS = ("untraced", "hooks", "tracer.cache", "interp")


def singles(prepared: Prepared) -> list[Prepared]:
    """The prompts one by one."""
    return [prepare(prepared.model, [text], steps=prepared.plan.steps) for text in prepared.plan.prompts]


def plain(prepared: Sequence[Prepared]) -> None:
    """The pipeline alone."""
    for one in prepared:
        untraced(one.model, one)


def hooked(prepared: Sequence[Prepared]) -> None:
    """Plain hooks with the reductions of record=Record(stats=True, gates=True), kept in memory, nothing written."""
    for one in prepared:
        _hooked(one)


def reduced(state: Tensor) -> Tensor:
    """The five statistics over tokens, as one would write them."""
    size = state.abs()
    mean, var = state.mean(1, dtype=torch.float32), state.float().var(1, correction=0)
    return torch.stack([mean, size.mean(1, dtype=torch.float32), size.amax(1).float(), size.amin(1).float(), var], dim=1)


def _hooked(prepared: Prepared) -> None:
    model, kept = prepared.model, []
    states: list[Tensor] = []
    gates: list[Tensor] = []
    handles = []
    transformer = model.pipe.transformer

    def on_step(module: Any, given: Any, output: Any) -> None:
        """What leaves the device leaves it once a step."""
        kept.append((torch.stack(states).cpu().numpy(), torch.stack(gates).cpu().numpy()))
        states.clear()
        gates.clear()

    for block in model.anatomy.blocks:
        module = transformer.get_submodule(block.path)

        def on_block(module: Any, given: Any, output: Any, block: Any = block) -> None:
            for item in block.hidden.values():
                states.append(reduced(output if item is None else output[item]))

        handles.append(module.register_forward_hook(on_block))
        for modulation in block.modulations:
            wanted = [number for number, chunk in enumerate(modulation.chunks) if chunk.startswith("alpha")]

            def on_projection(
                module: Any, given: Any, output: Any, wanted: Any = wanted, count: Any = modulation.chunks
            ) -> None:
                chunks = output.chunk(len(count), dim=-1)
                gates.extend(chunks[number].float() for number in wanted)

            handles.append(module.get_submodule(modulation.module).register_forward_hook(on_projection))
    handles.append(transformer.register_forward_hook(on_step))
    try:
        untraced(model, prepared)
    finally:
        for handle in handles:
            handle.remove()
    assert len(kept) == prepared.plan.steps


def cached(prepared: Sequence[Prepared]) -> None:
    """nnsight's own way: `tracer.cache` of every block and AdaLN projection, reduced when the picture is drawn."""
    for one in prepared:
        _cached(one)


def _cached(prepared: Prepared) -> None:
    from interp.tracing.group import pipeline_arguments

    model = prepared.model
    envoy, names = model.nn, list(_cacheable(prepared))

    def sample(**arguments: Any) -> None:
        model.pipe(**arguments)

    arguments = pipeline_arguments(model, prepared.plan, prepared.plan.rows())
    with quiet(), envoy.trace(fn=sample, **arguments) as tracer:
        cache = tracer.cache(modules=[envoy.get(name) for name in names], device=None).save()
        for _ in tracer.iter[: prepared.plan.steps]:
            envoy.output.save()
    found = 0
    for name in names:
        for state in _tensors(cache[f"model.{name}"]):
            if state.ndim == 3:
                reduced(state).cpu().numpy()
                found += 1
    assert found >= prepared.plan.steps * len(model.anatomy.blocks), found


def _tensors(kept: Any) -> Iterator[Tensor]:
    """Every tensor in what was cached: a call's output, or a list of them, whatever it is made of."""
    if isinstance(kept, Tensor):
        yield kept
    elif isinstance(kept, list | tuple):
        for part in kept:
            yield from _tensors(part)
    elif kept is not None and hasattr(kept, "output"):
        yield from _tensors(kept.output)


def _cacheable(prepared: Prepared) -> Iterator[str]:
    for block in prepared.model.anatomy.blocks:
        yield block.path
        for modulation in block.modulations:
            yield f"{block.path}.{modulation.module}"


def traced(prepared: Prepared, folder: Path) -> None:
    """interp, to disk."""
    out = folder / "run.zarr"
    shutil.rmtree(out, ignore_errors=True)
    run = interp.trace(prepared.model, prepared.plan.prompts, out=out, steps=prepared.plan.steps)
    assert run.rows_done == len(prepared.plan.prompts)


def load(options: Options, folder: Path) -> interp.Model:
    """The random model, small or of a published size, or the one that was named."""
    if options.size is not None:
        return full_size.build(options.size, options.device, options.dtype)
    source = options.model or str(folder / "model")
    if options.model is None and not Path(source).exists():
        tiny.build("sd3", Path(source), **SHAPE)
    return interp.load(source, device=options.device, dtype=options.dtype)


def measure(options: Options) -> dict[str, Any]:
    """Ratios, seconds and memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare, model = load(options, folder), load(options, folder)  # the first is never wrapped by nnsight
        texts = PROMPTS[:2] if options.size else PROMPTS
        alone, prepared = (prepare(one, texts, steps=STEPS) for one in (bare, model))
        apart, together = singles(alone), singles(prepared)
        calls = {
            "untraced": lambda: plain(apart),
            "hooks": lambda: hooked(apart),
            "tracer.cache": lambda: cached(together),
            "interp": lambda: traced(prepared, folder),
        }
        if options.size:
            del calls["tracer.cache"]  # 32 GB at FLUX.1's size
        on_card = options.device.startswith("cuda")
        memory = card_peaks(calls) if on_card else {}
        rounds = turns(calls, options.rounds, warm=on_card, limit=options.limit)
        if not on_card and not options.size:
            memory = {name: _memory(options, folder, name) for name in WAYS}
        pairs = [("interp", "untraced"), ("interp", "hooks"), ("hooks", "untraced"), ("tracer.cache", "untraced")]
        return {
            "model": full_size.said(model) if options.size else options.model or SHAPE,
            "prompts": len(texts),
            "steps": STEPS,
            "rounds": len(rounds),
            "seconds": {name: interval([one[name] for one in rounds], 2) for name in calls},
            "ratios": {f"{over} / {under}": ratio(rounds, over, under) for over, under in pairs if over in calls},
            "peak MB": memory,
        }


def _memory(options: Options, folder: Path, which: str) -> float:
    """Peak resident memory of a process of its own."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import tracing
from common import Options
folder = Path({str(folder)!r})
prepared = tracing.prepare(tracing.load(Options(dtype={options.dtype!r}), folder), tracing.PROMPTS[:1], steps=tracing.STEPS)
calls = {{"untraced": tracing.plain, "hooks": tracing.hooked, "tracer.cache": tracing.cached,
         "interp": lambda given: tracing.traced(given[0], folder / "memory")}}
calls[{which!r}]([prepared])
"""
    return float(peak_of(code)["peak_mb"])


def page(report: dict[str, Any]) -> str:
    """The docs' tables."""
    targets = {"interp / untraced": 1.05, "interp / hooks": 1.00}
    rows = []
    for name, value in report["ratios"].items():
        target = targets.get(name)
        verdict = "" if target is None else f"{target}: " + _verdict(value, target)
        rows.append([name, shown(value), verdict])
    ratios = table(["time", "ratio, 95% interval", "target"], rows)
    memory = report["peak MB"]
    columns = ["", *report["seconds"]]
    lines = [["seconds a run", *(shown(value) for value in report["seconds"].values())]]
    if memory:
        lines.append(["peak memory over untraced, MB", *(f"{memory[n] - memory['untraced']:.0f}" for n in report["seconds"])])
    model, runs = said(report["model"]), f"{report['prompts']} prompts x {report['steps']} steps"
    peak = f" Untraced, memory peaks at {memory['untraced'] / 1000:.2f} GB." if memory else ""
    about = f"Runs of {runs}, {report['rounds']} rounds; model: {model}.{peak}"
    return "\n\n".join([about, ratios, table(columns, lines)])


def _verdict(value: dict[str, float], target: float) -> str:
    if value["high"] <= target:
        return "met"
    return "met by the median, not by the whole interval" if value["median"] <= target else "**not met**"
