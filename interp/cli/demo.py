"""`interp demo`: train the demo model and draw scenes of its world."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from interp.base.errors import InputError
from interp.base.site_recorder import at_least
from interp.base.sites import check_choice
from interp.cli.console import print_table, say

app = typer.Typer(help="Train the demo model again, or draw scenes of its world.", no_args_is_help=True)


@app.command("train")
def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints; training resumes from the same folder.")],
    family: Annotated[str, typer.Option(help="sd3 (the shape of the one in the package), flux or dit.")] = "sd3",
    size: Annotated[str, typer.Option(help="base (the size in the package) or small.")] = "base",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 10_000,
    vae_steps: Annotated[int, typer.Option(help="Training steps of the VAE, which is trained first.")] = 2_400,
    seed: Annotated[int, typer.Option(help="Seed of weights, scenes and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "cpu",
) -> None:
    """Train a demo model (half an hour to an hour on two cores); the finished pipeline is OUT/model."""
    from interp.models.demo.denoisers import SIZES
    from interp.models.demo.shapes import FAMILIES
    from interp.models.demo.train import TrainingPlan
    from interp.models.demo.train import train as train_demo
    from interp.models.load import usable_device

    check_choice("family", family, FAMILIES)
    check_choice("size", size, SIZES)
    for name, value, least in (("steps", steps, 1), ("vae_steps", vae_steps, 1), ("seed", seed, 0)):
        at_least(name, value, least)
    check_folder(out)
    plan = TrainingPlan(family=family, size=size, steps=steps, vae_steps=vae_steps, seed=seed)
    print(train_demo(out, plan, device=usable_device(device), report=_training_report()))


@app.command("train-judge")
def train_judge(
    out: Annotated[Path, typer.Option(help="Folder for judge.safetensors and accuracy.json.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 4_000,
    seed: Annotated[int, typer.Option(help="Seed of weights, scenes and batches.")] = 0,
) -> None:
    """Train the demo judge again (minutes on two cores) and measure its accuracy on held-out pictures."""
    from interp.models.demo.train_judge import train as train_one
    from interp.tracing.model import load

    check_folder(out)
    at_least("steps", steps, 1)
    at_least("seed", seed, 0)
    train_one(out, load("demo").pipe.vae, steps=steps, seed=seed, report=_training_report())
    found = json.loads((out / "accuracy.json").read_text(encoding="utf-8"))
    columns = ["pictures", *next(iter(found["pictures"].values()))]
    rows = [[name, *(f"{value:.3f}" for value in line.values())] for name, line in found["pictures"].items()]
    print_table(f"accuracy on {found['held out']} held-out scenes", columns, rows)
    print(out / "judge.safetensors")


def check_folder(out: Path) -> None:
    """Make the folder to write into, or raise InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out must be a folder that can be created; {out}: {error.strerror}") from None


def _training_report() -> Callable[[str, int, int, float], None]:
    """Print a line on stderr every 100 steps, with the mean loss."""
    losses: list[float] = []

    def report(part: str, step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step % 100 == 0:
            say(f"{part} {step}/{steps}  loss {sum(losses) / len(losses):.4f}")
            losses.clear()

    return report


@app.command("world")
def world(
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    count: Annotated[int, typer.Option(help="Number of scenes.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
) -> None:
    """Draw scenes of the demo world: pictures, subject masks, attributes (scenes.jsonl) and captions (prompts.txt)."""
    from PIL import Image

    from interp.models.demo import world as demo_world

    check_folder(out)
    captions = []
    with (out / "scenes.jsonl").open("w", encoding="utf-8") as file:
        for index, scene in enumerate(demo_world.sample(at_least("count", count, 1), at_least("seed", seed, 0))):
            Image.fromarray(scene.picture()).save(out / f"{index:05d}.png")
            Image.fromarray(scene.mask()).save(out / f"{index:05d}-mask.png")
            file.write(json.dumps({"prompt": scene.caption(), **dataclasses.asdict(scene)}) + "\n")
            captions.append(scene.caption())
    (out / "prompts.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    print(out)
