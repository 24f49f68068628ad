"""The demo model: its procedural world, its parts, its training, its weights."""
