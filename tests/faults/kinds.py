"""Kinds of faults. Each breaks one store in a way of its own, several times where it can, and says what happened; the campaign
finishes the store and compares it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from world import PROMPTS, World, at_a_random_moment, is_locked, kill, marks, rows_done, unlocked

import interp
from interp.base.errors import StoreError, TraceError
from interp.store.merging import merge
from interp.store.reader import StoreReader
from interp.store.verification import arrays_along, verify


@dataclasses.dataclass
class Broken:
    """What a kind of fault did to one store."""

    out: Path
    injected: int = 0
    lost: int = 0
    """Rows that were done before a fault and not after it, damaged ones apart."""
    doubled: int = 0
    """Rows that were done before and were marked done again."""
    tolerance: float = 0.0
    notes: list[str] = dataclasses.field(default_factory=list)
    """What failed, other than rows."""
    restore: Callable[[], None] = lambda: None
    """Takes back what was done to the pipeline, once the store is finished: until then it must be the same pipeline."""

    def expect(self, held: bool, note: str) -> None:
        """Note what does not hold."""
        if not held:
            self.notes.append(note)

    @contextlib.contextmanager
    def fault(self) -> Iterator[None]:
        """One fault: no done row may go, and none may be traced again."""
        before = marks(self.out)
        yield
        after = marks(self.out)
        self.injected += 1
        self.lost += len(before.keys() - after.keys())
        self.doubled += sum(after.get(row, when) != when for row, when in before.items())


Kind = Callable[[World, random.Random, int], Broken]


def killed_trace(world: World, draw: random.Random, times: int) -> Broken:
    """SIGKILL of the tracing process, again and again over one store."""
    broken = Broken(world.store())
    for _ in range(times):
        with broken.fault():
            child = world.tracing(broken.out)
            at_a_random_moment(broken.out, child, draw)
            kill(child)
            world.wait(child)
    return broken


def killed_shards(world: World, draw: random.Random, times: int) -> Broken:
    """SIGKILL of one of three processes that write one store side by side."""
    broken = Broken(world.store())
    for number in range(times):
        with broken.fault():
            children = [world.tracing(broken.out, shard=(index, 3)) for index in range(3)]
            at_a_random_moment(broken.out, children[number % 3], draw, more=0)
            kill(children[number % 3])
            codes = [world.wait(child) for child in children]
        others = [code for index, code in enumerate(codes) if index != number % 3]
        broken.expect(not any(others), f"another shard ended with {others}")
    return broken


def killed_repair(world: World, draw: random.Random, times: int) -> Broken:
    """SIGKILL while damaged rows are traced again."""
    broken = Broken(Path(shutil.copytree(world.whole, world.store())))
    for _ in range(times):
        _flip(draw.choice(_shards(broken.out, draw.randrange(len(PROMPTS)))), draw)
        child = world.fork(lambda: world.repair(broken.out))
        time.sleep(draw.uniform(0.0, 0.6))
        kill(child)
        world.wait(child)
        broken.injected += 1
    world.repair(broken.out)
    return broken


def killed_merge(world: World, draw: random.Random, times: int) -> Broken:
    """SIGKILL while stores are joined."""
    parts = [world.store() for _ in range(2)]
    for index, part in enumerate(parts):
        assert world.wait(world.tracing(part, shard=(index, 2))) == 0
    broken = Broken(world.store())
    for _ in range(times):
        with broken.fault():
            child = world.fork(lambda: merge(broken.out, parts))
            time.sleep(draw.uniform(0.0, 0.08))
            kill(child)
            world.wait(child)
    merge(broken.out, parts)
    broken.expect(len(rows_done(broken.out)) == len(PROMPTS), "merging again did not bring every row")
    return broken


def _stopped(number: int) -> Kind:
    def stop(world: World, draw: random.Random, times: int) -> Broken:
        broken = Broken(world.store())
        for _ in range(times):
            if len(rows_done(broken.out)) == len(PROMPTS):
                shutil.rmtree(broken.out)
            with broken.fault():
                child = world.cli(world.command(broken.out))
                ran = at_a_random_moment(broken.out, child, draw, more=draw.randrange(1, 3))
                kill(child, number)
                code = world.wait(child)
                broken.expect(code == (130 if ran else 0) or code in (0, 130), f"exit code {code}")
            broken.expect(verify(broken.out) == [], "a stopped store has faults")
        return broken

    return stop


def full_disk(world: World, draw: random.Random, times: int) -> Broken:
    """A disk that fills up while rows are written: a small one of its own where we may mount it, else a limit on file sizes."""
    broken = Broken(world.store())
    broken.out.parent.mkdir(parents=True)
    while broken.injected < times:
        if len(rows_done(broken.out)) > 8:
            shutil.rmtree(broken.out)
        with broken.fault(), _small_disk(broken.out.parent, draw) as limit:
            child = world.fork(lambda limit=limit: (limit(), world.trace(broken.out)))
            code = world.wait(child)
        whole = len(rows_done(broken.out)) == len(PROMPTS)
        broken.expect(code == (0 if whole else 1), f"on a full disk the trace ended with {code}")
        broken.injected -= whole  # it had room enough
    return broken


@contextlib.contextmanager
def _small_disk(folder: Path, draw: random.Random) -> Iterator[Callable[[], None]]:
    """A disk with little room in place of the folder, which holds what the folder held; its content goes back afterwards."""
    used = sum(file.stat().st_size // 4096 + 1 for file in folder.rglob("*"))  # pages
    room = (used + draw.randrange(20, 120)) * 4096
    kept = folder.with_name(folder.name + "-kept")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(_empty(kept))], capture_output=True)
    if mounted.returncode:
        kept.rmdir()
        size = draw.randrange(2000, 20000)
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return
    try:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        subprocess.run(["mount", "--bind", str(kept), str(folder)], check=True)
        yield lambda: None
        subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)
        subprocess.run(["umount", str(kept)], check=True)
        kept.rmdir()


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def read_only(world: World, draw: random.Random, times: int) -> Broken:
    """A store that may not be written: refused in one line, and left as it is."""
    broken = Broken(world.store())
    for _ in range(times):
        child = world.tracing(broken.out)
        at_a_random_moment(broken.out, child, draw, more=1)
        kill(child)
        world.wait(child)
        with broken.fault():
            before = _everything(broken.out)
            child = world.fork(lambda: (_nobody(broken.out), world.trace(broken.out)))
            code = world.wait(child)
            _somebody(broken.out)
            if len(rows_done(broken.out)) < len(PROMPTS):
                broken.expect(code == 1, "writing to a read-only store was no error")
            broken.expect(_everything(broken.out) == before, "a read-only store changed")
    return broken


def _everything(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def _nobody(out: Path) -> None:
    for path in (out.parent, out, *(path for path in out.rglob("*") if path.is_dir())):
        path.chmod(0o555)
    if os.geteuid() == 0:
        os.setuid(65534)  # root may write anything


def _somebody(out: Path) -> None:
    for path in (out.parent, out, *(path for path in out.rglob("*") if path.is_dir())):
        path.chmod(0o755)


def two_writers(world: World, draw: random.Random, times: int) -> Broken:
    """A second process that would write the same store: refused, and the first one's rows are whole."""
    broken = Broken(world.store())
    for _ in range(times):
        shutil.rmtree(broken.out, ignore_errors=True)
        first = world.tracing(broken.out)
        at_a_random_moment(broken.out, first, draw, more=1)
        kill(first, signal.SIGSTOP)  # it may not end while the second one starts
        with broken.fault():
            held = is_locked(broken.out)
            second = world.wait(world.cli(world.command(broken.out)))
            broken.expect(second == int(held), f"the second writer ended with {second}; the store was locked: {held}")
        kill(first, signal.SIGCONT)
        broken.expect(world.wait(first) == 0, "the first writer failed")
    return broken


