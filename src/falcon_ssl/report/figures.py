"""The figures of a run as objects: they display in a notebook, and save themselves as SVG or PNG.

    from falcon_ssl.report import figures

    figures.spectrum("runs/demo")                          # in a notebook: the picture
    figures.spectrum("runs/demo").save("spectrum.png")     # also .svg, light or dark as its viewer is

Every function takes a run folder, or a `Run` that was read once; each figure has a ``title`` and a ``caption`` that
says exactly what is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from falcon_ssl.core.errors import InputError
from falcon_ssl.records.folder import EVALUATION
from falcon_ssl.records.run import Run, read_run
from falcon_ssl.report.curves import training_figure
from falcon_ssl.report.document import Figure
from falcon_ssl.report.optimum import gap_figure
from falcon_ssl.report.plots import (
    code_usage_figure,
    contrast_figure,
    covariance_figure,
    spectrum_figure,
)


def spectrum(run: str | Path | Run, *, space: Literal["z", "u"] = "z") -> Figure:
    """How many directions the representation z (or the embedding u) uses, beside those before training.

    Args:
        run: Run folder that was evaluated.
        space: "z" or "u".

    Raises:
        InputError: The run was not evaluated.
    """
    return _drawn(spectrum_figure(_read(run), space), "singular values")


def covariance(run: str | Path | Run) -> Figure:
    """HᵀH of the embedding, beside that before training; the identity is ideal.

    Args:
        run: Run folder that was evaluated.

    Raises:
        InputError: The run was not evaluated.
    """
    return _drawn(covariance_figure(_read(run)), "covariances")


def codes(run: str | Path | Run) -> Figure:
    """How many images every code has, most used first.

    Args:
        run: Run folder that was evaluated.

    Raises:
        InputError: The run was not evaluated, or its method has no codes.
    """
    return _drawn(code_usage_figure(_read(run)), "codes")


def blocks(run: str | Path | Run) -> Figure:
    """Cosines of images that share a code, beside those of images that do not.

    Args:
        run: Run folder that was evaluated.

    Raises:
        InputError: The run was not evaluated, or its method has no codes.
    """
    return _drawn(contrast_figure(_read(run)), "codes and cosines")


def training(run: str | Path | Run, quantity: str = "total") -> Figure:
    """A quantity over training, with what the theory says of it and the alarms.

    Args:
        run: Run folder.
        quantity: A name of ``metrics.jsonl``: total, entropy, mutual_information_bits, effective_rank_z, top1_knn, ...

    Raises:
        InputError: Nothing of this name was logged.
    """
    return training_figure(_read(run), quantity)


def gaps(run: str | Path | Run) -> Figure:
    """How far each term of the loss is from the optimum of the theorem, over training.

    Args:
        run: Run folder of a FALCON run.

    Raises:
        InputError: The run has no such terms.
    """
    found = gap_figure(_read(run))
    if found is None:
        raise InputError("no gaps", received="a run of another method", expected="a FALCON run")
    return found


def _read(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else read_run(Path(run))


def _drawn(figure: Figure | None, what: str) -> Figure:
    if figure is None:
        raise InputError(
            f"nothing to draw: the run has no {what}",
            received=f"a run without them beside its {EVALUATION}",
            expected="a run that was evaluated, of a method that has them",
            fix="run falcon-ssl evaluate RUN",
        )
    return figure
