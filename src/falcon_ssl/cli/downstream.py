"""What is done with embeddings and with a pretrained encoder; as `falcon_ssl.cli.commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from falcon_ssl.cli.arguments import OWN_IMAGES, given, images_of
from falcon_ssl.config.evaluation import Representation
from falcon_ssl.config.export import Format
from falcon_ssl.config.finetune import FinetuneConfig
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.core.machine import is_main_process
from falcon_ssl.records.folder import FINETUNE

SHOWN = 10  # groups of duplicates that are printed
RECIPE = FinetuneConfig()


def embed(
    run: str,
    *,
    out: str,
    split: Literal["auto", "train", "test", "all"] = "auto",
    checkpoint: str = "last",
    representation: Representation | None = None,
    mirror: bool | None = None,
    crops: int | None = None,
    scales: tuple[float, ...] | None = None,
    overwrite: bool = False,
    data: str | None = None,
    reading: ReadingConfig = OWN_IMAGES,
) -> None:
    """Write the features of a run's images, or of others: a table that pandas, polars, DuckDB and datasets read.

    Args:
        run: Run folder.
        out: File to write: .parquet, with paths and in bounded memory; .npz or .safetensors.
        split: Which part; auto is the test part, or all images where there is none; all is both.
        checkpoint: The last, or one that is kept: best, best_knn, epoch_10.
        representation: What z is; null is the run's evaluation.representation.
        mirror: Average it over the mirror image too; null is the run's own.
        crops: 9 averages it over a grid of crops; null is the run's own.
        scales: Average it over the image resized by these factors, 1 1.25; null is the run's own.
        overwrite: Replace the file, if there is one.
        data: Other images than the run's own: folder:PATH, ...
        reading: How the images are read, the run's own or those of --data.
    """
    from falcon_ssl import commands

    file = commands.embed(
        run,
        out=out,
        split=split,
        checkpoint=checkpoint,
        overwrite=overwrite,
        evaluation=given(representation=representation, mirror=mirror, crops=crops, scales=scales),
        **images_of(data, reading),
    )
    if is_main_process():
        print(f"embeddings: {file}")
        if file.suffix == ".parquet":
            print(f"next: falcon-ssl search {file} IMAGE, or falcon-ssl duplicates {file}")


def search(
    file: str,
    images: tuple[str, ...],
    *,
    k: int = 10,
    out: str | None = None,
    run: str | None = None,
    overwrite: bool = False,
) -> None:
    """Find the images of a table that are nearest to others, and draw them.

    Args:
        file: Table that falcon-ssl embed wrote: .parquet.
        images: Image files, of the table or not; or rows of the table, counted from 0.
        k: How many for each of them.
        out: Picture to write: .png; null is FILE.search.png, which is renewed.
        run: Run folder, where it is not any more where it was; null is where it was.
        overwrite: Replace the picture of --out, if there is one.
    """
    from falcon_ssl import commands

    found = commands.search(file, images, k=k, out=out, run=run, overwrite=overwrite)
    for image, hits in zip(images, found, strict=True):
        print(f"{image}:" if len(images) > 1 else "cosine  image")
        for hit in hits:
            print(f"{hit.cosine:6.3f}  {hit.place}")
    _print_picture(Path(file).with_suffix(".search.png") if out is None else Path(out))


def duplicates(
    file: str, *, similarity: float = 0.9, out: str | None = None, overwrite: bool = False
) -> None:
    """Find groups of images that are nearly the same, and draw them.

    Args:
        file: Table that falcon-ssl embed wrote: .parquet.
        similarity: Least cosine, of whitened representations, of two images that count as the same.
        out: List to write: .csv, and the picture beside it; null is FILE.duplicates.csv, which is renewed.
        overwrite: Replace the list of --out, if there is one.
    """
    from falcon_ssl import commands

    groups = commands.duplicates(file, similarity=similarity, out=out, overwrite=overwrite)
    target = Path(file).with_suffix(".duplicates.csv") if out is None else Path(out)
    more = sum(len(group.places) - 1 for group in groups)
    print(
        f"{len(groups)} groups; {more} images besides the first of each (cosine >= {similarity:g})"
    )
    for group in groups[:SHOWN]:
        print(
            f"{min(group.cosines):.3f}  {'  '.join(group.places[:4])}{'  ...' * (len(group.places) > 4)}"
        )
    print(f"all groups: {target}")
    _print_picture(target.with_suffix(".png"))


def finetune(
    run: str,
    *,
    out: str,
    checkpoint: str = "last",
    overwrite: bool = False,
    data: str | None = None,
    finetune: FinetuneConfig = RECIPE,
    reading: ReadingConfig = OWN_IMAGES,
) -> None:
    """Fine-tune a run's encoder on labels, beside the same network from scratch.

    Args:
        run: Run folder.
        out: Folder to write: finetune.json, and the weights of the best classifier.
        checkpoint: The last, or one that is kept: best, best_knn, epoch_10.
        overwrite: Replace the folder, if there is one.
        data: Other images than the run's own: folder:PATH, ...
        finetune: The recipe.
        reading: How the images are read, the run's own or those of --data.
    """
    from falcon_ssl import commands
    from falcon_ssl.commands.finetune import lines_of

    record = commands.finetune(
        run,
        out=out,
        **images_of(data, reading),
        config=finetune,
        checkpoint=checkpoint,
        overwrite=overwrite,
    )
    for line in lines_of(record):
        print(line)
    print(f"all numbers: {Path(out) / FINETUNE}")


def export(
    run: str,
    *,
    out: str,
    to: Format = "safetensors",
    representation: Representation | None = None,
    mirror: bool | None = None,
    crops: int | None = None,
    scales: tuple[float, ...] | None = None,
    checkpoint: str = "last",
    push_to_hub: str | None = None,
    overwrite: bool = False,
    data: str | None = None,
    reading: ReadingConfig = OWN_IMAGES,
) -> None:
    """Write the encoder for another library, as a folder that is checked there on 100 images.

    Args:
        run: Run folder.
        out: Folder to write: weights, configuration, preprocessing, model card.
        to: The weights as they are; for timm or Hugging Face's transformers; ONNX; torch.export.
        representation: What it reads; null is the run's evaluation.representation. timm reads its own.
        mirror: Average it over the mirror image too; null is the run's own.
        crops: 9 averages it over a grid of crops; null is the run's own.
        scales: Average it over the image resized by these factors, 1 1.25; null is the run's own.
        checkpoint: last, or one that --engine.keep kept: best, best_knn, epoch_10.
        push_to_hub: Repository of the Hugging Face hub to upload it to: OWNER/NAME; a new one is private.
        overwrite: Replace the folder, if there is one.
        data: Other images than the run's own to check it on: folder:PATH, ...
        reading: How the images are read, the run's own or those of --data.
    """
    from falcon_ssl import commands

    folder = commands.export(
        run,
        out=out,
        to=to,
        evaluation=given(representation=representation, mirror=mirror, crops=crops, scales=scales),
        checkpoint=checkpoint,
        push_to_hub=push_to_hub,
        overwrite=overwrite,
        **images_of(data, reading),
    )
    print(f"encoder: {folder}   (how to use it: {folder / 'README.md'})")


def _print_picture(sheet: Path) -> None:
    if sheet.is_file():
        print(f"picture: {sheet}")
