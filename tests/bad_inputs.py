"""Bad inputs and what each is answered: one table for the test (`test_cli.py`) and for the docs.

`python tests/bad_inputs.py > docs/errors.md` runs every one and writes the page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

TRACE = "trace --model {tiny} --prompts {prompts} --out {out}"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is wrong, the command, the exit code, and a pattern its one line must match."""

    wrong: str
    command: str
    pattern: str
    code: int = 2
    prepare: Callable[[Path], None] = lambda folder: None


def write(name: str, data: bytes | str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data) and None


def broken_folder(name: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        shutil.copytree(folder / "tiny", folder / name)
        damage(folder / name)

    return prepare


def edit_json(path: str, **values: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / path
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return damage


def pickled(folder: Path) -> None:
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def truncated(folder: Path) -> None:
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:500])


def not_interp_json(folder: Path) -> None:
    (folder / "interp.json").write_text('{"stepz": 3}')


def without_tensor(path: str, ending: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / path)
        del tensors[next(name for name in tensors if name.endswith(ending))]
        save_file(tensors, folder / path, metadata={"format": "pt"})

    return damage


def tiny_dit(folder: Path) -> None:
    from interp.models import tiny

    tiny.build("dit", folder / "dit")


def finished_store(folder: Path) -> None:
    run([*TRACE.format(**places(folder)).split(), "--steps", "1"])


def store_of_schema_99(folder: Path) -> None:
    finished_store(folder)
    file = folder / "out.zarr" / "zarr.json"
    values = json.loads(file.read_text())
    values["attributes"]["schema"] = 99
    file.write_text(json.dumps(values))


