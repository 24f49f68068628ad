"""Disruption: what becomes of pictures when massive channels are taken away, beside every control we know of.

Detail Guidance, section 4.2 and App. D (arXiv 2510.11538): one block, zeroed, against random channels. Few Channels
(arXiv 2605.13974): many channels, against the lowest ones. Here both, and controls for what zeroing a huge channel does
besides: as large a change elsewhere (`displaced`), the change of scale in LayerNorm alone (`norms_as_if_zero`), and the loss
without that change (`norms_kept`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interp.analysis import disruption
from interp.errors import InputError
from interp.executor import HERE, Executor, Stopped
from interp.experiments.choose import Ranked, rank
from interp.experiments.draw import BATCH_SIZE, Arm, OnProgress, cost, draw
from interp.interventions.controls import Displace, NormsAsIfZero, ZeroNormsKept
from interp.interventions.edits import SetMean, Zero
from interp.interventions.selection import Selection
from interp.plan import Record, as_json, at_least
from interp.sites import parse_indices, resolve_indices
from interp.store.experiment import Experiment
from interp.store.opened import Run
from interp.store.places import located
from interp.store.results import write_result
from interp.tracing.model import Model
from interp.tracing.prepare import Prepared, prepare

REPEATS = 3  # draws of each random control
ORIGINAL = "original"
STREAMS = {"image": ("image",), "text": ("text",), "both": ("image", "text")}


@dataclasses.dataclass(frozen=True)
class Disruption:
    """A disruption that is ready to be drawn: its arms and what they cost."""

    prepared: Prepared
    out: Path
    arms: tuple[Arm, ...]
    parameters: dict[str, Any]

    @property
    def cost(self) -> dict[str, float]:
        """Pictures, and forwards of one row."""
        return cost(self.prepared, self.arms)

    def run(
        self,
        *,
        reference: Any = None,
        batch_size: int = BATCH_SIZE,
        through: Executor = HERE,
        on_progress: OnProgress = lambda progress: None,
        stopped: Stopped = lambda: False,
    ) -> Experiment:
        """Draw what is missing, measure, and keep the result `disruption` in the store."""
        drawn = draw(
            self.prepared,
            self.arms,
            experiment="disrupt",
            parameters=self.parameters,
            out=self.out,
            batch_size=batch_size,
            through=through,
            on_progress=on_progress,
            stopped=stopped,
        )
        write_result(drawn.path, "disruption", disruption.measure(drawn, reference))
        return drawn


def disrupt(
    model: Model | str | Path,
    prompts: Sequence[str] | str | Path,
    *,
    out: str | Path,
    channels: Sequence[int] | str | None = None,
    run: Run | str | Path | None = None,
    blocks: Sequence[Sequence[int] | str | int] = ("all",),
    stream: str = "image",
    repeats_of_controls: int = REPEATS,
    reach: str = "all",
    batch_size: int = BATCH_SIZE,
    **arguments: Any,
) -> Disruption:
    """Prepare a disruption: `disrupt(...).run()` draws it.

    `blocks` lists sets of blocks, each drawn by itself: [4, "2-5", "all"]. `stream` is image, text or both. Channels are those
    given, or the massive ones of `run`; without a run the first prompts are traced. `arguments` are those of `interp.trace`:
    steps, seed, repeats, height, width, settings.
    """
    prepared = prepare(model, prompts, record=Record(stats=False, gates=False), **arguments)
    path, count = located(out), len(prepared.model.anatomy.blocks)
    sets = [_blocks(given, count) for given in blocks]
    if not sets or len(set(sets)) != len(sets):
        raise InputError(f"blocks must be one or more different sets of blocks; got {list(blocks)}")
    if stream not in STREAMS:
        raise InputError(f"stream must be one of {', '.join(STREAMS)}; got {stream!r}")
    ranked = {
        name: rank(prepared, path, channels=channels, run=run, stream=name, batch_size=batch_size) for name in STREAMS[stream]
    }
    first = ranked[STREAMS[stream][0]]
    half = half_of(prepared) if stream == "image" else None
    draws = at_least("repeats_of_controls", repeats_of_controls, 1)
    arms = [Arm(ORIGINAL, (), _labels(ORIGINAL, "-", stream))]
    norms = prepared.model.anatomy.has_norms
    for chosen in sets:
        arms += _arms(ranked, chosen, said_blocks(chosen, count), stream, half, draws, reach if norms else None)
    parameters = {
        "channels": first.massive if len(ranked) == 1 else {name: one.massive for name, one in ranked.items()},
        "lowest": first.lowest if len(ranked) == 1 else {name: one.lowest for name, one in ranked.items()},
        "ranked_by": first.source,
        "stream": stream,
        "reach": reach,
        **({} if norms else {"norms": "arms left out: these blocks have no LayerNorm without weights of its own"}),
        "half": "left out: it is of the image stream alone" if half is None else "left half of the picture",
    }
    return Disruption(prepared, path, tuple(arms), as_json(parameters, "parameters"))


def half_of(prepared: Prepared) -> tuple[int, ...]:
    """Image tokens of the left half of the picture, of every frame."""
    rows, columns = prepared.layout.image_grid
    return prepared.layout.everywhere([y * columns + x for y in range(rows) for x in range(columns // 2)])


def said_blocks(chosen: Sequence[int], count: int) -> str:
    """A set of blocks, short: all, 4, 2-5, or 0,3,7."""
    if len(chosen) == count:
        return "all"
    if len(chosen) > 1 and list(chosen) == list(range(chosen[0], chosen[-1] + 1)):
        return f"{chosen[0]}-{chosen[-1]}"
    return ",".join(map(str, chosen))


def _blocks(given: Any, count: int) -> tuple[int, ...]:
    return resolve_indices(None if given == "all" else parse_indices(given, "blocks"), count, "blocks")


def _labels(kind: str, blocks: str, stream: str, repeat: int = 0) -> dict[str, Any]:
    return {"kind": kind, "blocks": blocks, "stream": stream, "repeat": repeat}


def _arms(
    ranked: Mapping[str, Ranked],
    blocks: tuple[int, ...],
    said: str,
    stream: str,
    half: tuple[int, ...] | None,
    draws: int,
    reach: str | None,
) -> list[Arm]:
    """All arms of one set of blocks; of both streams each with its own channels. Without `reach`, none that holds norms."""

    def edits(make: Callable[[dict[str, Any], Ranked], Selection]) -> tuple[Selection, ...]:
        return tuple(make({"blocks": blocks, "stream": name}, one) for name, one in ranked.items())

    single = {
        "zero": edits(lambda where, one: Zero(channels=one.massive, **where)),
        "mean": edits(lambda where, one: SetMean(channels=one.massive, **where)),
    }
    if reach is not None:
        for kind, norm_edit in (("norms_kept", ZeroNormsKept), ("norms_as_if_zero", NormsAsIfZero)):
            single[kind] = edits(lambda where, one, make=norm_edit: make(reach=reach, channels=one.massive, **where))  # type: ignore[misc]
    single["lowest"] = edits(lambda where, one: Zero(channels=one.lowest, **where))
    if half:
        single["half"] = edits(lambda where, one: Zero(tokens=half, channels=one.massive, **where))
    arms = [Arm(f"{kind} {said}", given, _labels(kind, said, stream)) for kind, given in single.items()]
    for repeat in range(draws):
        random = edits(lambda where, one, repeat=repeat: Zero(channels=one.random(repeat), **where))  # type: ignore[misc]
        displaced = edits(lambda where, one, repeat=repeat: Displace(seed=repeat, channels=one.massive, **where))  # type: ignore[misc]
        for kind, given in (("random", random), ("displaced", displaced)):
            arms.append(Arm(f"{kind} {said} #{repeat}", given, _labels(kind, said, stream, repeat)))
    return arms


def read_reference(folder: str | Path) -> Any:
    """Real pictures of a folder, (picture, y, x, rgb) uint8: PNG or JPEG files of one size, masks (`-mask.png`) left out."""
    from PIL import Image

    kinds = (".png", ".jpg", ".jpeg")
    paths = sorted(p for p in Path(folder).glob("*") if p.suffix.lower() in kinds and not p.stem.endswith("-mask"))
    if not paths:
        raise InputError(f"reference: {folder} holds no .png or .jpg pictures")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    sizes = sorted({picture.shape for picture in pictures})
    if len(sizes) > 1:
        raise InputError(f"reference: the pictures in {folder} must be of one size; got {sizes[:3]}")
    return np.stack(pictures)
