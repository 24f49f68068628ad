"""Options that several experiments have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typing_extensions import Doc

from interp.base.errors import InputError
from interp.base.options import Indices, Names, Numbers
from interp.base.site_recorder import at_least
from interp.base.sites import parse_indices
from interp.base.streams import ALL

if TYPE_CHECKING:
    from interp.base.plan import Row
    from interp.experiments.kind import Request
    from interp.models.anatomy import Anatomy
    from interp.store.schema import Array
    from interp.tracing.prepare import Prepared


def chosen_streams(anatomy: Anatomy, wanted: str) -> tuple[str, ...]:
    """The names of the streams that an option selects: one, by name or role, or all."""
    return anatomy.stream_names if wanted == ALL else (anatomy.stream(wanted).name,)


CONTROLS = ("control", "zero", "shuffled", "energy", "third")
MOVED = ("massive", *CONTROLS)
"""What is moved between two runs: see `interp.experiments.moved`."""
Stored = Any | str | Path | None
RankedBy = Annotated[Stored, Doc("A traced store that ranks channels. [default: the first prompts are traced]")]
Reference = Annotated[Stored, Doc("Folder of real pictures, the reference of detail measures. [default: the originals]")]


def format_blocks(chosen: Sequence[int], count: int) -> str:
    """Format a set of blocks: "all", "4", "2-5" or "0,3,7"."""
    if len(chosen) == count:
        return "all"
    if len(chosen) > 1 and list(chosen) == list(range(chosen[0], chosen[-1] + 1)):
        return f"{chosen[0]}-{chosen[-1]}"
    return ",".join(map(str, chosen))


def channel_counts(given: Indices, default: Iterable[int], channels: int) -> list[int]:
    """Parse numbers of channels, up to half of a model's: the channels of a control are others than the edited ones."""
    wanted = parse_indices(given, "counts")
    found = sorted(default if wanted is None else {at_least("counts", count, 1) for count in wanted})
    if not found or found[-1] > channels // 2:
        raise InputError(f"counts must lie in 1..{channels // 2}: controls must not be the same channels; got {found}")
    return found


def listed(text: Names, field: str, known: Sequence[str]) -> list[str]:
    """Parse names separated by commas; an unknown name raises InputError."""
    names = [name.strip() for name in text.split(",") if name.strip()] if isinstance(text, str) else list(text)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise InputError(f"{field} must be some of {', '.join(known)}; got {wrong[0] if wrong else 'none'!r}")
    return names


def numbers(text: Numbers, field: str) -> list[float]:
    """Parse numbers separated by commas, or convert a sequence of numbers."""
    try:
        return [float(part) for part in (text.split(",") if isinstance(text, str) else text) if str(part).strip()]
    except ValueError:
        raise InputError(f"{field} must be numbers between commas, such as 0.5,1; got {text!r}") from None


def pictures_of(given: Any, field: str = "reference") -> Array | None:
    """Pictures, (picture, y, x, rgb) uint8, from an array or a folder of PNG or JPEG files of one size, without `-mask.png`."""
    import numpy as np
    from PIL import Image

    if given is None or not isinstance(given, str | Path):
        return None if given is None else np.asarray(given)
    kinds = (".png", ".jpg", ".jpeg")
    paths = sorted(p for p in Path(given).glob("*") if p.suffix.lower() in kinds and not p.stem.endswith("-mask"))
    if not paths:
        raise InputError(f"{field}: {given} holds no .png or .jpg pictures")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    sizes = sorted({picture.shape for picture in pictures})
    if len(sizes) > 1:
        raise InputError(f"{field}: the pictures in {given} must be of one size; got {sizes[:3]}")
    return np.stack(pictures)


def prepare_pairs(
    request: Request, first: Any, second: Any, names: tuple[str, str] = ("clean", "corrupted"), **changes: Any
) -> tuple[Prepared, Prepared]:
    """Two runs in pairs by line: both of a pair have the noise of the first."""
    one = request.prepare(first, **changes)
    other = request.prepare(second, **changes)
    if len(one.plan.prompts) == len(other.plan.prompts):
        other = dataclasses.replace(other, plan=dataclasses.replace(other.plan, partners=one.plan.prompts))
    check_pairs(one.plan.rows(), other.plan.rows(), names)
    return one, other


def check_pairs(first: Sequence[Row], second: Sequence[Row], names: tuple[str, str] = ("clean", "corrupted")) -> None:
    """Raise InputError unless samples come in pairs: equal numbers, equal seeds, different texts."""
    one, other = names
    if len(first) != len(second):
        raise InputError(f"{one} and {other} prompts come in pairs; got {len(first)} and {len(second)}")
    for a, b in zip(first, second, strict=True):
        if a.seed != b.seed:
            raise InputError(f"pair {a.index}: seeds {a.seed} and {b.seed}; a line that is repeated must be repeated in both")
        if a.text == b.text:
            raise InputError(f"pair {a.index}: {one} and {other} are the same prompt, {a.text!r}")


def check_begins_with_noise(prepared: Prepared) -> None:
    """Raise InputError where a run's first latents are not noise alone, which is added to a picture at other levels."""
    plan = prepared.plan
    if prepared.model.loaded.spec.levels.begins(plan.steps, plan.settings):
        raise InputError(
            f"settings: this experiment takes the noise with which a run begins, and at strength={plan.settings['strength']} "
            f"{prepared.model.name} begins with a picture; give strength=1"
        )
