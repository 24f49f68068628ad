"""Rows that join a batch between blocks: a new row copies another row's state, and the call's arguments are repeated for it."""

from __future__ import annotations

import abc
from functools import partial
from typing import Any

from torch import Tensor

from interp.interventions.hooks import Driver
from interp.models.anatomy import bind_inputs, take_rows


class JoiningRows(Driver, abc.ABC):
    """Applies edits to a batch that rows join where they first differ."""

    source: list[int]
    """The row of the call's arguments that each row of the batch has."""
    given: int
    """Rows of the call's arguments."""

    @abc.abstractmethod
    def join(self, block: int, part: int) -> list[int] | None:
        """Add rows that differ from here on (part 0: in the block, 1: at its output) to the batch and to `source`. Return the
        old index of each row now; `None` if there are no new rows.
        """

    @abc.abstractmethod
    def wants_inputs(self, block: int) -> bool:
        """Whether `see_inputs` is to be called; after the blocks, `conditioned`."""

    @abc.abstractmethod
    def see_inputs(self, block: int, bound: dict[str, Any]) -> None:
        """See or change a block's inputs, with all rows."""

    def conditioned(self, path: str, argument: str, value: Tensor) -> Tensor:
        """An argument of a module after the blocks, with all rows."""
        return value

    def attach(self, transformer: Any, *, first: bool = False) -> list[Any]:
        """Register the hooks; return their handles, which have `remove`."""
        handles = super().attach(transformer, first=first)
        for index, block in enumerate(self.anatomy.blocks):  # rows join before they are edited
            hook = partial(self.before_block, index)
            handles.append(_before(transformer, block.path, hook))
        for reentry in self.anatomy.reentries:
            if reentry.argument is not None:
                hook = partial(self.before_reentry, reentry.module, reentry.argument)
                handles.append(_before(transformer, reentry.module, hook))
        return handles

    def before_block(self, index: int, module: Any, arguments: Any, named: Any) -> Any:
        """A hook before a block: add rows that differ inside it, and repeat its other arguments for them."""
        block = self.anatomy.blocks[index]
        moved = self.join(index, 0)
        joined, wanted = moved is not None or len(self.source) != self.given, self.wants_inputs(index)
        if not joined and not wanted:
            return None
        bound = bind_inputs(module, arguments, named)
        for name in block.row_inputs if joined else ():
            rows = moved if name in block.state_inputs.values() else self.source
            if rows is not None:
                bound[name] = take_rows(bound.get(name), rows)
        if wanted:
            self.see_inputs(index, bound)
        return (), bound

    def before_reentry(self, path: str, argument: str, module: Any, arguments: Any, named: Any) -> Any:
        """A hook before a module after the blocks that receives conditioning."""
        if len(self.source) == self.given and not self.wants_inputs(len(self.anatomy.blocks)):
            return None
        bound = bind_inputs(module, arguments, named)
        return (), {**bound, argument: self.conditioned(path, argument, bound[argument][self.source])}

    def on_states(self, index: int, module: Any, arguments: Any, output: Any) -> Any:
        """A hook on a block's output: add rows that differ there, then edit."""
        moved = self.join(index, 1)
        output = output if moved is None else self.anatomy.blocks[index].with_rows(output, moved)
        output = self.leaving(index, output, moved)
        edited = super().on_states(index, module, arguments, output)
        return output if edited is None else edited

    def leaving(self, block: int, output: Any, moved: list[int] | None) -> Any:
        """A block's output, with all rows, before it is edited; `moved` is the index that `join` returned."""
        return output


def _before(transformer: Any, path: str, hook: Any) -> Any:
    return transformer.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
