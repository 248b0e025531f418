"""Features: what a frozen network says about every image of a split, extracted once and kept.

Everything else in this package is a function of `Features`, so any network of any library can be
evaluated: fill in ``z`` and leave out what does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from falcon_ssl.core.checks import check_at_least, check_finite, check_matrix, check_same_length
from falcon_ssl.core.distributed import gather_on_host, rank, world_size
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.modes import evaluation_mode
from falcon_ssl.data import Source, read_ahead, read_images
from falcon_ssl.dictionary.assign import nearest_codes
from falcon_ssl.dictionary.base import Dictionary
from falcon_ssl.networks.readout import OWN, Readout
from falcon_ssl.records.arrays import write_arrays
from falcon_ssl.records.files import replacing

ARRAY_NAMES = ("z", "u", "code", "label", "index")
MOST_CLASSES = 2**26
SHARED = 8  # images a rank, from which on ranks share them


class EvaluationView(Protocol):
    """The one deterministic view of an image: normalized, nothing random."""

    def evaluate(self, images: Tensor, /) -> Tensor:
        """Floating images [B, C, H, W] from uint8 images [B, C, H, W]."""


@dataclass(frozen=True)
class Features:
    """What a frozen network says about N images. Row i of every array belongs to image i.

    Args:
        z: Representation [N, D], float32.
        u: Embedding [N, F], float32, unit rows; None for a network without projector.
        code: Index of the nearest code [N], int64; None without a dictionary.
        label: Class [N], int64, counted from 0; None for images without labels.
        index: Row of the image in its source [N], int64; images that cannot be read are no rows here. None where
            nobody needs to find the images again.

    Raises:
        InputError: If a shape, dtype or length is wrong, a value is NaN or infinite, or an index is
            negative.

    Example:
        >>> features = Features(z=torch.eye(3), label=torch.tensor([0, 1, 1]))
        >>> len(features)
        3
    """

    z: Tensor
    u: Tensor | None = None
    code: Tensor | None = None
    label: Tensor | None = None
    index: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ARRAY_NAMES:
            value: Tensor | None = getattr(self, name)
            if value is None:
                continue
            if name in ("z", "u"):
                check_matrix(name, value)
                _check_dtype(name, value, torch.float32)
                check_finite(name, value, fix="find the image or layer that produces them")
            else:
                _check_dtype(name, value, torch.int64)
                if value.dim() != 1:
                    what, shape = f"{name} is not a list of indices", tuple(value.shape)
                    raise InputError(what, received=f"shape {shape}", expected="[N]")
            check_same_length("z", self.z, name, value)
            if value.dtype == torch.int64:
                fix = f"count from 0, and leave out images without {name}"
                check_at_least(f"smallest {name}", int(value.min()), 0, fix=fix)
            if name in ("code", "label") and int(value.max()) >= MOST_CLASSES:
                raise InputError(
                    f"{name} holds a number that is none",
                    received=int(value.max()),
                    expected=f"less than {MOST_CLASSES}, as one is counted for each",
                    fix="number them 0, 1, 2, ...",
                )

    def __len__(self) -> int:
        return self.z.shape[0]

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """Rows after rows, z, label and index: a linear probe can learn from an image that was read in several ways."""
        arrays: dict[str, Tensor] = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("z", "label", "index")
            if getattr(parts[0], name) is not None
        }
        return cls(**arrays)

    @classmethod
    def averaged(cls, parts: Sequence[Features]) -> Features:
        """The mean z of the same images, that were read in several ways."""
        z_ND = torch.stack([part.z for part in parts]).mean(dim=0) if len(parts) > 1 else parts[0].z
        return replace(parts[0], z=z_ND)

    @classmethod
    def from_arrays(
        cls, z: Any, *, u: Any = None, code: Any = None, label: Any = None, index: Any = None
    ) -> Features:
        """Features from anything NumPy understands, converted to float32 and int64.

        Raises:
            InputError: As for the class, and if ``code``, ``label`` or ``index`` are not whole numbers.

        Example:
            >>> Features.from_arrays([[1, 2], [3, 4]], label=[0, 1]).z.dtype
            torch.float32
        """
        given = {"code": code, "label": label, "index": index}
        whole = {name: _as_int64(name, v) for name, v in given.items() if v is not None}
        return cls(z=as_float32(z), u=None if u is None else as_float32(u), **whole)

    def save(self, path: str | Path) -> None:
        """Write to ``.npz`` or ``.safetensors``; neither can hold code, so both are safe to load.

        Raises:
            InputError: If the suffix is another one.
        """
        path = Path(path)
        arrays = {
            name: value.detach().cpu().contiguous()
            for name in ARRAY_NAMES
            if (value := getattr(self, name)) is not None
        }
        if path.suffix == ".npz":
            write_arrays(path, {name: value.numpy() for name, value in arrays.items()})
        elif path.suffix == ".safetensors":
            from safetensors.torch import save_file

            with replacing(path) as unfinished:
                save_file(arrays, unfinished)
        else:
            raise unknown_suffix(path, ".npz or .safetensors")


def extract(
    method: nn.Module,
    source: Source,
    views: EvaluationView,
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    dictionary: Dictionary | None = None,
    indices: Tensor | None = None,
    readout: Readout = OWN,
    autocast: bool = False,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """Run the frozen network once over the images of a source.

    Evaluation mode throughout: BatchNorm uses its running statistics, so that the features of an
    image depend on nothing but the image. Each submodule gets its own mode back afterwards.
    Images that turn out to be unreadable are left out; ``index`` says which are there.

    Args:
        method: A module with ``embed(images) -> (z [B, D], u [B, F] or None)``, on ``device``.
        source: The images, and labels if any.
        views: Its ``evaluate`` turns uint8 images into the network's input.
        batch_size: Images at a time; changes speed and memory only.
        device: Where the network is.
        dictionary: Codes to assign ``u`` to; None leaves ``code`` out.
        indices: Which images, int64 [N]; None takes all, in order.
        readout: What z is read off ``method.evaluated_encoder``, without u and code; the encoder's own representation
            comes from ``embed``, with them.
        autocast: Whether the network computes in bfloat16.
        progress: Called with the number of images of every batch, those of all ranks.

    Returns:
        Features on the CPU.

    Raises:
        InputError: If there are no images that can be read, ``batch_size`` < 1, the network returns
            NaN, or a dictionary is given but the network has no embedding.

    Memory:
        O(batch_size) on the device, the N rows on the CPU; never an N x C matrix.

    Distributed:
        Every rank calls it, runs the network over its part of the images, and gets the features of all of them.
    """
    if indices is None:
        indices = torch.arange(len(source))
    is_shared = len(indices) >= SHARED * world_size()
    parts: dict[str, list[Tensor]] = {name: [] for name in ("z", "u", "code", "index")}
    for batch in extracted(
        method,
        source,
        views,
        batch_size=batch_size,
        device=device,
        indices=indices.tensor_split(world_size())[rank()] if is_shared else indices,
        readout=readout,
        autocast=autocast,
    ):
        progress(len(batch.index_B) * (world_size() if is_shared else 1))
        parts["index"].append(batch.index_B)
        parts["z"].append(batch.z_BD.cpu())
        if batch.u_BF is not None:
            parts["u"].append(batch.u_BF.cpu())
        if dictionary is not None:
            if batch.u_BF is None:
                raise InputError(
                    "codes need an embedding",
                    received="a dictionary and a network without projector",
                    expected="embed(images) -> (z, u)",
                    fix="leave the dictionary out",
                )
            parts["code"].append(nearest_codes(batch.u_BF, dictionary).cpu())
    check_at_least("number of readable images", len(parts["index"]), 1, fix="repair the files")
    # Clones made outside inference mode: ordinary tensors, fit for autograd (the linear probe).
    whole = {name: torch.cat(part).clone() for name, part in parts.items() if part}
    if is_shared:
        whole = {name: gather_on_host(rows, torch.device(device)) for name, rows in whole.items()}
    labels = None if source.labels is None else source.labels.cpu()[whole["index"]].long()
    return Features(**whole, label=labels)


class ExtractedBatch(NamedTuple):
    """What a frozen network says of a batch, on its device.

    Args:
        index_B: Rows of the images in their source; those that cannot be read are left out.
        z_BD: What the readout reads, float32.
        u_BF: Embedding, float32; None where the network has none, or nobody asked.
    """

    index_B: Tensor
    z_BD: Tensor
    u_BF: Tensor | None


def extracted(
    method: nn.Module,
    source: Source,
    views: EvaluationView,
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    indices: Tensor | None = None,
    readout: Readout = OWN,
    autocast: bool = False,
    embedding: bool = False,
) -> Iterator[ExtractedBatch]:
    """As `extract`, batch by batch, for sets whose features do not fit in memory; images are read ahead by threads.

    Args:
        method: As `extract`, like all the others.
        source: The images.
        views: Its ``evaluate`` makes the network's input.
        batch_size: Images at a time.
        device: Where the network is.
        indices: Which images.
        readout: What z is.
        autocast: Whether the network computes in bfloat16.
        embedding: Whether u is wanted beside a readout that is not the network's own.
    """
    check_at_least("batch_size", batch_size, 1)
    if indices is None:
        indices = torch.arange(len(source))
    check_at_least("number of images", len(indices), 1, fix="check the path and split of the data")
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=autocast)
    with evaluation_mode(method):
        for index_B, pixels in read_ahead(
            partial(read_images, source), torch.split(indices, batch_size)
        ):
            if len(index_B) == 0:
                continue
            u_BF: Tensor | None = None
            with torch.inference_mode(), half:
                x_BCHW = views.evaluate(pixels.to(device))
                x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
                if readout.is_own or embedding:
                    z_BD, u_BF = method.embed(x_BCHW)  # type: ignore[operator]
                if not readout.is_own:
                    z_BD = readout(method.evaluated_encoder, x_BCHW)  # type: ignore[arg-type]
            yield ExtractedBatch(index_B, z_BD.float(), None if u_BF is None else u_BF.float())


def unknown_suffix(path: Path, expected: str) -> InputError:
    """The error for a file of another kind."""
    return InputError(
        "unknown kind of feature file",
        received=repr(path.suffix),
        expected=expected,
        fix="write an array z [N, D] with numpy.savez, which can hold no code",
    )


def _check_dtype(name: str, value: Tensor, dtype: torch.dtype) -> None:
    if value.dtype != dtype:
        what, fix = f"{name} has the wrong dtype", "convert, or build with Features.from_arrays"
        raise InputError(what, received=value.dtype, expected=dtype, fix=fix)


def _as_tensor(value: Any) -> Tensor:
    try:
        found = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "an array cannot be read", received=error, expected="rows of real numbers"
        ) from error
    if found.is_complex():
        raise InputError(
            "an array is complex", received=found.dtype, expected="rows of real numbers"
        )
    return found


def as_float32(value: Any) -> Tensor:
    """Anything that NumPy understands, on the CPU."""
    return _as_tensor(value).detach().to("cpu", torch.float32)


def _as_int64(name: str, value: Any) -> Tensor:
    index = _as_tensor(value).detach().cpu()
    whole = index.to(torch.int64)
    if not torch.equal(whole.to(index.dtype), index):
        what, expected = f"{name} holds values that are not whole numbers", "indices 0, 1, 2, ..."
        raise InputError(what, received=index.dtype, expected=expected)
    return whole
