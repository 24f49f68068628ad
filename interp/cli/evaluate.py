"""`interp evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.console import graceful, say
from interp.cli.experiments import drawing_progress, say_cost
from interp.cli.results import AsJson, interval, show
from interp.cli.workers import Scheduler, WorkerCount, saying_rates, spread
from interp.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from interp.evaluation.gallery import Gallery
    from interp.store.experiment import Experiment

Option = typer.Option
SEEDS, PROMPTS = 2, 24


def evaluate(
    sources: Annotated[list[Path] | None, typer.Argument(help="Folders of pictures, or stores (traces, sweeps).")] = None,
    preset: Annotated[str | None, Option(help="A paper's table: dg-table-1, dg-table-2, dg-fig-8.")] = None,
    guidance: Annotated[
        list[str] | None, Option(help="Settings of your own, in place of a preset; first the baseline.")
    ] = None,
    model: Annotated[str, Option(help="What draws a preset's pictures.")] = "demo",
    prompts: Annotated[Path | None, Option(help="A prompts file. [default: captions of the demo world]")] = None,
    out: Annotated[Path | None, Option(help="The store that a preset draws into. [default: cache/PRESET-MODEL.zarr]")] = None,
    scorer: Annotated[str, Option(help="demo (the judge of the demo world), plain, or auto.")] = "auto",
    baseline: Annotated[str | None, Option(help="The setting that others are compared with. [default: the first]")] = None,
    margin: Annotated[float, Option(help="What is no difference: a share of the baseline's deviation over prompts.")] = 0.2,
    steps: Annotated[int | None, Option(help="Sampling steps. [default: the model's]")] = None,
    seed: Annotated[int, Option(help="Seed of every prompt's first repeat.")] = 0,
    repeats: Annotated[int, Option(help="Pictures per prompt.")] = SEEDS,
    batch_size: Annotated[int, Option(help="Pictures drawn together.")] = 8,
    workers: WorkerCount = None,
    scheduler: Scheduler = None,
    device: Annotated[str, Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str | None, Option(help="float32, bfloat16 or float16.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what a preset takes and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score pictures that are there, or draw a paper's table and score it: intervals, wins, and what may be said."""
    if bool(sources) == bool(preset or guidance):
        raise InputError("give pictures or stores to score, or --preset (or --guidance) to draw some; not both, not neither")
    if sources:
        galleries = [_gallery(sources, prompts)]
        groups: list[str | None] = [None]
        made = _experiment(sources)
    else:
        loading: dict[str, Any] = {"device": device, "dtype": dtype}
        through = spread(workers, scheduler, loading, model)
        prepared, one = _prepare(preset, guidance, model, prompts, out, loading, steps=steps, seed=seed, repeats=repeats)
        say_cost(prepared.cost, len(prepared.prepared[0].plan.rows()), len(prepared.settings))
        if dry_run:
            return
        with saying_rates(through), drawing_progress() as on_progress, graceful() as stopped:
            made = prepared.run(batch_size=batch_size, through=through, on_progress=on_progress, stopped=stopped)
        galleries, groups = _by_group(made, one.group if one is not None else None)
    from interp.evaluation.evaluate import evaluate as score

    scorers = _scorers(scorer, galleries[0])
    found = {
        f"evaluation{'' if group is None else f'_{group}'}": score(gallery, scorers, baseline=baseline, margin=margin)
        for gallery, group in zip(galleries, groups, strict=True)
    }
    if made is not None:
        from interp.store.results import write_result

        for name, result in found.items():
            write_result(made.path, name, result)
        say(f"kept in {made.path}: analysis/{', analysis/'.join(found)}")
    sections = {}
    for name, result in found.items():
        sections[name.replace("_", ": ")] = (result, rows(result))
        if result.sizes["set_measure"]:
            sections[f"{name.replace('_', ': ')}, of sets"] = (result, set_rows(result))
    show(sections, as_json)


def _experiment(sources: list[Path]) -> Experiment | None:
    """The experiment that was given, which keeps what is found."""
    from interp.store.experiment import is_experiment, open_experiment

    one = len(sources) == 1 and (sources[0] / "zarr.json").exists() and is_experiment(sources[0])
    return open_experiment(sources[0]) if one else None


