"""Run the suite of `make test` as other machines would: other instruction sets, thread counts and Python versions.

    python tests/any_machine.py                          # torch's kernels without vectors, with AVX2, AVX-512; 1 and 2 threads
    python tests/any_machine.py --python python3.13      # the same suite on another Python, in an environment of its own
    python tests/any_machine.py -- tests/families -x     # pytest's own arguments after --

It prints a line for each setting: its name, pytest's last line, seconds. Instruction sets that this CPU lacks are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTRUCTIONS = ("default", "avx2", "avx512")
MARKS = "not slow and not gpu and not browser and not notebook and not quantized and not processes and not long and not full"


def environments() -> dict[str, dict[str, str]]:
    """Settings by name: each instruction set with one thread, and each number of threads with this machine's own."""
    found = {f"{name}, 1 thread": {"ATEN_CPU_CAPABILITY": name, "OMP_NUM_THREADS": "1"} for name in INSTRUCTIONS if has(name)}
    return {**found, "this machine's, 2 threads": {"OMP_NUM_THREADS": "2"}}


def has(instructions: str) -> bool:
    """Whether torch takes this instruction set here."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    asked = {**os.environ, "ATEN_CPU_CAPABILITY": instructions}
    taken = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=True).stdout
    return taken.strip().lower() == instructions


def run(python: str, arguments: list[str], environment: dict[str, str]) -> tuple[bool, str, float]:
    """Whether pytest passed, its last line, and seconds."""
    started = time.monotonic()
    command = [python, "-m", "pytest", "-q", "-m", MARKS, *arguments]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    lines = result.stdout.strip().splitlines() or [result.stderr.strip()[-200:]]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return result.returncode == 0, "; ".join([lines[-1], *failed]), time.monotonic() - started


def environment_of(python: str) -> str:
    """The Python of an environment made with another interpreter: `make install` in .venv-NAME."""
    venv = f".venv-{Path(python).name}"
    subprocess.run(["make", "install", f"PYTHON={python}", f"VENV={venv}"], cwd=ROOT, check=True)
    return str(ROOT / venv / "bin" / "python")


def main() -> int:
    """Run every setting; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], help="another interpreter, instead of other instructions")
    parser.add_argument("--workers", type=int, default=2, help="processes of pytest-xdist, over the threads of each")
    parser.add_argument("arguments", nargs="*", help="arguments for pytest, after --")
    given = parser.parse_args()
    settings = [(f"{name}", environment_of(name), {"OMP_NUM_THREADS": "1"}) for name in given.python]
    settings = settings or [(name, sys.executable, environment) for name, environment in environments().items()]
    green = True
    for name, python, environment in settings:
        workers = max(1, given.workers // int(environment["OMP_NUM_THREADS"]))  # more threads than cores wait for each other
        arguments = ["-n", str(workers), "--dist", "loadfile", *given.arguments]
        passed, said, seconds = run(python, arguments, environment)
        green = green and passed
        print(f"{'ok    ' if passed else 'FAILED'} {name}: {said} ({seconds:.0f} s)", flush=True)
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
