"""Interventions: frozen values that change a state or a gate at chosen sites and steps. Pure torch.

The edits are `Zero`, `SetMean`, `Scale`, `Add`, `Clamp`, `Replace` and `Transport`, all with the same selections, and
`SwapConditioning` on the model's conditioning; `Displace`, `DisplaceAsFar`, `ZeroNormsKept` and `NormsAsIfZero` are controls.
Any other object with the three members of `Intervention` is an edit too. Traces and `interp.generate` apply edits through
nnsight; `edited(model, edits)` applies the same edits as plain torch hooks, for your own calls of the pipeline.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