def _gallery(sources: list[Path], prompts: Path | None) -> Gallery:
    from interp.evaluation.gallery import of_experiment, of_folders, of_run
    from interp.prompts import read_prompts
    from interp.store.experiment import is_experiment, open_experiment
    from interp.store.opened import open_run

    stores = [source for source in sources if (source / "zarr.json").exists()]
    if stores and len(sources) > 1:
        raise InputError("give one store, or several folders of pictures; stores are compared as arms of one sweep")
    if stores:
        return of_experiment(open_experiment(stores[0])) if is_experiment(stores[0]) else of_run(open_run(stores[0]))
    if len({source.name for source in sources}) < len(sources):
        raise InputError("folders of pictures must have different names: these are the settings' names")
    for source in sources:
        if not source.is_dir():
            raise InputError(f"{source} is no folder of pictures and no store")
    return of_folders({source.name: source for source in sources}, None if prompts is None else read_prompts(prompts))


def _prepare(
    preset: str | None,
    guidance: list[str] | None,
    model: str,
    prompts: Path | None,
    out: Path | None,
    loading: dict[str, Any],
    **arguments: Any,
) -> tuple[Any, Any]:
    """The sweep that draws a preset, and the recipe."""
    from interp.evaluation import presets
    from interp.experiments.sweep import sweep
    from interp.prompts import read_prompts
    from interp.tracing.model import load

    if preset and guidance:
        raise InputError("give --preset or --guidance, not both")
    one = presets.recipe(preset) if preset else None
    loaded = load(model, **loading)
    settings = guidance or list(presets.settings(one, model, len(loaded.anatomy.blocks)))  # type: ignore[arg-type]
    if prompts is None and not model.startswith("demo"):
        raise InputError(f"prompts: give --prompts FILE for {model}; only the demo model has prompts of its own")
    texts = demo_prompts() if prompts is None else read_prompts(prompts)
    path = out or Path("cache") / f"{preset or 'evaluation'}-{Path(model).name}.zarr"
    return sweep(loaded, texts, settings, out=path, **arguments), one


def demo_prompts(count: int = PROMPTS) -> list[str]:
    """Whole captions of the demo world: every attribute named, every texture as often."""
    from interp.models.demo import world

    textures = list(world.TEXTURES)
    scenes = {texture: [] for texture in textures}  # type: dict[str, list[str]]
    for scene in world.sample(40 * count, seed=2_024):
        if len(scenes[scene.texture]) < -(-count // len(textures)):
            scenes[scene.texture].append(scene.caption())
    return [text for together in zip(*scenes.values(), strict=True) for text in together][:count]


def _by_group(made: Experiment, group: str | None) -> tuple[list[Gallery], list[str | None]]:
    """The whole gallery; then, for a recipe that tells styles apart, each style's prompts."""
    import numpy as np

    from interp.evaluation.gallery import of_experiment
    from interp.models.demo.judge import asked_for

    whole = of_experiment(made)
    if group is None:
        return [whole], [None]
    named = [asked_for(text)[group] for text in whole.prompts]
    galleries: list[Gallery] = [whole]
    styles = sorted({name for name in named if name is not None})
    for style in styles:
        rows = np.flatnonzero([name == style for name in named])
        galleries.append(whole.part([int(row) for row in rows]))
    return galleries, [None, *styles]


def _scorers(name: str, gallery: Gallery) -> list[Any]:
    from interp.evaluation.demo import DemoScorer
    from interp.evaluation.scorers import Plain

    if name not in ("auto", "demo", "plain"):
        raise InputError(f"scorer must be demo, plain or auto; got {name!r}")
    of_demo = name == "demo" or (name == "auto" and str(gallery.facts.get("model", "")).startswith("demo"))
    return [DemoScorer()] if of_demo else [Plain()]


def rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every measure and setting."""
    return [
        {
            "measure": str(measure),
            "setting": str(setting),
            "value": float(one["value"]),
            "interval": interval(one["low"], one["high"]),
            "less the baseline": float(one["over"]),
            "its interval": interval(one["over_low"], one["over_high"]),
            "wins": float(one["win"]),
            "p, Holm": float(one["p_holm"]),
            "effect": float(one["effect"]),
            "verdict": str(one["verdict"].values),
        }
        for measure in found["measure"].to_numpy()
        for setting in found["setting"].to_numpy()
        for one in [found.sel(measure=measure, setting=setting)]
    ]


def set_rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """A row for every setting, a column for every measure of sets."""
    lines = []
    for setting in found["setting"].to_numpy():
        line: dict[str, Any] = {"setting": str(setting)}
        for measure in found["set_measure"].to_numpy():
            one = found.sel(setting=setting, set_measure=measure)
            line |= {str(measure): float(one["set_value"]), f"{measure}, interval": interval(one["set_low"], one["set_high"])}
        lines.append(line)
    return lines
