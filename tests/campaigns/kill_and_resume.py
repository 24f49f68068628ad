"""The long form of the kill-and-resume test: N SIGKILLs at random moments over one run, each with work in flight.

    python tests/campaigns/kill_and_resume.py [--kills 20]

The run is then finished, and every array of its store compared, bit for bit, with an uninterrupted run's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import test_resume

from interp.models import tiny


def main() -> None:
    """Run the campaign and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    test_resume.PROMPTS[:] = [f"a red circle and {number} blue square" for number in range(10 * chosen.kills)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny.build("sd3", folder / "model")
        out, counts = test_resume.kill_and_resume(model, folder, chosen.kills, chosen.seed)
        whole = folder / "whole.zarr"
        assert test_resume.start(model, folder / "prompts.txt", whole).wait() == 0
        test_resume.assert_same_store(out, whole)
    print(f"{len(counts)} kills over {len(test_resume.PROMPTS)} rows; rows done at each kill: {counts}")
    print("the finished store equals an uninterrupted one bit for bit")


if __name__ == "__main__":
    main()
