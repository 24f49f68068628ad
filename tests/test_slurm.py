"""The docs' recipe for Slurm (dask-jobqueue), against stand-ins for sbatch and scancel that run jobs on this machine."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import interp
from interp.store.verification import verify

pytestmark = pytest.mark.processes
TEXTS = ["a red cat", "two dog", "the green circle", "a photo of a dog"]
SBATCH = """\
#!{python}
import subprocess, sys
script = sys.argv[-1]
job = subprocess.Popen(["bash", script], stdout=open(script + ".out", "w"), stderr=subprocess.STDOUT, start_new_session=True)
open({folder!r} + f"/{{job.pid}}.job", "w").write(open(script).read())
print(f"Submitted batch job {{job.pid}}")
"""
SCANCEL = """\
#!{python}
import os, signal, sys
for job in sys.argv[1:]:
    try:
        os.killpg(int(job), signal.SIGKILL)
    except (OSError, ValueError):
        pass
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the jobs that were submitted."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        file = commands / name
        file.write_text(text.format(python=sys.executable, folder=str(jobs)))
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return jobs


def recipe() -> str:
    """The Python of docs/cluster.md's Slurm section, as it stands there."""
    text = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(from dask_jobqueue.*?)```", text, re.DOTALL)
    assert found, "docs/cluster.md has a recipe"
    return found[1]


def test_the_recipe_of_the_docs_runs(slurm: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """With the stand-in's names for the model, the prompts and the folders, and without a card."""
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS))
    code = recipe()
    for theirs, ours in {
        '"flux"': repr(str(tiny_folder)),
        '"prompts.txt"': repr(str(tmp_path / "prompts.txt")),
        '"/shared/flux.zarr"': repr(str(tmp_path / "run.zarr")),
        'device="cuda"': 'device="cpu"',
        'memory="64GB"': f'memory="2GB", local_directory={str(tmp_path / "spill")!r}',
        "jobs=8": "jobs=2",
    }.items():
        assert theirs in code, theirs
        code = code.replace(theirs, ours)
    program = tmp_path / "program.py"
    program.write_text('if __name__ == "__main__":\n' + textwrap.indent(code, "    "))
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, cwd=tmp_path, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    scripts = [file.read_text() for file in slurm.glob("*.job")]
    assert len(scripts) == 2
    assert all("#SBATCH -p gpu" in script and "#SBATCH --gres=gpu:1" in script for script in scripts)
    run = interp.open_run(tmp_path / "run.zarr")
    assert run.rows_done == 4
    assert verify(run.path) == []
    model = interp.load(tiny_folder, dtype="bfloat16")
    alone = interp.trace(model, TEXTS, out=tmp_path / "alone.zarr")
    assert np.allclose(run.stats["mean_abs"], alone.stats["mean_abs"], rtol=2e-2, atol=1e-3, equal_nan=True), "bfloat16"
