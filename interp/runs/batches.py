"""A trace as units of work: batches of samples. A failed sample does not affect others; a batch that does not fit is halved."""

from __future__ import annotations

import dataclasses
import functools
import gc
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from interp.base.errors import InterpWarning, PipelineError, TraceError
from interp.base.executor import Stopped
from interp.base.plan import Row, groups
from interp.base.same_plan import check_same
from interp.runs.recorded import make_recorders, make_schema
from interp.store.create import zarr_quiet
from interp.store.reader import is_done
from interp.store.schema import Schema
from interp.store.summary import Bundle, Totals
from interp.store.writer import Writer
from interp.tracing.group import trace_group
from interp.tracing.prepare import Prepared
from interp.tracing.steps import Moving
from interp.tracing.visitor import TracedRow

Outcome = list[tuple[int, str | None]]
"""Rows, each with the reason of its failure, if it failed."""


@dataclasses.dataclass
class Tracing:
    """The units of a trace: batches, or bundles of several batches where only summaries are kept."""

    prepared: Prepared
    path: Path
    batch_size: int = 1
    skipped: frozenset[int] = frozenset()
    """Rows that failed before and are skipped."""
    on_step: Callable[[int], None] | None = None
    totals: Totals | None = None
    """Adds up the rows that this process writes."""
    most: int | None = None
    """Largest batch that fits in memory; set once a batch did not fit."""

    @functools.cached_property
    def schema(self) -> Schema:
        """The axes of the store."""
        return make_schema(self.prepared)

    def units(self) -> list[tuple[Row, ...]]:
        """The rows of every unit."""
        return groups(self.prepared.plan.rows(), self.prepared.plan.record.bundle or self.batch_size)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the progress callback, which cannot be pickled, and this process' totals."""
        return {**self.__dict__, "on_step": None, "totals": None}

    def do(self, units: Iterable[tuple[Row, ...]], stopped: Stopped) -> Iterator[Outcome]:
        """Trace the rows of units that are not done."""
        with zarr_quiet(), Writer(self.path, totals=self.totals, streams=tuple(self.schema.streams)) as writer:
            check_same(self.prepared.plan.to_json(), writer.attributes["plan"], str(self.path))
            for unit in units:
                wanted = {row.index for row in unit if row.index not in self.skipped}
                pending = {row for row in wanted if not is_done(self.path, row)}
                if not pending:
                    yield []
                elif self.schema.bundle:
                    yield self._bundle(writer, unit, wanted, stopped)
                else:
                    yield self._batch(writer, unit, pending)

    def _batch(self, writer: Writer, unit: Sequence[Row], pending: Collection[int]) -> Outcome:
        """Trace the pending rows of a batch."""
        found = self.trace(writer, unit, pending)
        for result in found:
            if result.failure is None:
                writer.row(result.row.index, result.make, size=result.nbytes)
        return [(result.row.index, result.failure) for result in found]

    def _bundle(self, writer: Writer, unit: Sequence[Row], wanted: Collection[int], stopped: Stopped) -> Outcome:
        """Trace a whole bundle, including done rows: its moments cover all its rows. A stop discards the bundle."""
        bundle, outcome = Bundle(), Outcome()
        for batch in groups(unit, self.batch_size):
            if stopped():
                return []
            for result in self.trace(writer, batch, wanted):
                if result.failure is None:
                    writer.row(result.row.index, bundle.add(result.arrays), done=False)
                outcome.append((result.row.index, result.failure))
        number = unit[0].index // self.schema.bundle
        writer.bundle(number, [row for row, failure in outcome if failure is None], bundle.moments())
        return outcome

    def trace(self, writer: Writer, batch: Sequence[Row], wanted: Collection[int]) -> list[TracedRow]:
        """Trace the wanted rows of a batch, in their original batch where possible."""
        if not any(row.index in wanted for row in batch):
            return []
        if self.most is not None and len(batch) > self.most:
            return self._in_parts(writer, batch, wanted, self.most)
        try:
            return self._whole(writer, batch, wanted)
        except PipelineError as error:  # its frames hold the batch's tensors: continue outside
            text, reason = str(error), str(error.__cause__)
            full = isinstance(error.__cause__, torch.OutOfMemoryError)
        if full:
            self._shrink(len(batch), reason)
            return self.trace(writer, batch, wanted)
        if len(batch) == 1:
            return [TracedRow(batch[0], failure=text)]
        self._warn(f"{text}; the rows of this batch are traced one by one")
        return self._in_parts(writer, batch, wanted, 1)

    def _shrink(self, size: int, reason: str) -> None:
        """Halve the batch for the rest of the run, with a warning."""
        if size == 1:
            raise TraceError(
                f"a single row does not fit in memory ({reason}); try --offload model, a smaller --height and --width, or "
                "bfloat16"
            )
        self.most = size // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._warn(f"a batch of {size} does not fit in memory; {self.most} rows are traced together from here on")

    def _in_parts(self, writer: Writer, batch: Sequence[Row], wanted: Collection[int], size: int) -> list[TracedRow]:
        return [result for part in groups(batch, size) for result in self.trace(writer, part, wanted)]

    def _warn(self, text: str) -> None:
        warnings.warn(f"{text}: they agree with a whole batch to 1e-5, not bit for bit", InterpWarning, stacklevel=4)

    def _whole(self, writer: Writer, batch: Sequence[Row], wanted: Collection[int]) -> list[TracedRow]:
        """Trace a whole batch and return the wanted rows."""

        def hidden(position: int, step: int, block: int, stream: str, states: Moving, size: int) -> None:
            row = batch[position].index
            if row in wanted:
                axes = self.schema.hidden[stream]
                place = (row, axes.steps.index(step), axes.blocks.index(block))
                writer.hidden(stream, place, lambda: states.numpy()[position], size)

        recorders = make_recorders(self.prepared, self.schema, batch, hidden)
        results = trace_group(self.prepared, batch, recorders, self.on_step or (lambda step: None))
        return [result for result in results if result.row.index in wanted]