CASES = [
    # prompts
    Case("prompts file does not exist", "trace --model {tiny} --prompts {folder}/no.txt", "no.txt does not exist"),
    Case("prompts is a folder", "trace --model {tiny} --prompts {folder}", "must be a file"),
    Case(
        "prompts file is empty",
        "trace --model {tiny} --prompts {folder}/x.txt",
        "at least one prompt",
        prepare=write("x.txt", ""),
    ),
    Case(
        "only blank lines and comments",
        "trace --model {tiny} --prompts {folder}/x.txt",
        "at least one prompt",
        prepare=write("x.txt", "\n# a cat\n  \n"),
    ),
    Case(
        "not UTF-8",
        "trace --model {tiny} --prompts {folder}/x.txt",
        "must be UTF-8; byte 3 is 0xe9",
        prepare=write("x.txt", b"caf\xe9"),
    ),
    Case(
        "a picture as prompts",
        "trace --model {tiny} --prompts {folder}/x.png",
        "must be UTF-8",
        prepare=write("x.png", b"\x89PNG\r\n\x1a\n\x00\xff"),
    ),
    Case("NUL bytes", "trace --model {tiny} --prompts {folder}/x.txt", "NUL character", prepare=write("x.txt", b"a\x00b")),
    Case(
        "table without a prompt column",
        "trace --model {tiny} --prompts {folder}/x.csv",
        "needs a column named prompt; has 'text', 'id'",
        prepare=write("x.csv", "text,id\na,1\n"),
    ),
    Case(
        "broken JSON line",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        "line 2 must be JSON",
        prepare=write("x.jsonl", '{"prompt": "a"}\n{"prompt": \n'),
    ),
    Case(
        "JSON line that is no object",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        "line 1 must be an object",
        prepare=write("x.jsonl", '["a"]\n'),
    ),
    Case(
        "JSON line without a prompt",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        "needs a column named prompt",
        prepare=write("x.jsonl", '{"text": "a"}\n'),
    ),
    Case(
        "JSON prompt that is no text",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        "must be a text; number 0 is 7",
        prepare=write("x.jsonl", '{"prompt": 7}\n'),
    ),
    Case(
        "half a surrogate pair",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        "must be whole Unicode; number 0",
        prepare=write("x.jsonl", '{"prompt": "a \\ud83d"}\n'),
    ),
    Case(
        "a lone quotation mark in a .csv",
        "trace --model {tiny} --prompts {folder}/x.csv",
        "quotation marks must come in pairs",
        prepare=write("x.csv", 'prompt\n"a red cat\nb dog\n'),
    ),
    Case(
        "a .json file",
        "trace --model {tiny} --prompts {folder}/x.json",
        "a .json file is not read; write one object a line into a .jsonl file",
        prepare=write("x.json", '["a cat",\n"a dog"]'),
    ),
    # model
    Case("unknown model name", "trace --model sdx --prompts {prompts}", "no known name and no folder; known names: demo"),
    Case("model folder does not exist", "trace --model ./nowhere/here --prompts {prompts}", "no known name and no folder"),
    Case("model folder is no pipeline", "trace --model {folder} --prompts {prompts}", "no model_index.json"),
    Case(
        "model is a single file", "trace --model {prompts} --prompts {prompts}", "is a file; give a diffusers pipeline folder"
    ),
    Case(
        "hub model that is not on this machine",
        "trace --model sd3 --prompts {prompts} --local-files-only",
        "not on this machine and cannot be fetched",
    ),
    Case(
        "hub id that does not exist, offline",
        "trace --model nobody/nothing --prompts {prompts} --local-files-only",
        "not on this machine and cannot be fetched",
    ),
    Case(
        "a class-conditional model given a text",
        "trace --model {folder}/dit --prompts {prompts}",
        "prompt must be a class number \\(0\\.\\.999\\) or label .*; got 'a red cat'",
        prepare=tiny_dit,
    ),
    Case(
        "another size than the one a model draws",
        "trace --model {folder}/dit --prompts {folder}/x.txt --height 128",
        "height and width must be 64 x 64",
        prepare=lambda folder: (tiny_dit(folder), write("x.txt", "cat")(folder))[0],
    ),
    Case(
        "embedded guidance for a model that has none",
        TRACE + " --embedded-guidance 3",
        "embedded_guidance has no effect on .*; its settings: max_sequence_length",
    ),
    Case(
        "folder of an unsupported pipeline class",
        "trace --model {folder}/m --prompts {prompts}",
        "cannot be (loaded|traced)",
        prepare=broken_folder("m", edit_json("model_index.json", _class_name="DDIMPipeline")),
    ),
    Case(
        "folder of a class nobody knows",
        "trace --model {folder}/m --prompts {prompts}",
        "is a NoSuchPipeline, which cannot be traced; supported: AuraFlowPipeline, ChromaPipeline",
        prepare=broken_folder("m", edit_json("model_index.json", _class_name="NoSuchPipeline")),
    ),
    Case("pickled weights", "trace --model {folder}/m --prompts {prompts}", "safetensors", prepare=broken_folder("m", pickled)),
    Case(
        "truncated weights",
        "trace --model {folder}/m --prompts {prompts}",
        "has damaged weights",
        prepare=broken_folder("m", truncated),
    ),
    Case(
        "missing part of the pipeline",
        "trace --model {folder}/m --prompts {prompts}",
        "has no vae folder, which its model_index.json names",
        prepare=broken_folder("m", lambda folder: shutil.rmtree(folder / "vae")),
    ),
    Case(
        "a tensor missing from a text encoder",
        "trace --model {folder}/m --prompts {prompts}",
        "its files lack weights .*q_proj",
        prepare=broken_folder("m", without_tensor("text_encoder/model.safetensors", "q_proj.weight")),
    ),
    Case(
        "a tensor missing from the transformer",
        "trace --model {folder}/m --prompts {prompts}",
        "weights of its transformer are incomplete",
        prepare=broken_folder("m", without_tensor("transformer/diffusion_pytorch_model.safetensors", "norm_out.linear.bias")),
    ),
    Case(
        "tokenizer without a vocabulary",
        "trace --model {folder}/m --prompts {prompts}",
        "holds no vocabulary",
        prepare=broken_folder("m", lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink()),
    ),
    Case(
        "interp.json with a setting the model has not",
        "trace --model {folder}/m --prompts {prompts}",
        "its interp.json gives tempo=3",
        prepare=broken_folder("m", edit_json("interp.json", settings={"tempo": 3})),
    ),
    Case(
        "broken interp.json",
        "trace --model {folder}/m --prompts {prompts}",
        "must hold the fields",
        prepare=broken_folder("m", not_interp_json),
    ),
    Case("unknown dtype", TRACE + " --dtype int8", "dtype must be one of float32, bfloat16, float16; got 'int8'"),
    Case("unknown device", TRACE + " --device gpu", "device 'gpu' cannot be used here"),
    Case("device that is not there", TRACE + " --device cuda:7", "device 'cuda:7' cannot be used here"),
    Case("unknown offload", TRACE + " --offload disk", "offload must be one of none, model, sequential, group"),
    Case(
        "offload without an accelerator",
        TRACE + " --offload sequential --device cpu",
        "offload='sequential' does not work on device 'cpu'",
    ),
    # sizes and numbers
    Case("zero steps", TRACE + " --steps 0", "steps must be an integer of at least 1; got 0"),
    Case("steps that are no number", TRACE + " --steps many", "Invalid value for '--steps'"),
    Case("negative seed", TRACE + " --seed -1", "seed must be an integer of at least 0; got -1"),
    Case("seed beyond 63 bits", TRACE + " --seed 9223372036854775807", "seed must leave room below 2\\*\\*63"),
    Case("zero repeats", TRACE + " --repeats 0", "repeats must be an integer of at least 1"),
    Case("zero batch size", TRACE + " --batch-size 0", "batch_size must be an integer of at least 1"),
    Case("height off the patch grid", TRACE + " --height 60", "height must be a multiple of 8 pixels .*got 60 \\(try 56\\)"),
    Case("width beyond the model's positions", TRACE + " --width 4096", "width must be at most 128 pixels"),
    Case("negative height", TRACE + " --height -64", "height must be an integer of at least 1"),
    Case(
        "sequence too long", TRACE + " --max-sequence-length 9999", "max_sequence_length must be a number in 1..512; got 9999"
    ),
    # what to record
    Case(
        "unknown thing to record",
        TRACE + " --record stats,attention",
        "record must be a list out of stats,gates,hidden,modulation",
    ),
    Case("nothing to record", TRACE + " --record ,", "record must be a list"),
    Case("blocks without hidden", TRACE + " --blocks 1", "add hidden to --record"),
    Case(
        "block out of range", TRACE + " --record hidden --blocks 40", "blocks must lie in -4\\.\\.3 \\(there are 4\\); got 40"
    ),
    Case("step out of range", TRACE + " --record hidden --record-steps 0,99", "steps must lie in -4\\.\\.3 .*got 99"),
    Case("blocks that are no numbers", TRACE + " --record hidden --blocks first", 'blocks must read like "0,6,12-20"'),
    Case("range that goes down", TRACE + " --record hidden --blocks 3-1", "a range must go up; got '3-1'"),
    # stores
    Case("store of other steps", TRACE + " --steps 3", "holds another run: its steps is 1, yours 3", prepare=finished_store),
    Case("store of other seeds", TRACE + " --steps 1 --seed 4", "its seed is 0, yours 4", prepare=finished_store),
    Case(
        "store of other prompts",
        "trace --model {tiny} --prompts {folder}/y.txt --out {out} --steps 1",
        "its prompts is",
        prepare=lambda folder: (finished_store(folder), write("y.txt", "other")(folder))[0],
    ),
    Case(
        "store of another dtype",
        TRACE + " --steps 1 --dtype bfloat16",
        'its dtype is "float32", yours "bfloat16"',
        prepare=finished_store,
    ),
    Case("existing store with --no-resume", TRACE + " --steps 1 --no-resume", "resume is off", prepare=finished_store),
    Case("store of a newer schema", TRACE + " --steps 1", "has schema 99", 1, store_of_schema_99),
    Case("out is a folder of something else", "trace --model {tiny} --prompts {prompts} --out {folder}", "is not a store"),
    Case(
        "out lies under a file",
        "trace --model {tiny} --prompts {prompts} --out {prompts}/x.zarr",
        "Not a directory|File exists",
        1,
    ),
    Case("info of nothing", "info {folder}/no.zarr", "does not exist; make one with `interp trace"),
    Case("info of a folder", "info {folder}", "no zarr.json"),
    Case("info of a store of a newer schema", "info {out}", "install a newer interp", 1, store_of_schema_99),
    Case("out that names no folder", "trace --model {tiny} --prompts {prompts} --out .", "out must name the store's folder"),
    Case("out that is the root", "trace --model {tiny} --prompts {prompts} --out /", "out must name the store's folder"),
    Case("a name too long for the system", "info " + "x" * 300, "cannot be looked at: File name too long"),
    Case("a model name too long for the system", "trace --prompts {prompts} --model " + "x" * 300, "File name too long"),
    # the command line itself
    Case("no such command", "trase", "No such command 'trase'. Did you mean 'trace'"),
    Case("no such option", TRACE + " --step 3", "No such option"),
    Case("missing --prompts", "trace --model {tiny}", "Missing option '--prompts'"),
    Case("missing argument", "info", "Missing argument 'run'"),
    Case("unknown demo size", "demo train --out {folder}/d --size huge", "size must be one of base, small; got 'huge'"),
    Case("a file where a folder is wanted", "demo world --out {prompts}", "out must be a folder that can be made"),
    Case("training on a device that is not there", "demo train --out {folder}/d --device gpu", "device 'gpu' cannot be used"),
    Case("a range beyond reason", TRACE + " --record hidden --blocks 0-99999999", "a range must hold at most 1000000 indices"),
    Case("no scenes", "demo world --out {folder}/w --count 0", "count must be an integer of at least 1"),
]


