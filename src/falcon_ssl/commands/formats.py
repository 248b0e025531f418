"""The kinds of folder that `export` writes: what each holds, and how another library reads it back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from falcon_ssl.commands.frozen import ReadEncoder, rebuilt
from falcon_ssl.config.export import Format
from falcon_ssl.core.consent import check_trusted
from falcon_ssl.core.errors import InputError, one_line
from falcon_ssl.core.extras import train_extra
from falcon_ssl.engine.checkpoint import save_tensors
from falcon_ssl.networks.timm import AsTimm, import_beside_torchvision, import_transformers
from falcon_ssl.records.files import read_json, write_json
from falcon_ssl.records.schema import EXPORT_FORM

ABOUT = "falcon_ssl.json"  # of every folder: what its network is, and how it is used
WEIGHTS = "model.safetensors"
CONFIG = "config.json"  # where timm and transformers look
PROCESSOR = "preprocessor_config.json"
ONNX, TORCH = "model.onnx", "model.pt2"
INPUT, OUTPUT = "pixel_values", "representation"
_PREFIX = "encoder."  # of weights in a model of transformers

Network: TypeAlias = Callable[[Tensor], Tensor]


class Kind(NamedTuple):
    """One kind of folder.

    Args:
        write: Writes a network into a folder, beside the `ABOUT` of it.
        read: The network of a folder as the library it is meant for reads it: normalized images to z_ND.
        usage: Python that uses it, for the model card; FOLDER stands for the folder, PIXELS for the lines that read an
            image without another library's transform.
        reads_pooled: Whether that library reads the encoder's own representation, whatever the readout.
    """

    write: Callable[[Path, ReadEncoder, Mapping[str, Any]], None]
    read: Callable[[Path, Mapping[str, Any]], Network]
    usage: str
    reads_pooled: bool = False


def kind_of(to: Format, network: ReadEncoder) -> Kind:
    """How a network is exported.

    Raises:
        InputError: A library that does not have this network.
    """
    is_timm = as_timm(network.encoder) is not None
    if to == "timm" and not is_timm:
        raise InputError(
            "timm does not have this encoder",
            received=type(network.encoder).__name__,
            expected="timm:NAME, or resnet10, resnet18, resnet50 of width 64 with all stages and the stem imagenet",
            fix="export it --to hf, onnx, torch or safetensors",
        )
    if to == "hf" and is_timm and network.readout.is_own:
        return _TIMM_WRAPPER
    return {"safetensors": _SAFETENSORS, "timm": _TIMM, "hf": _HF, "onnx": _ONNX, "torch": _TORCH}[
        to
    ]


def as_timm(encoder: nn.Module) -> AsTimm | None:
    """How timm builds an encoder; None for one that it does not have."""
    found: AsTimm | None = getattr(encoder, "as_timm", None)
    return found


def read_network(folder: Path, about: Mapping[str, Any]) -> nn.Module:
    """The network of an exported folder of any kind, readout included, as a module.

    Raises:
        InputError: Files that are missing, damaged or do not fit each other; or code without consent.
    """
    try:
        if about["to"] == "onnx":
            return _OnnxNetwork(folder / ONNX)
        if about["to"] == "torch":  # torch.export.load unpickles
            check_trusted("the exported encoder", f"the program {folder / TORCH}")
            return _exported(folder)
        return rebuilt(about, lambda encoder: _fill(encoder, folder))
    except InputError:
        raise
    except Exception as error:  # each reader raises its own kinds; all mean the same to the user
        raise InputError(
            f"cannot read the exported encoder {folder}",
            received=one_line(error, named=True),
            expected="a folder as falcon-ssl export wrote it",
            fix="export it again",
        ) from error


def read_about(folder: Path) -> dict[str, Any]:
    """What an exported folder says of itself. InputError: it is damaged."""
    return read_json(folder / ABOUT, EXPORT_FORM)


def _fill(encoder: nn.Module, folder: Path) -> None:
    """Load the weights of a folder, which transformers prefixes."""
    from safetensors.torch import load_file

    found = load_file(folder / WEIGHTS)
    if found.keys() != encoder.state_dict().keys():
        found = {name.removeprefix(_PREFIX): value for name, value in found.items()}
    encoder.load_state_dict(found)


def _write_weights(folder: Path, encoder: nn.Module, about: Mapping[str, Any]) -> None:
    tensors = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    header = {"format": "pt", "falcon_ssl": json.dumps(about)}
    save_tensors(tensors, folder / WEIGHTS, metadata=header)


def _write_safetensors(folder: Path, network: ReadEncoder, about: Mapping[str, Any]) -> None:
    _write_weights(folder, network.encoder, about)
    _write_processor(folder, about)


def _write_timm(folder: Path, network: ReadEncoder, about: Mapping[str, Any]) -> None:
    timm, found, seen = (
        import_beside_torchvision("timm"),
        as_timm(network.encoder),
        about["preprocessing"],
    )
    assert found is not None
    channels, height, width = seen["image_shape"]
    size, names = seen["size"], timm.get_pretrained_cfg(found.architecture)
    own = {
        "tag": "falcon_ssl",
        "custom_load": False,
        "input_size": [channels, size or height, size or width],
        "fixed_input_size": names.fixed_input_size,
        "interpolation": "bilinear" if size else "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center" if height == width else "squash",
        "mean": _each(seen["mean"], channels),
        "std": _each(seen["std"], channels),
        "num_classes": 0,
        "pool_size": None,
        "first_conv": names.first_conv,
        "classifier": names.classifier,
    }
    config = {
        "architecture": found.architecture,
        "num_classes": 0,
        "num_features": about["width"],
        "pretrained_cfg": own,
        "model_args": found.arguments,
    }
    write_json(folder / CONFIG, config)
    _write_weights(folder, network.encoder, about)


def _each(values: list[float], channels: int) -> list[float]:
    """One value a channel."""
    return list(values) * (channels if len(values) == 1 else 1)


def _write_hf(folder: Path, network: ReadEncoder, about: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about other packages
        from falcon_ssl.networks.huggingface import FalconEncoderConfig, FalconEncoderModel

        channels, height, _ = about["preprocessing"]["image_shape"]
        size = about["preprocessing"]["size"]
        config = FalconEncoderConfig(
            encoder=dict(about["encoder"]),
            num_channels=channels,
            image_size=size or height,
            readout=dict(about["readout"]),
            architectures=[FalconEncoderModel.__name__],
        )
        config.save_pretrained(folder)
    tensors = {
        f"{_PREFIX}{name}": value.contiguous()
        for name, value in network.encoder.state_dict().items()
    }
    save_tensors(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _write_processor(folder, about)


def _write_processor(folder: Path, about: Mapping[str, Any]) -> None:
    """The preprocessing as transformers writes it, and other tools read it."""
    seen = about["preprocessing"]
    channels, height, width = seen["image_shape"]
    size, square = seen["size"], height == width
    sides = {"height": size or height, "width": size or width}
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": size or height} if square else sides,
        "resample": 2 if size else 3,  # bilinear, bicubic
        "do_center_crop": square,
        "crop_size": sides,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _each(seen["mean"], channels),
        "image_std": _each(seen["std"], channels),
    }
    write_json(folder / PROCESSOR, processor)


def _write_onnx(folder: Path, network: ReadEncoder, about: Mapping[str, Any]) -> None:
    with train_extra("export --to onnx", extra="export"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own packages
        torch.onnx.export(
            network,
            _example(about),
            folder / ONNX,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _write_processor(folder, about)


def _write_torch(folder: Path, network: ReadEncoder, about: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, _example(about), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, folder / TORCH)
    _write_processor(folder, about)


def _example(about: Mapping[str, Any]) -> tuple[Tensor]:
    """Two images: a batch of one would be taken for a constant."""
    channels, height, width = about["preprocessing"]["image_shape"]
    size = about["preprocessing"]["size"]
    return (torch.zeros(2, channels, size or height, size or width),)


class _OnnxNetwork(nn.Module):
    """A network that onnxruntime runs, on the CPU."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        with train_extra("reading ONNX", extra="export"):
            import onnxruntime
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> z_ND."""
        (z_ND,) = self.session.run([OUTPUT], {INPUT: images.cpu().numpy()})
        return torch.from_numpy(z_ND)


def _exported(folder: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = torch.export.load(folder / TORCH).module()
    return module


def _read_timm(folder: Path, about: Mapping[str, Any]) -> Network:
    timm = import_beside_torchvision("timm")
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def own_preprocessing(to: Format, folder: Path, pixels: Tensor) -> Tensor | None:
    """What the transform that a folder configures makes of images [N, C, H, W]; None where it has none for them.

    It rounds to whole pixel values where this library does not, so features are alike and not the same.
    """
    from PIL import Image

    if to not in ("timm", "hf") or pixels.dtype != torch.uint8 or pixels.shape[1] not in (1, 3):
        return None
    images = [Image.fromarray(x.permute(1, 2, 0).squeeze(2).numpy()) for x in pixels]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if to == "hf":
            processor = import_transformers().AutoImageProcessor.from_pretrained(folder)
            found: Tensor = processor(images, return_tensors="pt").pixel_values
            return found
        timm = import_beside_torchvision("timm")
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["pretrained_cfg"]
        transform = timm.data.create_transform(**timm.data.resolve_data_config(config))
    return torch.stack([transform(image) for image in images])


def _read_hf(folder: Path, about: Mapping[str, Any]) -> Network:
    transformers = import_transformers()
    shows = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModel.from_pretrained(folder).eval()
    finally:
        if shows:
            transformers.utils.logging.enable_progress_bar()
    return lambda images: model(images).pooler_output


_SAFETENSORS = Kind(
    _write_safetensors,
    read_network,
    """import falcon_ssl

