"""Weights of metrics: where they are features for, what is refused, and what their numbers are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import weights_made as made
from messages import refused

from interp.base.errors import InputError
from interp.evaluation.weighted import Weighted
from interp.metrics import checkpoints, inception, lpips, towers
from interp.metrics.checkpoints import find


@pytest.mark.parametrize("name", list(checkpoints.SOURCES))
def test_missing_weights_name_the_file_and_the_option(no_weights: Path, name: str) -> None:
    source = checkpoints.SOURCES[name]
    with refused(InputError, name, source.what, source.of, f"--weights {name}="):
        find(name)


def test_wrong_places_and_files(tmp_path: Path, weights_folder: Path) -> None:
    with refused(InputError, "inception", tmp_path / "nothing"):
        find("inception", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with refused(InputError, "clip", "config.json", "hf download openai/clip-vit-large-patch14"):
        find("clip", tmp_path / "empty")
    with refused(InputError, "hps", "HPS_v2.1_compressed.pt", 0):
        find("hps", tmp_path / "empty")
    with refused(InputError, "weights", "dino", "clip", "blip"):
        find("dino")
    text = tmp_path / "text.pth"
    text.write_text("no tensors")
    with refused(InputError, text, "tensors"):
        inception.Inception(find("inception", text))
    other, _ = made.torchvision_file(tmp_path, "alexnet")
    with refused(InputError, "Conv2d_1a_3x3.conv.weight"):
        inception.Inception(find("inception", other))
    with refused(InputError, "features.0.weight", "(64, 3, 3, 3)", "(64, 3, 11, 11)"):
        lpips.Lpips(find("vgg16", other))
    with refused(InputError, weights_folder / "blip"):
        towers.Clip(find("clip", weights_folder / "blip"))


class Stranger:
    """What a pickle must not bring to life."""


def test_pickles_with_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": Stranger()}, path)
    with refused(InputError, path, "tensors", "pickles"):
        checkpoints.tensors_of(find("aesthetic", path))


def test_folders_that_lack_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made.clip_folder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with refused(InputError, "visual_projection.weight"):
        towers.Clip(find("clip", tmp_path))


def test_weights_from_the_hub_cache_are_the_published_ones(no_weights: Path, weights_folder: Path) -> None:
    kept, revision = no_weights / "models--openai--clip-vit-large-patch14", "0123456789" * 4
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(revision)
    (kept / "snapshots" / revision).mkdir(parents=True)
    for file in (weights_folder / "clip").iterdir():
        (kept / "snapshots" / revision / file.name).write_bytes(file.read_bytes())
    for scorer in (Weighted(["clip"]), Weighted(["clip"], {"clip": "openai/clip-vit-large-patch14"})):
        assert [measure.name for measure in scorer.measures] == ["clip_score"]
        assert scorer.weights["clip"].startswith("openai/clip-vit-large-patch14@012345678901, sha256 ")
    same = Weighted(["clip"], {"clip": weights_folder / "clip"})
    assert same.found["clip"].digest == scorer.found["clip"].digest, "the same files, wherever they are"
    assert not same.found["clip"].published


def test_files_are_fetched_once_and_checked(no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    fetched: list[tuple[str, str]] = []

    def fetch(url: str, to: str, hash_prefix: str, progress: bool) -> None:
        fetched.append((url, hash_prefix))
        if len(fetched) == 1:
            raise RuntimeError("invalid hash value")
        made.torchvision_file(Path(to).parent, "alexnet")[0].rename(to)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with refused(InputError, "alexnet", "invalid hash value", "alexnet-owt-7be5be79.pth"):
        find("alexnet")
    found = find("alexnet")
    assert found.path == tmp_path / "torch" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert not found.published, "its name is the published one's, its sha256 is not"
    assert find("alexnet") == found
    assert fetched == [("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79")] * 2


def test_a_hub_folder_without_safetensors(weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from safetensors.torch import load_file

    asked: list[str] = []

    def snapshot(hub_id: str, allow_patterns: Sequence[str]) -> str:
        asked.append(allow_patterns[-1])
        for file in (weights_folder / "blip").iterdir():
            if file.suffix != ".safetensors":
                (tmp_path / file.name).write_bytes(file.read_bytes())
        if allow_patterns[-1] == "pytorch_model.bin":
            torch.save(load_file(weights_folder / "blip" / "model.safetensors"), tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = find("blip")
    assert asked == ["model.safetensors", "pytorch_model.bin"]
    expected = towers.Blip(find("blip", weights_folder / "blip")).matching(made.PICTURES, made.PROMPTS)
    assert towers.Blip(found).matching(made.PICTURES, made.PROMPTS).tolist() == expected.tolist()


def test_names_of_papers_are_kept_for_published_weights(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = made.aesthetic_file(weights_folder, 12)
    given = {"clip": weights_folder / "clip", "aesthetic": path}
    scorer = Weighted(["clip", "aesthetic"], given)
    clip, head = (scorer.found[name].digest[:8] for name in ("clip", "aesthetic"))
    assert [measure.name for measure in scorer.measures] == [f"clip_score ({clip})", f"laion_aesthetics ({head}+{clip})"]
    assert all("not the published weights" in measure.meaning for measure in scorer.measures)
    assert "not known to be published" in scorer.weights["aesthetic"]
    hashes = {
        "aesthetic": checkpoints._sha256(path),
        "clip": checkpoints._sha256(weights_folder / "clip" / "model.safetensors"),
    }
    for name, digest in hashes.items():
        known = dataclasses.replace(checkpoints.SOURCES[name], digest=digest)
        monkeypatch.setitem(checkpoints.SOURCES, name, known)  # type: ignore[arg-type]
    assert [measure.name for measure in Weighted(["clip", "aesthetic"], given).measures] == ["clip_score", "laion_aesthetics"]