def raising_prompt(world: World, draw: random.Random, times: int) -> Broken:
    """A prompt on which the pipeline raises: it is kept as failed, the rest goes on, and --retry-failed traces it."""
    broken = Broken(world.store())
    kind = type(world.model.pipe)
    original = kind.encode_prompt

    def encode(self: Any, prompt: Any, *given: Any, **more: Any) -> Any:
        if os.environ.get("INTERP_TEST_RAISES") in ([prompt] if isinstance(prompt, str) else prompt or []):
            raise ValueError("injected")
        return original(self, prompt, *given, **more)

    kind.encode_prompt = encode
    broken.restore = lambda: setattr(kind, "encode_prompt", original)
    for _ in range(times):
        shutil.rmtree(broken.out, ignore_errors=True)
        row = draw.randrange(len(PROMPTS))

        os.environ["INTERP_TEST_RAISES"] = PROMPTS[row]
        with unlocked(), broken.fault(), contextlib.suppress(TraceError):
            world.trace(broken.out)
            broken.notes.append("a failed row was no error")
        os.environ["INTERP_TEST_RAISES"] = ""
        run = interp.open_run(broken.out)
        broken.expect(list(run.failed) == [row], f"row {row} failed; the store says {list(run.failed)}")
        broken.expect(run.rows_done == len(PROMPTS) - 1, "another row failed too")
        world.trace(broken.out, retry_failed=True)
    broken.tolerance = 1e-5  # rows whose batch failed were traced one by one
    return broken


