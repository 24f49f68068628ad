"""A stored array: its axes, chunks and codecs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

LARGE = 2**20  # bytes
CHECKED = (Crc32cCodec(),)  # float32 means lose a seventh by compression, which takes as long as all else of writing
CODECS = (BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.shuffle), Crc32cCodec())


def encoding(dataset: xr.Dataset) -> dict[str, dict[str, Any]]:
    """xarray's encoding of arrays that are written at once: with checksums; large ones, such as a summary's, uncompressed."""
    return {str(name): {"compressors": CHECKED if own.nbytes > LARGE else CODECS} for name, own in dataset.variables.items()}


@dataclasses.dataclass(frozen=True)
class Variable:
    """A large array: its sizes, chunks and shards by axis name."""

    sizes: dict[str, int]
    chunk: dict[str, int]
    shard: dict[str, int] | None
    dtype: str = "float32"
    compressed: bool = True

    @classmethod
    def of(
        cls, sizes: dict[str, int], *single: str, sharded: bool = False, dtype: str = "float32", compressed: bool = True
    ) -> Variable:
        """Chunks of one index along the axes `single` and whole along the others; `sharded` has one shard per prompt."""
        chunk = {**sizes, **dict.fromkeys(single, 1)}
        return cls(sizes, chunk, {**sizes, "prompt": 1} if sharded else None, dtype, compressed)

    @property
    def bytes(self) -> int:
        """Size before compression."""
        return int(np.prod(list(self.sizes.values()), dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def create(self, group: zarr.Group, name: str, attributes: dict[str, Any]) -> None:
        """Create the empty array."""
        group.create_array(
            name,
            shape=tuple(self.sizes.values()),
            dtype=self.dtype,
            chunks=tuple(max(size, 1) for size in self.chunk.values()),
            shards=None if self.shard is None else tuple(max(size, 1) for size in self.shard.values()),
            compressors=list(CODECS if self.compressed else CHECKED),
            fill_value=np.nan if self.dtype == "float32" else 0,
            dimension_names=tuple(self.sizes),
            attributes=attributes,
        )
