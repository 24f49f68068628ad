"""The store: zarr v3 on disk, xarray in memory. Imports neither torch nor the tracing modules."""
