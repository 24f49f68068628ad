"""Edits of a traced run, in the trace's body: it waits for the values that an edit touches, and for no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from interp.base.errors import InputError
from interp.base.sites import MODULATION_KINDS, Site
from interp.interventions.hooks import Driver
from interp.models.anatomy import Anatomy, Modulation, bind_inputs
from interp.tracing.route import Stop


class Editor:
    """Applies the edits of a driver."""

    def __init__(self, anatomy: Anatomy, transformer: nn.Module, route: Sequence[Stop], driver: Driver) -> None:
        self.anatomy, self.transformer, self.route = anatomy, transformer, route
        self.driver = driver
        self.unswapped: dict[str, Any] | None = None
        """The arguments of the call that has begun, if edits swapped some."""

    @property
    def edits(self) -> bool:
        """Whether there is any."""
        return any(self.driver.arms)

    def edit_call(self, step: int, envoy: Any) -> None:
        """Apply the edits of one call, at the sites that they touch; called in the trace's body."""
        swaps, concerned = self._edited(step)  # the call before may still run
        if swaps:
            self.unswapped = self.anatomy.rows_first(bind_inputs(self.transformer, *envoy.inputs))
            self.driver.step = step
            bound, _ = self.driver.swap(self.unswapped)
            envoy.inputs = ((), self.anatomy.as_called(bound))
        for stop, sites in concerned:
            self._edit_block(stop, sites, step, envoy)

    def _edited(self, step: int) -> tuple[bool, list[tuple[Stop, list[Site]]]]:
        """Whether edits swap the call's arguments at a step, and the sites that they touch, by block."""
        now, self.driver.step = self.driver.step, step
        found = [(stop, [site for site in stop.sites if self.driver.concerns(site)]) for stop in self.route]
        swaps, self.driver.step = self.driver.swaps, now
        return swaps, [(stop, sites) for stop, sites in found if sites]

    def _edit_block(self, stop: Stop, concerned: Sequence[Site], step: int, envoy: Any) -> None:
        for site in concerned:
            if site.kind not in ("hidden", *MODULATION_KINDS):
                raise InputError(f"intervention: {site} can be read but not edited; edit hidden, alpha, shift or scale")
        for path, read, sites in stop.reads:
            if isinstance(read, Modulation) and any(site in concerned for _, site in sites):
                self._edit_modulation(stop, envoy.get(path), read, sites, step)
        if any(site in concerned for site in stop.states.values()):
            block = envoy.get(stop.path)
            before = stop.block.states(block.output, self.driver.lengths)
            after = {stream: self.driver.edit(site, before[stream]) for stream, site in stop.states.items()}
            if any(after[stream] is not before[stream] for stream in after):
                block.output = stop.block.with_states(block.output, after, self.driver.lengths)

    def _edit_modulation(self, stop: Stop, envoy: Any, read: Modulation, sites: list[tuple[int, Site]], step: int) -> None:
        owners = {number: site for number, site in sites if site.stream not in read.shared_with}
        self._refuse_shared(sites, owners, step)
        if read.module is not None:
            edited = self.driver.edit_chunks(read, owners, envoy.output)
            if edited is not None:
                envoy.output = edited
            return
        bound = bind_inputs(stop.module, *envoy.inputs)
        values = read.compute(stop.module, bound)
        edited = self.driver.edit_chunks(read, owners, values)
        if edited is not None:
            envoy.inputs = ((), read.write(stop.module, bound, values, edited))

    def _refuse_shared(self, sites: list[tuple[int, Site]], owners: Mapping[int, Site], step: int) -> None:
        """Refuse to edit a shared gate for one of its streams: the user must edit the owner, which changes both."""
        for number, site in sites:
            owner = owners[number]
            if any(edit.touches(site, step) and not edit.touches(owner, step) for edit in self.driver.arms[0]):
                raise InputError(f"intervention: {site} is the same gate as {owner}; edit {owner}, which changes both")
