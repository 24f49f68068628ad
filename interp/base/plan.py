"""The plan of a run: a frozen `Plan` of everything its numbers depend on, its rows, and what it records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from interp.base.errors import InputError
from interp.base.prompts import same_text
from interp.base.seeds import OWN, SHARED, check_seeds, seed_of
from interp.base.site_recorder import SiteRecorder
from interp.base.site_recorder import at_least as at_least
from interp.base.sites import Select

RECORDABLE = ("stats", "gates", "hidden", "modulation", "prediction", "branches", "summary", "padding", "frames")
LATER = ("prediction", "branches", "bundle", "frames")  # left out where off: stores of versions without them can be resumed
BUNDLE = 32  # prompts per bundle where only a summary is kept


@dataclasses.dataclass(frozen=True)
class Record:
    """What a trace records. The picture and the latents are always kept."""

    stats: bool = True
    """Mean, mean |x|, max |x|, min |x| and variance over tokens, per channel, of every block and stream."""
    gates: bool = True
    """AdaLN alpha of every gate."""
    hidden: Select | bool | None = None
    """Full hidden states: all of them (`True`) or a selection."""
    latents: Literal["last", "all"] = "last"
    """The latents after the last step, or after every step."""
    modulation: bool = False
    """AdaLN shift and scale, in addition to alpha."""
    prediction: bool = False
    """The transformer's prediction at every step: velocity, or epsilon and, separately, DiT's learned sigma."""
    branches: bool = False
    """Branch outputs before alpha multiplies them, and the embedding, as means over tokens: the sources of a channel."""
    recorders: tuple[SiteRecorder, ...] = ()
    """User-defined recorders."""
    padding: bool = False
    """Whether padding counts among the text tokens of statistics and branches, as in stores of earlier versions."""
    bundle: int = 0
    """Prompts per bundle: keep only mean and variance of statistics and gates over each bundle; 0 keeps every prompt's."""
    frames: bool = False
    """Of a video: mean, mean |x| and max |x| over the tokens of every latent frame, mean |x| of its first and last row."""

    def __post_init__(self) -> None:
        for field in ("stats", "gates", "modulation", "prediction", "branches", "padding", "frames"):
            if not isinstance(getattr(self, field), bool):
                raise InputError(f"record.{field} must be True or False; got {getattr(self, field)!r}")
        if self.hidden is False:
            object.__setattr__(self, "hidden", None)
        if self.hidden is True:
            object.__setattr__(self, "hidden", Select())
        if self.hidden is not None and not isinstance(self.hidden, Select):
            raise InputError(f"record.hidden must be None, True or a Select(...); got {self.hidden!r}")
        if self.latents not in ("last", "all"):
            raise InputError(f'record.latents must be "last" or "all"; got {self.latents!r}')
        object.__setattr__(self, "recorders", tuple(self.recorders))
        names = [recorder.name for recorder in self.recorders]
        if len(set(names)) != len(names):
            raise InputError(f"record.recorders must have distinct names; got {names}")
        object.__setattr__(self, "bundle", at_least("record.bundle", self.bundle, 0))
        if self.bundle and not (self.stats or self.gates):
            raise InputError("record.bundle needs record.stats=True or record.gates=True: only these have means over prompts")
        if self.modulation and not self.gates:
            raise InputError("record.modulation needs record.gates=True: shift and scale are stored with alpha")
        if self.branches and not (self.gates and self.stats):
            raise InputError("record.branches needs record.gates=True and record.stats=True: alpha x branch sums to the mean")

    @property
    def select(self) -> Select | None:
        """The selection of hidden states, if any are kept."""
        return self.hidden if isinstance(self.hidden, Select) else None

    @classmethod
    def parse(cls, names: str, *, blocks: str | None = None, steps: str | None = None, bundle: int | None = None) -> Record:
        """Parse the command line: names such as "stats,gates,hidden", and the blocks and steps of hidden. "summary" keeps stats
        and gates as means and variances over bundles of prompts.
        """
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in RECORDABLE]
        if unknown or not wanted:
            raise InputError(f"record must be a list out of {','.join(RECORDABLE)}; got {names!r}")
        if (blocks is not None or steps is not None) and "hidden" not in wanted:
            raise InputError("--blocks and --record-steps select hidden states; add hidden to --record")
        if bundle is not None and "summary" not in wanted:
            raise InputError("--bundle is the number of prompts per bundle of a summary; add summary to --record")
        hidden = Select(blocks=blocks, steps=steps) if "hidden" in wanted else None  # type: ignore[arg-type]
        both = set() if {"stats", "gates"} & set(wanted) else {"summary"}  # the default of a summary: both
        return cls(
            stats=bool({"stats", "branches", *both} & set(wanted)),
            gates=bool({"gates", "modulation", "branches", *both} & set(wanted)),
            bundle=at_least("bundle", BUNDLE if bundle is None else bundle, 1) if "summary" in wanted else 0,
            hidden=hidden,
            modulation="modulation" in wanted,
            prediction="prediction" in wanted,
            branches="branches" in wanted,
            padding="padding" in wanted,
            frames="frames" in wanted,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        recorders = [recorder.to_json() for recorder in self.recorders]
        for later in LATER:
            if not values[later]:
                del values[later]
        if values["padding"] or not (self.stats or self.branches):
            del values["padding"]
        return values | {"hidden": self.select.to_json() if self.select else None, "recorders": recorders}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`, without user-defined recorders: the JSON does not hold their functions."""
        hidden = values["hidden"]
        return cls(
            **{"padding": True, **values, "hidden": None if hidden is None else Select.from_json(hidden), "recorders": ()}
        )


@dataclasses.dataclass(frozen=True)
class Row:
    """One sample of a run: a prompt and a seed, one index on the `prompt` axis."""

    index: int
    text: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a run's numbers depend on, except the batch size and the device, which are in its provenance."""

    model: str
    """The model's name as given by the user."""
    dtype: str
    prompts: tuple[str, ...]
    steps: int
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    seed: int = 0
    repeats: int = 1
    seeds: str | tuple[int, ...] = SHARED
    """`own`: every prompt and repeat has a seed of its own; `shared`, or a list: all prompts have the same (`seed_of`)."""
    partners: tuple[str, ...] = ()
    """The prompts that own seeds are made of, one for each prompt: those of the other run of a pair."""
    negative_prompt: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of the pipeline, such as `max_sequence_length`."""
    guidance: Sequence[Mapping[str, Any]] | None = None
    interventions: tuple[Mapping[str, Any], ...] = ()
    record: Record = dataclasses.field(default_factory=Record)
    scheduler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = ""
    """Fingerprint of the weights in memory (`interp.models.identity`)."""
    sampled: str = ""
    """The fingerprint of a sample of the weights, which stores of earlier versions hold."""
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the pipeline does besides its weights (`interp.models.state`)."""

    def __post_init__(self) -> None:
        for field, least in (("steps", 1), ("repeats", 1), ("seed", 0), ("height", 1), ("width", 1)):
            object.__setattr__(self, field, at_least(field, getattr(self, field), least))
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        if self.seed + self.repeats * len(self.prompts) >= 2**63:
            raise InputError(f"seed must leave room below 2**63 for the repeats; got {self.seed}")

    def rows(self) -> tuple[Row, ...]:
        """Prompts x repeats, with the seeds of `seed_of`; a prompt that is given again continues the count of repeats."""
        counted: Counter[str] = Counter()
        rows: list[Row] = []
        for text, partner in zip(self.prompts, self.partners or self.prompts, strict=True):
            key = same_text(partner) if self.seeds == OWN else text
            for _ in range(self.repeats):
                rows.append(Row(len(rows), text, seed_of(self.seeds, self.seed, key, counted[key])))
                counted[key] += 1
        return tuple(rows)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the prompts as count and digest (the store holds the texts)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        digest = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()[:16]
        values |= {
            "prompts": f"{len(self.prompts)} prompts, sha256 {digest}",
            "record": self.record.to_json(),
            "scheduler": dict(self.scheduler),
        }
        if self.seeds == SHARED:  # as in stores of earlier versions, which had no other
            del values["seeds"]
        del values["partners"]
        return {name: as_json(value, name) for name, value in values.items()}


def as_json(value: Any, field: str) -> Any:
    """`value` after a JSON round trip: tuples become lists, numpy numbers plain numbers."""
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise InputError(f"{field} must consist of plain JSON values; {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not one")


def groups(rows: Sequence[Row], batch_size: int) -> list[tuple[Row, ...]]:
    """Rows in fixed groups, `row // batch_size`: a resumed run traces a row in its original batch."""
    at_least("batch_size", batch_size, 1)
    return [tuple(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
