"""What is done with embeddings and with a pretrained encoder; as `falcon_ssl.cli.commands`."""

from __future__ import annotations

from pathlib import Path

from falcon_ssl.config.finetune import FinetuneConfig
from falcon_ssl.config.run import ReadingConfig
from falcon_ssl.records.folder import FINETUNE

SHOWN = 10  # groups of duplicates that are printed
OWN_IMAGES, RECIPE = ReadingConfig(), FinetuneConfig()


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
        data=data,
        reading=None if reading == OWN_IMAGES else reading,
        config=finetune,
        checkpoint=checkpoint,
        overwrite=overwrite,
    )
    for line in lines_of(record):
        print(line)
    print(f"all numbers: {Path(out) / FINETUNE}")


def _print_picture(sheet: Path) -> None:
    if sheet.is_file():
        print(f"picture: {sheet}")
