"""The store: zarr v3 on disk, xarray in memory. No torch, and no knowledge of tracing."""
