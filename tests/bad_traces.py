"""Bad prompts, sizes, records, stores and options: a part of the table of `bad_inputs.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bad_inputs import TRACE, Case, finished_store, write


def store_of_schema_99(folder: Path) -> None:
    finished_store(folder)
    made = (folder / "out.zarr").resolve()
    (folder / "out.zarr").unlink()
    shutil.copytree(made, folder / "out.zarr")
    file = folder / "out.zarr" / "zarr.json"
    values = json.loads(file.read_text())
    values["attributes"]["schema"] = 99
    file.write_text(json.dumps(values))


PROMPTS = [
    Case("prompts file does not exist", "trace --model {tiny} --prompts {folder}/no.txt", ("prompts", "FOLDER/no.txt")),
    Case("prompts is a folder", "trace --model {tiny} --prompts {folder}", ("prompts", "file", "folder", "FOLDER")),
    Case(
        "prompts file is empty",
        "trace --model {tiny} --prompts {folder}/x.txt",
        ("prompts", "FOLDER/x.txt", "line"),
        prepare=write("x.txt", ""),
    ),
    Case(
        "only blank lines and comments",
        "trace --model {tiny} --prompts {folder}/x.txt",
        ("prompts", "FOLDER/x.txt", "line"),
        prepare=write("x.txt", "\n# a cat\n  \n"),
    ),
    Case(
        "not UTF-8",
        "trace --model {tiny} --prompts {folder}/x.txt",
        ("prompts", "FOLDER/x.txt", "UTF-8", 3, "0xe9"),
        prepare=write("x.txt", b"caf\xe9"),
    ),
    Case(
        "a picture as prompts",
        "trace --model {tiny} --prompts {folder}/x.png",
        ("prompts", "FOLDER/x.png", "UTF-8", 0, "0x89"),
        prepare=write("x.png", b"\x89PNG\r\n\x1a\n\x00\xff"),
    ),
    Case(
        "NUL bytes",
        "trace --model {tiny} --prompts {folder}/x.txt",
        ("FOLDER/x.txt", "NUL", 0),
        prepare=write("x.txt", b"a\x00b"),
    ),
    Case(
        "table without a prompt column",
        "trace --model {tiny} --prompts {folder}/x.csv",
        ("FOLDER/x.csv", "column", "prompt", "text", "id"),
        prepare=write("x.csv", "text,id\na,1\n"),
    ),
    Case(
        "broken JSON line",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        ("FOLDER/x.jsonl", "JSON", 2, 12),
        prepare=write("x.jsonl", '{"prompt": "a"}\n{"prompt": \n'),
    ),
    Case(
        "JSON line that is no object",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        ("FOLDER/x.jsonl", 1, '["a"]', '{"prompt": "..."}'),
        prepare=write("x.jsonl", '["a"]\n'),
    ),
    Case(
        "JSON line without a prompt",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        ("FOLDER/x.jsonl", "column", "prompt", "text"),
        prepare=write("x.jsonl", '{"text": "a"}\n'),
    ),
    Case(
        "JSON prompt that is no text",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        ("FOLDER/x.jsonl", "prompt", 0, 7),
        prepare=write("x.jsonl", '{"prompt": 7}\n'),
    ),
    Case(
        "half a surrogate pair",
        "trace --model {tiny} --prompts {folder}/x.jsonl",
        ("FOLDER/x.jsonl", "Unicode", "surrogate", 0),
        prepare=write("x.jsonl", '{"prompt": "a \\ud83d"}\n'),
    ),
    Case(
        "a lone quotation mark in a .csv",
        "trace --model {tiny} --prompts {folder}/x.csv",
        ("FOLDER/x.csv", "quotation", '""'),
        prepare=write("x.csv", 'prompt\n"a red cat\nb dog\n'),
    ),
    Case(
        "a .json file",
        "trace --model {tiny} --prompts {folder}/x.json",
        ("FOLDER/x.json", ".jsonl"),
        prepare=write("x.json", '["a cat",\n"a dog"]'),
    ),
]

CASES = [
    # sizes and numbers
    Case("zero steps", TRACE + " --steps 0", ("steps", 0, 1)),
    Case("steps that are no number", TRACE + " --steps many", ("--steps", "integer", "interp trace --help")),
    Case("negative seed", TRACE + " --seed -1", ("seed", -1, 0)),
    Case("seed beyond 63 bits", TRACE + " --seed 9223372036854775807", ("seed", 9223372036854775807, "2**63")),
    Case("zero repeats", TRACE + " --repeats 0", ("repeats", 0, 1)),
    Case("zero batch size", TRACE + " --batch-size 0", ("batch_size", 0, 1)),
    Case("height off the patch grid", TRACE + " --height 60", ("height", 60, 8, 56, "FOLDER/tiny")),
    Case("width beyond the model's positions", TRACE + " --width 4096", ("width", 4096, 128, "FOLDER/tiny")),
    Case("negative height", TRACE + " --height -64", ("height", -64, 1)),
    Case("sequence too long", TRACE + " --settings max_sequence_length=9999", ("max_sequence_length", 9999, "1..512")),
    # what to record
    Case(
        "unknown thing to record",
        TRACE + " --record stats,attention",
        ("record", "stats,attention", "stats,gates,hidden,modulation,prediction,branches,summary"),
    ),
    Case(
        "nothing to record",
        TRACE + " --record ,",
        ("record", "','", "stats,gates,hidden,modulation,prediction,branches,summary"),
    ),
    Case(
        "frames of pictures",
        TRACE + " --record stats,frames",
        ("record.frames", "frame axis", "image (y, x)", "leave frames out"),
    ),
    Case("blocks without hidden", TRACE + " --blocks 1", ("--blocks", "--record-steps", "--record", "hidden")),
    Case("block out of range", TRACE + " --record hidden --blocks 40", ("blocks", 40, "-4..3")),
    Case("step out of range", TRACE + " --record hidden --record-steps 0,99", ("steps", 99, "-4..3")),
    Case("blocks that are no numbers", TRACE + " --record hidden --blocks first", ("blocks", "first", "0,6,12-20")),
    Case("range that goes down", TRACE + " --record hidden --blocks 3-1", ("blocks", "3-1", "range")),
    # stores
    Case("store of other steps", TRACE + " --steps 3", ("FOLDER/out.zarr", "steps", 1, 3, "--out"), prepare=finished_store),
    Case(
        "store of other seeds",
        TRACE + " --steps 1 --seed 4",
        ("FOLDER/out.zarr", "seed", 0, 4, "--out"),
        prepare=finished_store,
    ),
    Case(
        "store of other prompts",
        "trace --model {tiny} --prompts {folder}/y.txt --out {out} --steps 1",
        ("FOLDER/out.zarr", "prompts", "sha256", "--out"),
        prepare=lambda folder: (finished_store(folder), write("y.txt", "other")(folder))[0],
    ),
    Case(
        "store of another dtype",
        TRACE + " --steps 1 --dtype bfloat16",
        ("FOLDER/out.zarr", "dtype", "float32", "bfloat16", "--out"),
        prepare=finished_store,
    ),
    Case(
        "existing store with --no-resume",
        TRACE + " --steps 1 --no-resume",
        ("FOLDER/out.zarr", "resume", "--out"),
        prepare=finished_store,
    ),
    Case(
        "store of a newer schema", TRACE + " --steps 1", ("FOLDER/out.zarr", "schema", 99, 1, "interp"), 1, store_of_schema_99
    ),
    Case(
        "out is a folder of something else",
        "trace --model {tiny} --prompts {prompts} --out {folder}",
        ("FOLDER", "zarr.json", "interp trace"),
    ),
    Case(
        "out lies under a file",
        "trace --model {tiny} --prompts {prompts} --out {prompts}/x.zarr",
        ("out", "FOLDER/prompts.txt", "--out"),
    ),
    Case("info of nothing", "info {folder}/no.zarr", ("store", "FOLDER/no.zarr", "interp trace --out FOLDER/no.zarr")),
    Case("info of a folder", "info {folder}", ("FOLDER", "zarr.json", "interp trace")),
    Case(
        "info of a store of a newer schema", "info {out}", ("FOLDER/out.zarr", "schema", 99, 1, "interp"), 1, store_of_schema_99
    ),
    Case("out that names no folder", "trace --model {tiny} --prompts {prompts} --out .", ("out", "'.'", "cache/run.zarr")),
    Case("out that is the root", "trace --model {tiny} --prompts {prompts} --out /", ("out", "'/'", "cache/run.zarr")),
    Case("a name too long for the system", "info " + "x" * 300, ("store", "File name too long")),
    Case(
        "a model name too long for the system",
        "trace --prompts {prompts} --model " + "x" * 300,
        ("model", "File name too long"),
    ),
    # the command line itself
    Case("no such command", "trase", ("trase", "trace", "interp --help")),
    Case("no such option", TRACE + " --step 3", ("--step", "--steps", "interp trace --help")),
    Case("missing --prompts", "trace --model {tiny}", ("--prompts", "interp trace --help")),
    Case("missing argument", "info", ("run", "interp info --help")),
    Case("unknown demo size", "demo train --out {folder}/d --size huge", ("size", "huge", "base", "small")),
    Case("a file where a folder is wanted", "demo world --out {prompts}", ("out", "folder", "FOLDER/prompts.txt")),
    Case(
        "training on a device that is not there",
        "demo train --out {folder}/d --device gpu",
        ("device", "gpu", "auto", "cpu", "cuda:N"),
    ),
    Case("a range beyond reason", TRACE + " --record hidden --blocks 0-99999999", ("blocks", "0-99999999", 1000000)),
    Case("no scenes", "demo world --out {folder}/w --count 0", ("count", 0, 1)),
]
