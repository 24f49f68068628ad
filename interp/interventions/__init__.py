"""Interventions: frozen values that change a state or a gate at chosen sites and steps. Pure torch.

The edits are `Zero`, `SetMean`, `Scale`, `Add`, `Clamp`, `Replace` and `Transport`, all with the same selections, and
`SwapConditioning` on what the model is conditioned on; `Displace`, `ZeroNormsKept` and `NormsAsIfZero` are controls for them.
Anything else with the three members of `Intervention` is an edit too. In traces and in `interp.generate` nnsight drives them;
`edited(model, edits)` puts the same edits on a pipeline as plain torch hooks, for calls of your own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
