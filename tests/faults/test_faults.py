"""The short form of the campaign (docs/faults.md): a fault or two of every kind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.processes


def names() -> list[str]:
    """The kinds, without importing what must be imported in a process of its own."""
    import ast

    tree = ast.parse((HERE / "kinds.py").read_text(encoding="utf-8"))
    tables = [node for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "KINDS"]
    return [ast.literal_eval(key) for key in tables[0].value.keys]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", names())
def test_no_row_is_lost_doubled_or_wrong(kind: str) -> None:
    """In a process of its own: it forks, and must hold no threads."""
    seed = str(random.Random(kind).randrange(1000))
    command = [sys.executable, str(HERE / "campaign.py"), "--share", "0.05", "--seed", seed, "--kind", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["kinds"][kind]
    assert found["injected"] >= 1
    assert (found["lost"], found["doubled"], found["wrong"], found["notes"]) == (0, 0, [], [])
