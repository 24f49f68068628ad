"""Sites, selections, prompts, plans: the plain values everything is named by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import refused

import interp
from interp.base.plan import Plan, groups
from interp.base.prompts import read_prompts
from interp.base.same_plan import check_same
from interp.base.sites import GATES, Select, Site, parse_indices, resolve_indices

sites = st.builds(
    lambda block, stream, kind, gate: Site(block, stream, kind, None if kind == "hidden" else gate),
    st.integers(0, 99),
    st.sampled_from(("image", "text", "audio")),
    st.sampled_from(("hidden", "alpha", "shift", "scale")),
    st.sampled_from(GATES),
)


@given(sites)
def test_a_site_reads_back(site: Site) -> None:
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("block.7", ("site", "block.7")),
        ("block.7/image", ("site", "block.7/image")),
        ("block.x/image/hidden", ("site", "block.x/image/hidden")),
        ("block.7/image/alpha", ("site", "alpha", "gate")),
        ("block.7/image/hiddn", ("kind", "hidden", "hiddn")),
    ],
)
def test_a_wrong_site_is_refused(text: str, words: tuple[str, ...]) -> None:
    with refused(interp.InputError, *words):
        Site.parse(text)


@given(st.lists(st.integers(-20, 19), min_size=1))
def test_indices_resolve_to_sorted_positions(indices: list[int]) -> None:
    found = resolve_indices(parse_indices(",".join(map(str, indices)), "blocks"), 20, "blocks")
    assert list(found) == sorted({i % 20 for i in indices})


def test_ranges() -> None:
    assert parse_indices("0,6,12-20", "blocks") == (0, 6, *range(12, 21))
    assert parse_indices("-3--1", "steps") == (-3, -2, -1)
    assert parse_indices(5, "blocks") == (5,)
    assert parse_indices(None, "blocks") is None


@pytest.mark.parametrize("text", ["", "a", "1,,2", "3-1", "1.5", "1-", "--1"])
def test_wrong_indices_are_an_error(text: str) -> None:
    with refused(interp.InputError, "blocks", text):
        parse_indices(text, "blocks")


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_out_of_range_names_the_range(index: int) -> None:
    with refused(interp.InputError, "blocks", "-4..3", index):
        resolve_indices((index,), 4, "blocks")


@given(
    st.one_of(st.none(), st.lists(st.integers(-9, 9), min_size=1).map(tuple)),
    st.sampled_from([("image",), ("text",), ("image", "text")]),
    st.booleans(),
)
def test_records_read_back_from_json(blocks: tuple[int, ...] | None, streams: tuple[str, ...], padding: bool) -> None:
    record = interp.Record(hidden=Select(blocks=blocks, streams=streams), latents="all", modulation=True, padding=padding)
    assert interp.Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def plan(prompts: tuple[str, ...], **more: object) -> Plan:
    return Plan(model="m", weights="w", dtype="float32", prompts=prompts, steps=2, height=64, width=64, **more)  # type: ignore[arg-type]


def test_duplicate_lines_continue_the_seeds() -> None:
    rows = plan(("a", "b", "a"), seed=5, repeats=2).rows()
    assert [(row.text, row.seed) for row in rows] == [("a", 5), ("a", 6), ("b", 5), ("b", 6), ("a", 7), ("a", 8)]
    assert len({(row.text, row.seed) for row in rows}) == 6
    once, twice = (
        plan(texts, seed=5, repeats=repeats, seeds="own").rows() for texts, repeats in ((("a", "b"), 4), (("a", "b", " A"), 2))
    )
    assert [row.seed for row in twice] == [once[place].seed for place in (0, 1, 4, 5, 2, 3)]


def test_a_partners_seeds_are_taken() -> None:
    source = plan(("a", "b"), repeats=2, seeds="own")
    target = plan(("c", "c"), repeats=2, seeds="own", partners=("a", "b"))
    assert [row.text for row in target.rows()] == ["c"] * 4
    assert [row.seed for row in target.rows()] == [row.seed for row in source.rows()]
    assert len({row.seed for row in target.rows()}) == 4


def test_what_earlier_versions_did_adds_no_word_to_a_plan() -> None:
    """Stores of earlier versions can then be continued."""
    older = plan(("a",), seeds="shared", record=interp.Record(padding=True)).to_json()
    assert not {"seeds", "partners"} & set(older)
    assert "padding" not in older["record"]
    assert plan(("a",)).to_json()["record"]["padding"] is False
    assert [plan(("a",), seeds=seeds).to_json()["seeds"] for seeds in ("own", (3, 1))] == ["own", [3, 1]]


def test_groups_are_fixed_by_row_number() -> None:
    rows = plan(tuple("abcdefg")).rows()
    assert [[row.index for row in group] for group in groups(rows, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_differing_field_is_named() -> None:
    with refused(interp.PlanError, "steps", 2, 3, "x.zarr"):
        check_same({**plan(("a",)).to_json(), "steps": 3}, plan(("a",)).to_json(), "x.zarr")
    with refused(interp.PlanError, "prompts", "x.zarr"):
        check_same(plan(("b",)).to_json(), plan(("a",)).to_json(), "x.zarr")


PROMPT_FILES = {
    "plain.txt": "a cat\na dog\n",
    "bom-crlf.txt": "\ufeffa cat\r\na dog\r\n",
    "old-mac.txt": "a cat\ra dog",
    "comments.txt": "# two animals\n\n  a cat  \n\t\n  # not this\na dog",
    "table.tsv": "Prompt\tCategory\na cat\tAnimals\na dog\tAnimals\n",
    "table.csv": 'id,prompt\n1,"a cat"\n2,a dog\n',
    "lines.jsonl": '{"prompt": "a cat"}\n\n{"prompt": "a dog", "id": 2}\n',
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_prompt_files(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PROMPT_FILES[name].encode())
    assert read_prompts(path) == ["a cat", "a dog"]


def test_a_quoted_field_may_hold_a_line_break_and_duplicates_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('prompt\n"a cat,\nasleep"\na dog\na dog\n')
    assert read_prompts(path) == ["a cat,\nasleep", "a dog", "a dog"]


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_a_written_file_reads_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    kept = [text.strip() for text in texts if text.strip() and not text.lstrip().startswith(("#", "\ufeff"))]
    path = tmp_path_factory.mktemp("prompts") / "x.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    if kept and not texts[0].startswith("\ufeff"):
        assert [t for t in read_prompts(path) if not t.startswith("\ufeff")] == kept
