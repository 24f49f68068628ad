"""Whatever is typed or stored: it is read back as it was, or refused in one of our errors; never anything else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interp
from interp.base.errors import InputError
from interp.base.options import parse_shard
from interp.base.plan import Plan, Record, groups
from interp.base.prompts import read_prompts
from interp.base.same_plan import check_same
from interp.base.sites import Select, Site, parse_indices, resolve_indices
from interp.guidance.text import from_json, parse


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a function gives, or our error's text."""
    try:
        return function(*arguments), ""
    except InputError as error:
        refusal = str(error)
    assert refusal
    assert "\n" not in refusal
    return None, refusal


@contextlib.contextmanager
def accepting(least: float) -> Iterator[Callable[[bool], None]]:
    """Counts what was accepted: at least this share of the examples, about half of the measured one, lest all are refused."""
    accepted: list[bool] = []
    yield accepted.append
    assert len(accepted) >= 100
    assert sum(accepted) >= least * len(accepted), f"{sum(accepted)} of {len(accepted)} accepted"


QUICK = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=60)
INDICES = st.lists(st.integers(-30, 30), min_size=1, max_size=8)
LINES = TEXT.filter(lambda text: text.strip() and not text.strip().startswith("#"))


def test_any_bytes_are_prompts_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"

    with accepting(0.3) as note:

        @QUICK
        @given(content=st.one_of(st.binary(max_size=300), LINES.map(str.encode)))
        def check(content: bytes) -> None:
            path.write_bytes(content)
            prompts, refusal = attempt(read_prompts, path)
            note(not refusal)
            assert refusal or all(isinstance(prompt, str) and prompt.strip() for prompt in prompts)
            assert refusal or prompts

        check()


def test_prompts_of_a_jsonl_file_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"

    with accepting(0.7) as note:

        @QUICK
        @given(texts=st.lists(LINES, min_size=1, max_size=6))
        def check(texts: list[str]) -> None:
            path.write_text("\n".join(json.dumps({"prompt": text}) for text in texts), encoding="utf-8")
            found, refusal = attempt(read_prompts, path)
            note(not refusal)
            assert refusal or [text.strip() for text in found] == [text.strip() for text in texts]

        check()


def test_any_selection_is_indices_or_refused() -> None:
    with accepting(0.4) as note:

        @QUICK
        @given(text=st.one_of(TEXT, st.from_regex(r"-?\d{1,3}(-\d{1,3})?(,-?\d{1,3}(-\d{1,3})?){0,4}", fullmatch=True)))
        def check(text: str) -> None:
            indices, refusal = attempt(parse_indices, text, "blocks")
            note(not refusal)
            assert not refusal or "blocks" in refusal
            assert indices is None or all(isinstance(index, int) for index in indices)

        check()


def test_resolved_indices_are_inside_and_ordered() -> None:
    with accepting(0.1) as note:

        @QUICK
        @given(indices=INDICES, size=st.integers(1, 40))
        def check(indices: list[int], size: int) -> None:
            found, refusal = attempt(resolve_indices, tuple(indices), size, "blocks")
            note(not refusal)
            assert bool(refusal) == any(not -size <= index < size for index in indices)
            assert refusal or list(found) == sorted({index % size for index in indices})

        check()


METHODS = r"(cfg|apg|cfg0|cfgpp|dg|pag|slg|none)(:-?\d{1,3}(\.\d)?)?(:(block|channels)=\d{1,3})?"


def test_any_guidance_text_is_a_guidance_or_refused(demo_model: interp.Model) -> None:
    forms = [st.from_regex(form, fullmatch=True) for form in (METHODS, r"(cfg|dg):\d(\+(cfg|dg):\d)?")]

    with accepting(0.2) as note:

        @QUICK
        @given(text=st.one_of(TEXT, *forms))
        def check(text: str) -> None:
            found, refusal = attempt(parse, text, demo_model)
            note(not refusal)
            assert refusal or from_json(json.loads(json.dumps(found.to_json()))).to_json() == found.to_json()

        check()


def test_any_share_is_one_or_refused() -> None:
    with accepting(0.08) as note:

        @QUICK
        @given(text=st.one_of(TEXT, st.from_regex(r"\d/\d", fullmatch=True)))
        def check(text: str) -> None:
            found, refusal = attempt(parse_shard, text)
            note(not refusal)
            index, count = found or (0, 1)
            assert 0 <= index < count

        check()


def test_any_site_name_is_a_site_or_refused() -> None:
    name = r"block\.\d{1,2}/(image|text)/(hidden|alpha\.attn|branch\.mlp|input)"

    with accepting(0.4) as note:

        @QUICK
        @given(text=st.one_of(TEXT, st.from_regex(name, fullmatch=True)))
        def check(text: str) -> None:
            site, refusal = attempt(Site.parse, text)
            note(not refusal)
            assert refusal or Site.parse(str(site)) == site

        check()


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
