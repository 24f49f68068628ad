"""What a run is: a frozen `Plan` that says everything its numbers depend on, its rows, and what it records."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from interp.errors import InputError, PlanError
from interp.sites import Select, Site, as_index

RECORDABLE = ("stats", "gates", "hidden", "modulation", "prediction", "branches", "summary")
BUNDLE = 32  # prompts, where a summary alone is kept


@dataclasses.dataclass(frozen=True)
class SiteRecorder:
    """A recorder of your own: a function of (site, step, value) at the sites that a pattern names.

    `function` is given the value on the model's device, (batch, token, channel) or (batch, channel), and returns
    (batch, *axes). It is stored as `recorded/NAME`: value (prompt, step, site, *axes), float32.

        SiteRecorder("branch_norm", "block.*/image/branch.*", lambda site, step, x: x.norm(dim=-1), axes={"token": 64})
    """

    name: str
    sites: str
    """A shell-style pattern of site names, such as `block.*/image/branch.attn`."""
    function: Callable[[Site, int, Any], Any]
    axes: Mapping[str, int]
    """Axis names and sizes of what the function returns, without the batch."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"SiteRecorder.name must be a plain name such as branch_norm; got {self.name!r}")
        taken = sorted({"prompt", "step", "site"} & set(self.axes))
        if taken:
            raise InputError(f"SiteRecorder.axes must not be called {taken[0]}: the store has an axis of that name")
        for axis, size in self.axes.items():
            at_least(f"SiteRecorder.axes[{axis!r}]", size, 1)

    def matches(self, site: Site) -> bool:
        """Whether the pattern names this site."""
        return fnmatch.fnmatchcase(str(site), self.sites)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; of the function, its name."""
        function = f"{self.function.__module__}.{self.function.__qualname__}"
        return {"name": self.name, "sites": self.sites, "function": function, "axes": dict(self.axes)}


@dataclasses.dataclass(frozen=True)
class Record:
    """What a trace keeps. The picture and the latents are always kept."""

    stats: bool = True
    """Mean, mean |x|, max |x|, min |x| and variance over tokens, per channel, of every block and stream."""
    gates: bool = True
    """AdaLN alpha of every gate."""
    hidden: Select | bool | None = None
    """Full hidden states: all of them (`True`) or a selection."""
    latents: Literal["last", "all"] = "last"
    """The latents after the last step, or after every step."""
    modulation: bool = False
    """AdaLN shift and scale beside alpha."""
    prediction: bool = False
    """What the transformer predicts at every step: velocity, or epsilon and (apart from it) DiT's learned sigma."""
    branches: bool = False
    """What every branch writes before alpha multiplies it, and the embedding, as means over tokens: who writes a channel."""
    recorders: tuple[SiteRecorder, ...] = ()
    """Recorders of your own."""
    bundle: int = 0
    """Keep statistics and gates not of every prompt, but their mean and variance over bundles of this many; 0 keeps all."""

    def __post_init__(self) -> None:
        for field in ("stats", "gates", "modulation", "prediction", "branches"):
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
            raise InputError(f"record.recorders must have names of their own; got {names}")
        object.__setattr__(self, "bundle", at_least("record.bundle", self.bundle, 0))
        if self.bundle and not (self.stats or self.gates):
            raise InputError("record.bundle needs record.stats=True or record.gates=True: there is nothing to take means of")
        if self.modulation and not self.gates:
            raise InputError("record.modulation needs record.gates=True: shift and scale are kept beside alpha")
        if self.branches and not (self.gates and self.stats):
            raise InputError("record.branches needs record.gates=True and record.stats=True: alpha x branch sums to the mean")

    @property
    def select(self) -> Select | None:
        """The selection of hidden states, if any are kept."""
        return self.hidden if isinstance(self.hidden, Select) else None

    @classmethod
    def parse(cls, names: str, *, blocks: str | None = None, steps: str | None = None, bundle: int | None = None) -> Record:
        """From the command line: names such as "stats,gates,hidden", and which blocks and steps of hidden to keep. "summary"
        keeps stats and gates as means and variances over bundles of prompts.
        """
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in RECORDABLE]
        if unknown or not wanted:
            raise InputError(f"record must be a list out of {','.join(RECORDABLE)}; got {names!r}")
        if (blocks is not None or steps is not None) and "hidden" not in wanted:
            raise InputError("--blocks and --record-steps select hidden states; add hidden to --record")
        if bundle is not None and "summary" not in wanted:
            raise InputError("--bundle is how many prompts a summary is made of; add summary to --record")
        hidden = Select(blocks=blocks, steps=steps) if "hidden" in wanted else None  # type: ignore[arg-type]
        both = set() if {"stats", "gates"} & set(wanted) else {"summary"}  # of which of them: both, if none is named
        return cls(
            stats=bool({"stats", "branches", *both} & set(wanted)),
            gates=bool({"gates", "modulation", "branches", *both} & set(wanted)),
            bundle=at_least("bundle", BUNDLE if bundle is None else bundle, 1) if "summary" in wanted else 0,
            hidden=hidden,
            modulation="modulation" in wanted,
            prediction="prediction" in wanted,
            branches="branches" in wanted,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        recorders = [recorder.to_json() for recorder in self.recorders]
        for later in ("prediction", "branches", "bundle"):  # stores begun before there were such things can still be continued
            if not values[later]:
                del values[later]
        return values | {"hidden": self.select.to_json() if self.select else None, "recorders": recorders}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`, but for recorders of your own: their functions are not in it."""
        hidden = values["hidden"]
        return cls(**{**values, "hidden": None if hidden is None else Select.from_json(hidden), "recorders": ()})


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt of a run: one unit of work, one place on the `prompt` axis."""

    index: int
    text: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a run's numbers depend on, but the batch size and the device (provenance has those)."""

    model: str
    """The model as it was named."""
    dtype: str
    prompts: tuple[str, ...]
    steps: int
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    seed: int = 0
    repeats: int = 1
    negative_prompt: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further arguments of the pipeline, such as `max_sequence_length`."""
    guidance: Sequence[Mapping[str, Any]] | None = None
    interventions: tuple[Mapping[str, Any], ...] = ()
    record: Record = dataclasses.field(default_factory=Record)
    scheduler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: str = ""
    """Fingerprint of the weights in memory (`interp.models.identity`)."""

    def __post_init__(self) -> None:
        for field, least in (("steps", 1), ("repeats", 1), ("seed", 0), ("height", 1), ("width", 1)):
            object.__setattr__(self, field, at_least(field, getattr(self, field), least))
        if self.seed + self.repeats * len(self.prompts) >= 2**63:
            raise InputError(f"seed must leave room below 2**63 for the repeats; got {self.seed}")

    def rows(self) -> tuple[Row, ...]:
        """Prompts x repeats. Seed = base seed + repeat, the same for every prompt; a duplicate line goes on counting."""
        repeats: Counter[str] = Counter()
        rows: list[Row] = []
        for text in self.prompts:
            for _ in range(self.repeats):
                rows.append(Row(len(rows), text, self.seed + repeats[text]))
                repeats[text] += 1
        return tuple(rows)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the prompts as their count and digest (the store holds their texts)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        digest = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()[:16]
        values |= {
            "prompts": f"{len(self.prompts)} prompts, sha256 {digest}",
            "record": self.record.to_json(),
            "scheduler": dict(self.scheduler),
        }
        return {name: as_json(value, name) for name, value in values.items()}


def at_least(field: str, value: Any, least: int) -> int:
    """`value` as an int if it is an integer (numpy's too) of at least `least`; else an error that names the field."""
    number = as_index(value)
    if number is None or number < least:
        raise InputError(f"{field} must be an integer of at least {least}; got {value!r}")
    return number


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """A share of a run's batches, "i/n" with i from 0 to n - 1."""
    if text is None:
        return None
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 0 <= int(index) < int(count)):
        raise InputError(f"shard must be i/n with i from 0 to n - 1, such as 0/4 or 3/4; got {text!r}")
    return int(index), int(count)


def as_json(value: Any, field: str) -> Any:
    """`value` as it reads back from JSON: tuples are lists, numpy numbers are numbers."""
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise InputError(f"{field} must be made of plain JSON values; {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is none")


def check_same(wanted: Mapping[str, Any], stored: Mapping[str, Any], store: str) -> None:
    """Refuse to go on with a store made by another plan, naming the first field that differs.

    The model's name may differ (a folder has many spellings): its weights may not.
    """
    for field in dict.fromkeys([*wanted, *stored]):
        if field != "model" and wanted.get(field) != stored.get(field):
            raise PlanError(
                f"{store} holds another run: its {field} is {_short(stored.get(field))}, yours {_short(wanted.get(field))}; "
                "give another --out, or delete the store, or use the same arguments"
            )


def _short(value: Any, limit: int = 120) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def groups(rows: Sequence[Row], batch_size: int) -> list[tuple[Row, ...]]:
    """Rows in fixed groups, `row // batch_size`: a continued run traces a row in the company it always had."""
    at_least("batch_size", batch_size, 1)
    return [tuple(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