encoder = falcon_ssl.load_encoder("FOLDER")
z = encoder(encoder.preprocess(["cat.jpg"]))  # or load model.safetensors into the network yourself""",
)
_TIMM = Kind(
    _write_timm,
    _read_timm,
    """import timm
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # hf-hub:REPO from the hub
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
z = model(transform(Image.open("cat.jpg"))[None])""",
    reads_pooled=True,
)
_TIMM_WRAPPER = Kind(
    _write_timm,
    _read_hf,
    """from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model, processor = AutoModel.from_pretrained("FOLDER"), AutoImageProcessor.from_pretrained("FOLDER")
z = model(**processor(Image.open("cat.jpg"))).pooler_output""",
)
_HF = Kind(
    _write_hf,
    _read_hf,
    """import falcon_ssl.networks.huggingface  # registers the model with transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model, processor = AutoModel.from_pretrained("FOLDER"), AutoImageProcessor.from_pretrained("FOLDER")
z = model(**processor(Image.open("cat.jpg"), return_tensors="pt")).pooler_output""",
)
_ONNX = Kind(
    _write_onnx,
    lambda folder, about: _OnnxNetwork(folder / ONNX),
    f"""import numpy
import onnxruntime
from PIL import Image, ImageOps

PIXELS
session = onnxruntime.InferenceSession("FOLDER/{ONNX}")
(z,) = session.run(None, {{"{INPUT}": pixels}})""",
)
_TORCH = Kind(
    _write_torch,
    lambda folder, about: _exported(folder),
    f"""import numpy
import torch
from PIL import Image, ImageOps

PIXELS
network = torch.export.load("FOLDER/{TORCH}").module()
z = network(torch.from_numpy(pixels))""",
)