def places(folder: Path) -> dict[str, str]:
    return {name: str(folder / file) for name, file in (("tiny", "tiny"), ("prompts", "prompts.txt"), ("out", "out.zarr"))} | {
        "folder": str(folder)
    }


def set_up(folder: Path, tiny: Path) -> None:
    """A folder with a tiny model and a prompts file in it."""
    (folder / "tiny").symlink_to(tiny, target_is_directory=True)
    (folder / "prompts.txt").write_text("a red cat\n")


def run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process."""
    from interp.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
        code = 1
        try:
            main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def answer(case: Case, folder: Path, tiny: Path) -> tuple[int, str, str]:
    """Run a case in a fresh folder."""
    set_up(folder, tiny)
    case.prepare(folder)
    return run(case.command.format(**places(folder)).split())


def page() -> str:
    """The docs page, from real answers."""
    from bad_analyses import CASES as ANALYSING
    from bad_evaluations import CASES as EVALUATING
    from bad_experiments import CASES as EXPERIMENTS

    from interp.models import tiny

    lines = [
        "# What bad input is answered",
        "",
        "Each of these was run; the answer is what the command printed on stderr, in one line, paths shortened. Exit code 2 is",
        "bad input, 1 a failure. `--debug` anywhere on the line adds the traceback. Written by",
        "`python tests/bad_inputs.py`; the same table is a test.",
        "",
        "| wrong | command | exit | answer |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as root:
        model = tiny.build("sd3", Path(root) / "tiny-model")
        for number, case in enumerate([*CASES, *ANALYSING, *EXPERIMENTS, *EVALUATING]):
            folder = Path(root) / f"case{number}"
            folder.mkdir()
            code, _, err = answer(case, folder, model)
            text = err.strip().replace(str(folder), "FOLDER").replace(str(model), "FOLDER/tiny").replace("|", "\\|")
            text = " ".join(text.split())
            command = case.command.format(**places(Path("FOLDER")))
            lines.append(f"| {case.wrong} | `interp {command}` | {code} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
