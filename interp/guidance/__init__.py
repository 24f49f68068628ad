"""Guidance: degraded branches (edits on copies of the cond or uncond rows) and a rule that combines them."""
