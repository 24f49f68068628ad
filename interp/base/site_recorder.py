"""User-defined recorders: a function at the sites that match a pattern."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

from interp.base.errors import InputError
from interp.base.sites import Site, as_index


@dataclasses.dataclass(frozen=True)
class SiteRecorder:
    """A user-defined recorder: a function of (site, step, value) at the sites that match a pattern.

    `function` receives the value on the model's device, (batch, token, channel) or (batch, channel), and returns
    (batch, *axes). It is stored as `recorded/NAME`: value (prompt, step, site, *axes), float32.

        SiteRecorder("branch_norm", "block.*/image/branch.*", lambda site, step, x: x.norm(dim=-1), axes={"token": 64})
    """

    name: str
    sites: str
    """A shell-style pattern of site names, such as `block.*/image/branch.attn`."""
    function: Callable[[Site, int, Any], Any]
    axes: Mapping[str, int]
    """Axis names and sizes of the returned tensor, without the batch axis."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise InputError(f"SiteRecorder.name must be a plain name such as branch_norm; got {self.name!r}")
        taken = sorted({"prompt", "step", "site"} & set(self.axes))
        if taken:
            raise InputError(f"SiteRecorder.axes must not be named {taken[0]}: the store has an axis of that name")
        for axis, size in self.axes.items():
            at_least(f"SiteRecorder.axes[{axis!r}]", size, 1)

    def matches(self, site: Site) -> bool:
        """Whether a site matches the pattern."""
        return fnmatch.fnmatchcase(str(site), self.sites)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the function by its name."""
        function = f"{self.function.__module__}.{self.function.__qualname__}"
        return {"name": self.name, "sites": self.sites, "function": function, "axes": dict(self.axes)}


def at_least(field: str, value: Any, least: int) -> int:
    """`value` as an int; raises InputError unless it is an integer (also numpy's) of at least `least`."""
    number = as_index(value)
    if number is None or number < least:
        raise InputError(f"{field} must be an integer of at least {least}; got {value!r}")
    return number
