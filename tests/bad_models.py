"""Bad model names and damaged model folders: a part of the table of `bad_inputs.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from bad_inputs import TRACE, Case, write


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


def tiny_img2img(folder: Path) -> None:
    """The tiny model's folder with the pipeline class that begins with a picture."""
    broken_folder("m", edit_json("model_index.json", _class_name="StableDiffusion3Img2ImgPipeline"))(folder)
    (folder / "words.png").write_text("a red cat")


def tiny_inpaint(folder: Path) -> None:
    from PIL import Image

    broken_folder("m", edit_json("model_index.json", _class_name="StableDiffusion3InpaintPipeline"))(folder)
    Image.new("RGB", (8, 8)).save(folder / "cat.png")


FROM_PICTURE = "trace --model {folder}/m --prompts {prompts} --out {out}"
PICTURES = [
    Case("no picture for image-to-image", FROM_PICTURE, ("image", "--settings image=PATH"), prepare=tiny_img2img),
    Case(
        "a picture that does not exist",
        FROM_PICTURE + " --settings image={folder}/no.png",
        ("image", "FOLDER/no.png", "--settings image=cat.png"),
        prepare=tiny_img2img,
    ),
    Case(
        "a text as picture",
        FROM_PICTURE + " --settings image={folder}/words.png",
        ("image", "FOLDER/words.png", "--settings image=cat.png"),
        prepare=tiny_img2img,
    ),
    Case(
        "a number as picture",
        FROM_PICTURE + " --settings image=7",
        ("image", 7, "--settings image=cat.png"),
        prepare=tiny_img2img,
    ),
    Case(
        "no mask for inpainting",
        FROM_PICTURE + " --settings image={folder}/cat.png",
        ("mask", "--settings mask=PATH"),
        prepare=tiny_inpaint,
    ),
    Case(
        "a strength above 1",
        FROM_PICTURE + " --settings strength=1.5",
        ("strength", 1.5, "0..1"),
        prepare=tiny_img2img,
    ),
    Case("a picture for a model that takes none", TRACE + " --settings image=cat.png", ("image", "FOLDER/tiny")),
]

CASES = [
    Case("unknown model name", "trace --model sdx --prompts {prompts}", ("model", "sdx", "sd3", "interp models", "owner/name")),
    Case(
        "model folder does not exist",
        "trace --model ./nowhere/here --prompts {prompts}",
        ("model", "./nowhere/here", "interp models", "owner/name"),
    ),
    Case(
        "model folder is no pipeline",
        "trace --model {folder} --prompts {prompts}",
        ("model", "FOLDER", "model_index.json", "save_pretrained"),
    ),
    Case(
        "model is a single file",
        "trace --model {prompts} --prompts {prompts}",
        ("model", "FOLDER/prompts.txt", "file", "folder"),
    ),
    Case(
        "hub model that is not on this machine",
        "trace --model sd3 --prompts {prompts} --local-files-only",
        ("model", "sd3", "stabilityai/stable-diffusion-3-medium-diffusers", "hf download"),
    ),
    Case(
        "hub id that does not exist, offline",
        "trace --model nobody/nothing --prompts {prompts} --local-files-only",
        ("model", "nobody/nothing", "hf download"),
    ),
    Case(
        "a class-conditional model given a text",
        "trace --model {folder}/dit --prompts {prompts}",
        ("prompt", "0..999", "a red cat"),
        prepare=tiny_dit,
    ),
    Case(
        "another size than the one a model draws",
        "trace --model {folder}/dit --prompts {folder}/x.txt --height 128",
        ("height", "width", 64, "FOLDER/dit"),
        prepare=lambda folder: (tiny_dit(folder), write("x.txt", "cat")(folder))[0],
    ),
    Case(
        "embedded guidance for a model that has none",
        TRACE + " --settings embedded_guidance=3",
        ("embedded_guidance", "FOLDER/tiny", "max_sequence_length"),
    ),
    Case(
        "folder of an unsupported pipeline class",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "DDIMPipeline", "interp models --support", "register_anatomy"),
        prepare=broken_folder("m", edit_json("model_index.json", _class_name="DDIMPipeline")),
    ),
    Case(
        "folder of a class nobody knows",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "NoSuchPipeline", "interp models --support", "register_anatomy"),
        prepare=broken_folder("m", edit_json("model_index.json", _class_name="NoSuchPipeline")),
    ),
    Case(
        "pickled weights",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "safetensors", ".bin", "save_pretrained"),
        prepare=broken_folder("m", pickled),
    ),
    Case(
        "truncated weights",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "weights", "diffusion_pytorch_model.safetensors"),
        prepare=broken_folder("m", truncated),
    ),
    Case(
        "missing part of the pipeline",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "vae", "model_index.json"),
        prepare=broken_folder("m", lambda folder: shutil.rmtree(folder / "vae")),
    ),
    Case(
        "a tensor missing from a text encoder",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "weights", "text_model.encoder.layers.0.self_attn.q_proj.weight"),
        prepare=broken_folder("m", without_tensor("text_encoder/model.safetensors", "q_proj.weight")),
    ),
    Case(
        "a tensor missing from the transformer",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "weights", "transformer"),
        prepare=broken_folder("m", without_tensor("transformer/diffusion_pytorch_model.safetensors", "norm_out.linear.bias")),
    ),
    Case(
        "tokenizer without a vocabulary",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m/tokenizer", "vocabulary", "tokenizer.json"),
        prepare=broken_folder("m", lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink()),
    ),
    Case(
        "interp.json with a setting the model has not",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m", "interp.json", "tempo", 3, "max_sequence_length"),
        prepare=broken_folder("m", edit_json("interp.json", settings={"tempo": 3})),
    ),
    Case(
        "broken interp.json",
        "trace --model {folder}/m --prompts {prompts}",
        ("FOLDER/m/interp.json", "Defaults", "stepz"),
        prepare=broken_folder("m", not_interp_json),
    ),
    Case("unknown dtype", TRACE + " --dtype int8", ("dtype", "int8", "float32", "bfloat16", "float16")),
    Case("unknown device", TRACE + " --device gpu", ("device", "gpu", "auto", "cpu", "cuda:N")),
    Case("device that is not there", TRACE + " --device cuda:7", ("device", "cuda:7", "auto", "cpu", "cuda:N")),
    Case("unknown offload", TRACE + " --offload disk", ("offload", "disk", "none", "model", "sequential", "group")),
    Case(
        "offload without an accelerator",
        TRACE + " --offload sequential --device cpu",
        ("offload", "sequential", "cpu", "group", "none"),
    ),
]
