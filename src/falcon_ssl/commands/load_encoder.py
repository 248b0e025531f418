"""Load a trained encoder for use, in one line."""

from __future__ import annotations

from pathlib import Path

from falcon_ssl.commands.formats import ABOUT, read_about, read_network
from falcon_ssl.commands.frozen import FrozenEncoder, Preprocessing, ReadEncoder
from falcon_ssl.commands.loading import load_method
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.networks import Readout
from falcon_ssl.records.folder import CONFIG, DATA


def load_encoder(
    path: str | Path, *, checkpoint: str = "last", trust_code: bool = False
) -> FrozenEncoder:
    """The encoder of a run, or of a folder that `export` wrote, frozen and with its preprocessing.

    Args:
        path: A run folder, or an exported folder of any kind.
        checkpoint: Of a run: "last", or one that it keeps beside it: "best", "epoch_10".
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Raises:
        InputError: Neither, a run without a checkpoint, or files that do not fit each other.

    Example:
        >>> encoder = load_encoder("runs/photos")            # doctest: +SKIP
        >>> z_ND = encoder(encoder.preprocess(["a.jpg", "b.jpg"]))  # doctest: +SKIP
    """
    path = Path(path)
    if (path / ABOUT).is_file():
        about = read_about(path)
        preprocess = Preprocessing.from_mapping(about["preprocessing"])
        with trusting_code(trust_code):
            return FrozenEncoder(read_network(path, about), preprocess)
    if not (path / CONFIG).is_file():
        raise InputError(
            "no encoder",
            received=path,
            expected=f"a run folder, or a folder that falcon-ssl export wrote (it holds {ABOUT})",
        )
    with trusting_code(trust_code):
        config, method, views = load_method(path, checkpoint=checkpoint)
    network = ReadEncoder(method.evaluated_encoder, Readout.of(config.evaluation))
    image_shape = RunFolder.open(path).read_json(DATA)["image_shape"]
    return FrozenEncoder(network, Preprocessing.of(image_shape, views, config.reading))
