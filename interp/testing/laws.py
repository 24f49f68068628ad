"""`FamilyTests`: laws that every model family must satisfy. Inherit it in your own test file; pytest runs the laws.

    class TestMine(FamilyTests):
        name = "mine"

        def load(self, folder):                       # a tiny model: a few blocks, random weights
            return interp.wrap(my_tiny_pipeline())

        def hooks(self, transformer, seen):           # the independent reference, from the model's source
            for index, block in enumerate(transformer.blocks):
                seen.states_after(block, index)
                seen.gates_after(block.norm1, index, ["image"], {"attn": 1, "mlp": 4})

        def no_prompt(self, pipe, settings):          # how its own guidance encodes no prompt
            return {"encoder_hidden_states": pipe.encode_prompt("")[0]}

`interp.testing.family.Family` lists what a family may declare. The package's families are in tests/families/.
"""

from interp.testing.anatomy_laws import AnatomyLaws
from interp.testing.edit_laws import EditLaws
from interp.testing.trace_laws import TraceLaws


class FamilyTests(AnatomyLaws, TraceLaws, EditLaws):
    """Laws of anatomy, traces, edits and guidance."""
