"""The model card of an exported encoder: what it is, what it reads, what it was measured to be worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from falcon_ssl.config.sources import joined_name, source_names
from falcon_ssl.core.version import __version__
from falcon_ssl.networks import Readout
from falcon_ssl.records.metrics import GROUPS, describe
from falcon_ssl.records.run import Run
from falcon_ssl.report.formatting import format_duration, format_number, format_precision

CARD = "README.md"
LIBRARY = {"timm": "timm", "hf": "transformers", "onnx": "onnx"}


def model_card(run: Run, about: Mapping[str, Any], *, folder: Path, usage: str) -> str:
    """The card as Markdown, with the front matter that the Hugging Face hub reads.

    Args:
        run: The records of the run.
        about: What the folder says of itself.
        folder: The folder, for the usage.
        usage: Python that uses it.
    """
    library = LIBRARY.get(about["to"], "falcon-ssl")
    front = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: image-feature-extraction",
        "tags: [self-supervised-learning, falcon-ssl]",
        "---",
    ]
    encoder = ", ".join(f"{name} {value}" for name, value in about["encoder"].items())
    width = about["numbers_read"]
    sections = {
        "": [
            f"# {run.name}",
            "An image encoder, pretrained without labels by"
            f" [falcon-ssl](https://arxiv.org/abs/2410.04959) {__version__}: {width} numbers an image.",
        ],
        "Use": [
            f"```python\n{_code(usage, about, folder)}\n```",
            _verified(about),
        ],
        "Preprocessing": [_preprocessing(about), *_foreign(about)],
        "What was trained": [
            f"| | |\n|---|---|\n| encoder | {encoder} |\n| method | {about['method']} |\n| images | `{about['data']}`"
            f" |\n{_training(run)}"
        ],
        "What it is worth": _numbers(run, about),
        "License": [
            "falcon-ssl is under the MIT license. These weights were computed from the images above: whether and how"
            " they may be passed on depends on the license of those images, which the command that wrote this does not"
            " know. Say it in `license:` at the head of this file before you publish it."
        ],
    }
    parts = ["\n".join(front)]
    for title, texts in sections.items():
        parts += [f"## {title}"] if title else []
        parts += texts
    return "\n\n".join(parts) + "\n"


def _code(usage: str, about: Mapping[str, Any], folder: Path) -> str:
    """The code of a kind of folder, with this one's name and preprocessing."""
    seen = about["preprocessing"]
    channels, height, width = seen["image_shape"]
    mean, std = (f"{list(map(float, seen[name]))}" for name in ("mean", "std"))
    mode, places = ("L", "None, None") if channels == 1 else ("RGB", "None")
    pixels = [
        'image = Image.open("cat.jpg")',
        f"image.draft(None, ({2 * width}, {2 * height}))  # a large JPEG is decoded smaller, as in training",
        f'image = ImageOps.exif_transpose(image).convert("{mode}")',
        f"image = ImageOps.fit(image, ({width}, {height}), Image.Resampling.BICUBIC)",
        f"values = (numpy.asarray(image) / 255 - {mean}) / {std}",
        f"pixels = values{'' if channels == 1 else '.transpose(2, 0, 1)'}[{places}].astype('float32')  # [N, C, H, W]",
    ]
    if _is_measured(seen):
        pixels = ['pixels = falcon_ssl.load_encoder("FOLDER").preprocess("cell.tif").numpy()']
        pixels.insert(0, "import falcon_ssl\n")
    elif size := seen["size"]:
        pixels.insert(4, f"image = image.resize(({size}, {size}), Image.Resampling.BILINEAR)")
    return usage.replace("FOLDER", folder.name).replace("PIXELS", "\n".join(pixels))


def _is_measured(seen: Mapping[str, Any]) -> bool:
    """Whether images have bands or values that no image processor of other libraries reads."""
    deep = seen["keep_16bit"] or seen["value_range"] is not None
    return deep or seen["image_shape"][0] not in (1, 3)


def published(name: str) -> str:
    """What data or weights are called, without the folders that they lie in, which are nobody's business."""
    if len(sources := source_names(name)) > 1:
        return joined_name(published(source) for source in sources)
    kind, colon, where = name.partition(":")
    if kind in ("hf", "timm") or name == "digits":
        return name
    return f"{kind}{colon}{Path(where).name}" if where else Path(name).name


