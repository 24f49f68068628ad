"""Seeds of pictures: of its own for every prompt and repeat, or shared by all prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from interp.base.errors import InputError
from interp.base.sites import parse_indices

OWN, SHARED = "own", "shared"


def check_seeds(seeds: Any) -> str | tuple[int, ...]:
    """The seeds of a plan: own, shared, or different integers of at least 0, also as text such as "0-3" or "1,7"."""
    if isinstance(seeds, str) and seeds in (OWN, SHARED):
        return seeds
    try:
        listed = parse_indices(seeds, "seeds") or ()
    except InputError:
        listed = ()
    if not listed or min(listed) < 0 or len(set(listed)) < len(listed):
        raise InputError(f'seeds must be own, shared, or different integers of at least 0, such as "0-3"; got {seeds!r}')
    return tuple(int(seed) for seed in listed)


def seed_of(seeds: str | Sequence[int], base: int, text: str, repeat: int) -> int:
    """The seed of a prompt's picture.

    own      the first 32 bits of the SHA-256 of "BASE/REPEAT/TEXT", with the text in lower case and single spaces
    shared   base + repeat
    a list   its element number `repeat`
    """
    if seeds == OWN:
        return int.from_bytes(hashlib.sha256(f"{base}/{repeat}/{text}".encode()).digest()[:4], "big")
    if seeds == SHARED:
        return base + repeat
    if repeat >= len(seeds):
        raise InputError(f"seeds: {len(seeds)} are listed for each prompt, and {text!r} is given more than once; give it once")
    return int(seeds[repeat])
