"""What is done with a table of embeddings; as `falcon_ssl.cli.commands`."""

from __future__ import annotations

from pathlib import Path

SHOWN = 10  # groups of duplicates that are printed


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


def _print_picture(sheet: Path) -> None:
    if sheet.is_file():
        print(f"picture: {sheet}")
