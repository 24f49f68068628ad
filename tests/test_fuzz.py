"""Whatever is typed or stored: it is read back as it was, or refused in one of our errors; never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import InputError
from interp.guidance.combine import from_json, parse
from interp.plan import Plan, Record, check_same, groups, parse_shard
from interp.prompts import read_prompts
from interp.sites import Select, Site, parse_indices, resolve_indices


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a function gives, or our error's text."""
    try:
        return function(*arguments), ""
    except InputError as error:
        return None, str(error)


QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=60)
INDICES = st.lists(st.integers(-30, 30), min_size=1, max_size=8)


@QUICK
@given(content=st.binary(max_size=300))
def test_any_bytes_are_prompts_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(content)
    prompts, refusal = attempt(read_prompts, path)
    assert "\n" not in refusal
    if refusal:
        return
    assert prompts
    assert all(isinstance(prompt, str) and prompt.strip() for prompt in prompts)


@QUICK
@given(texts=st.lists(TEXT.filter(lambda text: text.strip() and not text.strip().startswith("#")), min_size=1, max_size=6))
def test_prompts_of_a_jsonl_file_are_read_as_written(texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in texts), encoding="utf-8")
    try:
        found = read_prompts(path)
    except InputError:
        return
    assert [text.strip() for text in found] == [text.strip() for text in texts]


@QUICK
@given(text=st.one_of(TEXT, st.from_regex(r"-?\d{1,3}(-\d{1,3})?(,-?\d{1,3}(-\d{1,3})?){0,4}", fullmatch=True)))
def test_any_selection_is_indices_or_refused(text: str) -> None:
    indices, refusal = attempt(parse_indices, text, "blocks")
    assert not refusal or "blocks" in refusal
    assert indices is None or all(isinstance(index, int) for index in indices)


@QUICK
@given(indices=INDICES, size=st.integers(1, 40))
def test_resolved_indices_are_inside_and_ordered(indices: list[int], size: int) -> None:
    try:
        found = resolve_indices(tuple(indices), size, "blocks")
    except InputError:
        assert any(not -size <= index < size for index in indices) or len(set(indices)) < len(indices)
        return
    assert all(0 <= index < size for index in found)
    assert set(found) == {index % size for index in indices}


@QUICK
@given(
    text=st.one_of(
        TEXT,
        st.from_regex(r"(cfg|apg|cfg0|cfgpp|dg|pag|slg|none)(:-?\d{1,3}(\.\d)?)?(:(block|channels)=\d{1,3})?", fullmatch=True),
        st.from_regex(r"(cfg|dg):\d(\+(cfg|dg):\d)?", fullmatch=True),
    )
)
def test_any_guidance_text_is_a_guidance_or_refused(text: str, demo_model: object) -> None:
    found, refusal = attempt(parse, text, demo_model)
    assert "\n" not in refusal
    if refusal:
        return
    assert from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()


@QUICK
@given(text=TEXT)
def test_any_share_is_one_or_refused(text: str) -> None:
    try:
        index, count = parse_shard(text) or (0, 1)
    except InputError:
        return
    assert 0 <= index < count


@QUICK
@given(
    text=st.one_of(TEXT, st.from_regex(r"block\.\d{1,2}/(image|text)/(hidden|alpha\.attn|branch\.mlp|input)", fullmatch=True))
)
def test_any_site_name_is_a_site_or_refused(text: str) -> None:
    try:
        site = Site.parse(text)
    except InputError:
        return
    assert Site.parse(str(site)) == site


PLANS = st.builds(
    Plan,
    model=TEXT,
    dtype=st.sampled_from(["float32", "bfloat16"]),
    prompts=st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    steps=st.integers(1, 60),
    height=st.integers(1, 2048),
    width=st.integers(1, 2048),
    seed=st.integers(0, 2**31),
    repeats=st.integers(1, 4),
    negative_prompt=TEXT,
    settings=st.dictionaries(TEXT, st.one_of(st.integers(), st.booleans(), TEXT), max_size=3),
    record=st.builds(
        Record,
        stats=st.just(True),
        gates=st.just(True),
        hidden=st.one_of(st.none(), st.builds(Select, blocks=st.one_of(st.none(), st.just((0, 3))))),
        modulation=st.booleans(),
        prediction=st.booleans(),
        branches=st.booleans(),
        latents=st.sampled_from(["last", "all"]),
    ),
)


@QUICK
@given(plan=PLANS, batch=st.integers(1, 5))
def test_a_plan_is_the_same_after_json_and_its_rows_are_whole(plan: Plan, batch: int) -> None:
    stored = json.loads(json.dumps(plan.to_json()))
    check_same(plan.to_json(), stored, "store")
    assert Record.from_json(stored["record"]) == plan.record
    rows = plan.rows()
    assert [row.index for row in rows] == list(range(len(plan.prompts) * plan.repeats))
    assert len({(row.text, row.seed) for row in rows}) == len(rows), "no row twice, even of a line that is there twice"
    assert [row for group in groups(rows, batch) for row in group] == list(rows)