def damaged_mark(world: World, draw: random.Random, times: int) -> Broken:
    """The mark that says a row is done, damaged: it counts as not done, and the row is traced again."""
    broken = Broken(Path(shutil.copytree(world.whole, world.store())))
    for _ in range(times):
        row = draw.randrange(len(PROMPTS))
        mark = broken.out / "done" / "c" / str(row)
        mark.write_bytes(draw.choice([b"", b"\x00\x00", bytes([draw.randrange(2, 256)]), draw.randbytes(5)]))
        broken.injected += 1
        found = {(fault.row, fault.where) for fault in verify(broken.out)}
        broken.expect(found == {(row, "done")}, f"damage to row {row}'s mark: found {found}")
        world.trace(broken.out)
    return broken


def _damaged(how: Callable[[Path, random.Random], None]) -> Kind:
    def damage(world: World, draw: random.Random, times: int) -> Broken:
        broken = Broken(Path(shutil.copytree(world.whole, world.store())))
        for _ in range(times):
            row = draw.randrange(len(PROMPTS))
            shard = draw.choice(_shards(broken.out, row))
            how(shard, draw)
            broken.injected += 1
            where = str(shard.relative_to(broken.out)).split("/c/")[0]
            found = {(fault.row, fault.where) for fault in verify(broken.out)}
            broken.expect(found == {(row, where)}, f"damage to row {row} of {where}: found {found}")
            with contextlib.suppress(StoreError):
                broken.expect(_reads_as_it_was(world, broken.out, where), f"damaged {where} was read without an error")
            world.repair(broken.out)
        return broken

    return damage


def _reads_as_it_was(world: World, out: Path, where: str) -> bool:
    import numpy as np

    return bool(np.array_equal(StoreReader(out).stored(where)[...], world.truth[where], equal_nan=True))


def _shards(out: Path, row: int) -> list[Path]:
    """The files of one row, but for its mark."""
    places = [out / name / "c" / str(row) for name, _ in arrays_along(StoreReader(out), "prompt")]
    return [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]


def _flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(content))


def _cut(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(1, file.stat().st_size)])


def _with_workers(victim: str) -> Kind:
    """SIGKILL of a worker, of the scheduler, or of the client; the same command goes on."""

    def run(world: World, draw: random.Random, times: int) -> Broken:
        broken = Broken(world.store(), tolerance=1e-5)
        for _ in range(times):
            if len(rows_done(broken.out)) == len(PROMPTS):
                shutil.rmtree(broken.out)
            with broken.fault(), _cluster(world.folder) as (address, processes):
                client = subprocess.Popen(
                    [sys.executable, "-m", "interp", *world.command(broken.out, "--scheduler", address, "--device", "cpu")],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
                at_a_random_moment(broken.out, client.pid, draw, more=draw.randrange(1, 3))
                kill({"worker": processes[1].pid, "scheduler": processes[0].pid, "client": client.pid}[victim])
                client.wait(180)
                whole = len(rows_done(broken.out)) == len(PROMPTS)
                wanted = {"worker": (0,), "scheduler": (0, 1) if whole else (1,), "client": (0, -signal.SIGKILL)}[victim]
                broken.expect(client.returncode in wanted, f"{victim} killed: the client ended with {client.returncode}")
        return broken

    return run


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, without nannies: what is killed stays dead."""
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    base = [sys.executable, "-m"]
    processes = [
        subprocess.Popen(
            [*base, "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"], **quiet
        )
    ]
    try:
        deadline = time.monotonic() + 120
        while not file.exists() or not file.read_text().rstrip().endswith("}"):
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.05)
        import json

        address = str(json.loads(file.read_text())["address"])
        words = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes += [subprocess.Popen([*base, *words, "--death-timeout", "5"], env=environment, **quiet) for _ in range(2)]
        yield address, processes
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


KINDS: dict[str, tuple[Kind, int, int]] = {
    "SIGKILL of the tracing process": (killed_trace, 40, 4),
    "SIGKILL of one of three shards": (killed_shards, 15, 3),
    "SIGKILL during a repair": (killed_repair, 10, 5),
    "SIGKILL during a merge": (killed_merge, 10, 5),
    "SIGKILL of a dask worker": (_with_workers("worker"), 8, 1),
    "SIGKILL of the dask scheduler": (_with_workers("scheduler"), 8, 2),
    "SIGKILL of the dask client": (_with_workers("client"), 8, 2),
    "SIGTERM": (_stopped(signal.SIGTERM), 10, 2),
    "Ctrl-C (SIGINT)": (_stopped(signal.SIGINT), 10, 2),
    "full disk": (full_disk, 10, 2),
    "read-only store": (read_only, 6, 2),
    "two writers": (two_writers, 10, 2),
    "prompt that raises": (raising_prompt, 10, 2),
    "damaged mark of a row": (damaged_mark, 10, 5),
    "flipped bit": (_damaged(_flip), 30, 5),
    "truncated file": (_damaged(_cut), 20, 5),
    "empty file": (_damaged(lambda file, draw: file.write_bytes(b"") and None), 10, 5),
    "missing file": (_damaged(lambda file, draw: file.unlink()), 10, 5),
}
"""By name: what breaks, how often in the campaign, and how often in one store."""