def _verified(about: Mapping[str, Any]) -> str:
    found = about["verified"]
    same = (
        "What this gives"
        if found["of"] == "readout"
        else "The pooled representation that this gives"
    )
    text = (
        f"{same} was compared with falcon-ssl when it was written: over {found['images']} images ({found['source']})"
        f" the largest difference is {found['largest_difference']:.1e}, that is {found['relative_difference']:.1e} of"
        " the largest number."
    )
    readout = Readout(**about["readout"])
    if readout.is_own:
        return text
    if found["of"] == "readout":
        return f"{text} It is the readout `{readout}` of the encoder."
    return (
        f"{text} The run is evaluated by the readout `{readout}` ({about['numbers_read']} numbers), which timm does not"
        " have: `falcon_ssl.load_encoder` on this folder gives it, and so does an export --to hf, onnx or torch."
    )


def _preprocessing(about: Mapping[str, Any]) -> str:
    seen = about["preprocessing"]
    channels, height, width = seen["image_shape"]
    size = seen["size"]
    then = f", then that resized to {size} x {size} (bilinear, antialiased)" if size else ""
    color = "grayscale" if channels == 1 else "RGB" if channels == 3 else f"{channels} channels"
    mean, std = (", ".join(f"{value:g}" for value in seen[name]) for name in ("mean", "std"))
    if _is_measured(seen):
        ends = seen["value_range"] and " to ".join(f"{end:g}" for end in seen["value_range"])
        bits = 16 if seen["keep_16bit"] else 8
        color += f" of {bits} bits, {f'values from {ends}' if ends else 'the range of their type'} brought to [0, 1]"
        color += " (`falcon_ssl.load_encoder` reads such files, the processors of other libraries do not)"
    return (
        f"{color}; resized until it covers {width} x {height} (bicubic, antialiased), the center of that{then}; values"
        f" in [0, 1], minus mean ({mean}), divided by standard deviation ({std}). Another way to resize changes the"
        " numbers."
    )


def _foreign(about: Mapping[str, Any]) -> list[str]:
    found = about["verified"].get("own_preprocessing")
    if found is None:
        return []
    text = (
        "With the library's own transform, which the folder configures, in place of that the numbers differ by"
        f" {found:.1e} of the largest at most, over the same images"
    )
    seen = about["preprocessing"]
    if seen["size"]:
        _, height, width = seen["image_shape"]
        text += (
            f", which had {width} x {height} pixels; files of other sizes it resizes once, not twice, and the numbers"
            " differ more"
        )
    return [text + "."]


def _training(run: Run) -> str:
    initial = run.setting("weights")
    rows = {
        "epochs": run.setting("epochs"),
        "batch size": run.setting("batch_size"),
        "seed": run.setting("seed"),
        "initial weights": None if initial is None else published(str(initial)),
    }
    if (seconds := run.environment.get("seconds")) is not None:
        rows["time"] = format_duration(float(seconds))
    for name in ("device", "precision", "commit", "falcon_ssl"):
        if found := run.environment.get(name):
            rows[name] = format_precision(found) if name == "precision" else found
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)


def _numbers(run: Run, about: Mapping[str, Any]) -> list[str]:
    """Every number of the evaluation beside that of the untrained network and chance."""
    if not run.evaluation:
        return ["Not measured: `falcon-ssl evaluate RUN` before the export puts the numbers here."]
    beside = run.started_from
    rows = [f"| | trained | {beside} | chance |", "|---|---|---|---|"]
    for name in sorted(run.evaluation, key=lambda name: GROUPS.index(describe(name).group)):
        if (value := run.metric(name)) is None:
            continue
        metric = describe(name)
        numbers = (value, run.metric("random_encoder", name), run.chance(name))
        cells = " | ".join(
            "" if one is None else format_number(one, metric.kind) for one in numbers
        )
        rows.append(f"| {metric.label} | {cells} |")
    note = f"{run.about('note')}; {run.about('num_test')} images"
    if read := run.about("readout"):
        note += f"; classifiers read `{Readout(**read)}`"
    note += "."
    if about["checkpoint"] != "last":
        note += f" Of the last checkpoint; this is the one that is kept as {about['checkpoint']}."
    alarms = [
        f"Alarm while training: {alarm.text} (epoch {alarm.epoch:.3g})." for alarm in run.alarms
    ]
    verdict = run.diagnosis.get("sentence")
    return ["\n".join(rows), note, *([verdict] if verdict else []), *alarms]
