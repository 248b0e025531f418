"""CIFAR-10 without labels in ten minutes of two cores: FALCON over eight views an image, all 2^512 codes.

    python benchmarks/speedrun.py --data parquet:PATH --seconds 500            # judged on a held-out fifth of train
    python benchmarks/speedrun.py --data parquet:PATH --seconds 500 --final    # on the test split, once

The rules, the record and what each change brought: docs/speedrun.md. A prototype in one file: what stands here is to
become an encoder, views, an optimizer and a readout of the library.

    views     2 random resized crops of 24 px an image; every place of the last map is a view: 2 x 4 of them
    network   frozen whitened 6x6 stem (both signs), conv 3x3 128, pool 2, conv 3x3 2048, conv 1x1 512; no padding
    loss      invariance of a place against all places of the other crop, and the Renyi-2 divergence of all codes
    readout   stem and first convolution over 3x3 cells, the others over 2x2, summed over the image and its mirror
"""

from __future__ import annotations

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    adaptive_avg_pool2d,
    conv2d,
    gelu,
    linear,
    normalize,
    one_hot,
    unfold,
)

from falcon_ssl.data import load_splits
from record import arguments, machine, write_record

HALF = torch.bfloat16
SIZE, AREA, RATIO = 24, (0.2, 1.0), 4 / 3  # crops: side, fraction of the image, aspect ratio
BRIGHTNESS, SATURATION, HUE, GRAY = 0.4, 0.8, 0.1, 0.2
WIDTH, TEMPERATURE, BETA, ROWS = 512, 0.25, 0.5, 384  # F, T, beta, rows of the divergence
BATCH, LR, LR_REST, WARMUP = 192, 0.03, 0.002, 0.03
CHANNELS = (128, 2048, 512)  # of the two convolutions and of the hidden layer
BLOCK = 256  # rows that Muon orthogonalizes together
GRIDS = (3, 3, 2, 2)  # cells a side that stem, convolutions and hidden layer are averaged over
DECAY, COMPONENTS, NEIGHBORS, KNN_TEMPERATURE = 0.015, 1024, 20, 0.1


def scaled(images: Tensor) -> Tensor:
    """uint8 to about zero mean and unit variance."""
    return (images.float() - 120) / 64


# --- views ---------------------------------------------------------------------------------------------------------


def crops(x: Tensor) -> Tensor:
    """Random resized crops and flips as two small batched products, y = R_y x R_x^T, antialiased."""
    num, _, height, width = x.shape
    area = AREA[0] + (AREA[1] - AREA[0]) * torch.rand(num)
    ratio = (math.log(RATIO) * (2 * torch.rand(num) - 1)).exp()
    flip = torch.rand(num) < 0.5
    rows = _resampling((area / ratio).sqrt().clamp(max=1) * height, height, None)
    columns = _resampling((area * ratio).sqrt().clamp(max=1) * width, width, flip)
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)


def _resampling(length: Tensor, side: int, flip: Tensor | None) -> Tensor:
    """Triangle filters [N, SIZE, side] of crops of some length at a random place."""
    start = torch.rand(len(length)) * (side - length)
    center = start[:, None] + (torch.arange(SIZE) + 0.5) * (length / SIZE)[:, None] - 0.5
    if flip is not None:
        center = torch.where(flip[:, None], center.flip(1), center)
    support = (length / SIZE).clamp(min=1)[:, None, None]
    weight = (1 - (center[:, :, None] - torch.arange(side)).abs() / support).clamp(min=0)
    return weight / weight.sum(dim=2, keepdim=True)


def recolored(x: Tensor) -> Tensor:
    """Brightness, saturation, hue and gray of an image are one 3x3 matrix and an offset."""
    num = len(x)
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    saturation = (1 + SATURATION * (2 * torch.rand(num) - 1)).clamp(min=0)
    saturation = torch.where(torch.rand(num) < GRAY, 0.0, saturation)
    angle = 2 * math.pi * HUE * (2 * torch.rand(num) - 1) * (torch.rand(num) < 0.8)
    turn = torch.zeros(num, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    gain = 1 + BRIGHTNESS * (2 * torch.rand(num, 1, 1) - 1)
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq * gain
    offset = 0.3 * (2 * torch.rand(num, 1, 1) - 1)
    return (matrix @ x.flatten(2) + offset).view_as(x)


# --- network -------------------------------------------------------------------------------------------------------


class WhitenedStem(nn.Module):
    """A first convolution that is never trained: leading eigenvectors of patches, whitened, with both signs."""

    weight: Tensor
    bias: Tensor

    def __init__(self, images: Tensor, *, size: int = 6, stride: int = 2, keep: int = 48) -> None:
        super().__init__()
        p_MP = unfold(scaled(images[:4000]), size, stride=3).transpose(1, 2).flatten(0, 1)
        p_MP = p_MP[torch.randperm(len(p_MP))[:200_000]]
        mean_P = p_MP.mean(dim=0)
        eigenvalue_P, v_PP = torch.linalg.eigh((p_MP - mean_P).T @ (p_MP - mean_P) / len(p_MP))
        floor = 0.001 * eigenvalue_P.mean()
        w_KP = (v_PP / (eigenvalue_P + floor).sqrt()).flip(1)[:, :keep].T
        w_KP = torch.cat([w_KP, -w_KP])
        weight = w_KP.view(-1, images.shape[1], size, size)
        self.register_buffer("weight", weight.to(HALF, memory_format=torch.channels_last))
        self.register_buffer("bias", -(w_KP @ mean_P).to(HALF))
        self.stride, self.width = stride, len(w_KP)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of images; no gradient."""
        with torch.no_grad():
            x = x.to(HALF, memory_format=torch.channels_last)
            return gelu(conv2d(x, self.weight, self.bias, stride=self.stride))


class SmallConv2d(nn.Conv2d):
    """A convolution of a small map as one product with its patches; no padding.

    The weight gradient of a 3x3 convolution on 4 x 4 pixels runs at 118 GFLOP/s so, at 49 by oneDNN.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W'], channels last."""
        size, x = self.kernel_size[0], x.permute(0, 2, 3, 1)
        height, width = (side - size + 1 for side in x.shape[1:3])
        shifts = [(i, j) for i in range(size) for j in range(size)]
        patches = torch.cat([x[:, i : i + height, j : j + width] for i, j in shifts], dim=3)
        return linear(patches, self.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


def block(conv: nn.Conv2d) -> nn.Sequential:
    """Convolution, batch normalization, GELU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.GELU())


class Network(nn.Module):
    """Stem, two convolutions and a hidden layer, which are read, and a projection, which is not."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.stem = WhitenedStem(images)
        first, second, hidden = CHANNELS
        self.first = block(nn.Conv2d(self.stem.width, first, 3, bias=False))
        self.second = block(SmallConv2d(first, second, 3, bias=False))
        self.hidden = block(SmallConv2d(second, hidden, 1, bias=False))
        self.projection = SmallConv2d(hidden, WIDTH, 1, bias=False)
        nn.init.normal_(self.projection.weight, std=hidden**-0.5)
        self.norm = nn.BatchNorm2d(WIDTH, affine=False)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is read off the network."""
        stem = self.stem(x)
        first = self.first(stem)
        second = self.second(nn.functional.avg_pool2d(first, 2))
        return stem, first, second, self.hidden(second)

    def forward(self, x: Tensor) -> Tensor:
        """Unit rows of every place of the last map [N, places, F]."""
        y = self.norm(self.projection(self.maps(x)[-1]))
        return normalize(y.float(), dim=1).flatten(2).transpose(1, 2)


# --- loss ----------------------------------------------------------------------------------------------------------


def falcon(u_ANSF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """FALCON over all 2^F codes: A crops of N images at S places, F features; and its two terms.

        x = u / sqrt(T)      t = tanh(x)
        I  = mean over views of sum_f [ log cosh x_f - x_f mean of t_f over all places of the other crops ]
        D2 = log mean exp K,   K = sum_f log(1 + t_f t'_f) over pairs of rows of different images (U-statistic)

    K is taken to second order in t t', in bfloat16: |t| is about 1 / sqrt(T F), and what is left out below 1e-3.
    log cosh x = -log(1 - t^2) / 2.
    """
    num_crops, num, _, width = u_ANSF.shape
    x_ANSF = u_ANSF / math.sqrt(TEMPERATURE)
    t_ANSF = x_ANSF.tanh()
    mean_ANF = t_ANSF.mean(dim=2)
    target_ANF = (mean_ANF.sum(dim=0) - mean_ANF) / (num_crops - 1)
    log_cosh = -0.5 * torch.log1p(-t_ANSF.square())
    invariance = (log_cosh - x_ANSF * target_ANF[:, :, None]).sum(dim=-1).mean()
    t_NRF = t_ANSF.transpose(0, 1).flatten(1, 2)
    kept = min(t_NRF.shape[1], ROWS // num)
    drawn = torch.rand(t_NRF.shape[:2]).argsort(dim=1)[:, :kept, None]
    t_MF = t_NRF.gather(1, drawn.expand(-1, -1, width)).flatten(0, 1).to(HALF)
    square_MF = t_MF.square()
    kernel = (t_MF @ t_MF.T).float() - (square_MF @ square_MF.T).float() / 2
    image = torch.arange(num).repeat_interleave(kept)
    same = image[:, None] == image
    pairs = len(t_MF) * (len(t_MF) - kept)
    divergence = kernel.masked_fill(same, -torch.inf).flatten().logsumexp(dim=0) - math.log(pairs)
    return BETA * invariance + divergence, invariance.detach(), divergence.detach()


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum (Jordan et al., 2024), in bfloat16, with the size of an Adam update.

    Blocks of rows are orthogonalized on their own: of 1024 x 1152 numbers that is a fifth of the products.
    """

    def __init__(self, params: list[Tensor], *, lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move every kernel along the orthogonal factor of its momentum."""
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                if not state:
                    state["momentum"] = torch.zeros_like(w)
                state["momentum"].lerp_(w.grad, 1 - group["momentum"])
                g = w.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                update = torch.cat([_orthogonal(rows) for rows in g.split(BLOCK)])
                size = 0.2 * math.sqrt(max(update.shape))
                w.add_(update.view_as(w), alpha=-group["lr"] * size)


def _orthogonal(g: Tensor, steps: int = 3) -> Tensor:
    """U V^T of g = U S V^T, by Newton-Schulz."""
    x = g.to(HALF) if len(g) <= g.shape[1] else g.T.to(HALF)
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if len(g) <= g.shape[1] else x.T).float()


# --- evaluation ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def features(network: Network, images: Tensor) -> Tensor:
    """The readout [N, D]."""
    parts = []
    with torch.autocast("cpu", dtype=HALF):
        for batch in images.split(250):
            x = scaled(batch)
            both = [
                [_pooled(m, grid) for m, grid in zip(network.maps(y), GRIDS, strict=True)]
                for y in (x, x.flip(3))
            ]
            parts.append(torch.cat([a + b for a, b in zip(*both, strict=True)], dim=1))
    return torch.cat(parts)


def _pooled(maps: Tensor, grid: int) -> Tensor:
    """Means over a grid of cells [N, grid^2 C], as one product."""
    num, channels, side, _ = maps.shape
    cells = adaptive_avg_pool2d(torch.eye(side**2).view(-1, 1, side, side), grid).flatten(1).T
    rows = maps.permute(0, 2, 3, 1).reshape(num, side**2, channels)
    return (cells.contiguous().to(maps.dtype) @ rows).float().flatten(1)


def linear_probe(x_ND: Tensor, y_N: Tensor, test_MD: Tensor, num_classes: int) -> Tensor:
    """Classes that a logistic regression predicts; gradient written out, products in two bfloat16 parts."""
    x_ND, target_NK = x_ND.to(HALF), one_hot(y_N, num_classes).float()
    w_DK = torch.zeros(x_ND.shape[1], num_classes, requires_grad=True)
    bias_K = torch.zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [w_DK, bias_K], max_iter=60, history_size=10, line_search_fn="strong_wolfe"
    )

    @torch.no_grad()
    def closure() -> Tensor:
        high, low = (x_ND @ _two_parts(w_DK)).float().split(num_classes, dim=1)
        log_p_NK = (high + low + bias_K).log_softmax(dim=1)
        g_NK = (log_p_NK.exp() - target_NK) / len(x_ND)
        high, low = (_two_parts(g_NK).T @ x_ND).float().split(num_classes)
        w_DK.grad = (high + low).T.contiguous() + DECAY * w_DK
        bias_K.grad = g_NK.sum(dim=0)
        return -(log_p_NK * target_NK).sum() / len(x_ND) + DECAY / 2 * w_DK.square().sum()

    solver.step(closure)
    return ((test_MD.to(HALF) @ w_DK.to(HALF)).float() + bias_K).argmax(dim=1).detach()


def _two_parts(w: Tensor) -> Tensor:
    """A float32 matrix as two bfloat16 ones beside each other: what one cannot hold, and the rest."""
    high = w.to(HALF)
    return torch.cat([high, (w - high.float()).to(HALF)], dim=1)


def principal_axes(x_ND: Tensor, count: int) -> Tensor:
    """Leading principal axes [D, count], each divided by its standard deviation, by subspace iteration."""
    x_ND = x_ND[:20_000].to(HALF)
    generator = torch.Generator().manual_seed(0)
    width = min(x_ND.shape[1], count + count // 8 + 32)
    basis = torch.randn(x_ND.shape[1], width, generator=generator)
    for _ in range(3):
        basis = torch.linalg.qr(basis)[0]
        basis = (x_ND.T @ (x_ND @ basis.to(HALF))).float()
    basis = torch.linalg.qr(basis)[0]
    y = (x_ND @ basis.to(HALF)).float()
    eigenvalues, axes = torch.linalg.eigh(y.T @ y / len(y))
    return (basis @ axes)[:, -count:] / eigenvalues[-count:].clamp(min=1e-6).sqrt()


def knn(memory_ND: Tensor, y_N: Tensor, test_MD: Tensor, num_classes: int) -> Tensor:
    """Classes that the nearest neighbors by cosine vote for."""
    memory_DN = normalize(memory_ND, dim=1).to(HALF).T
    found = []
    for rows in normalize(test_MD, dim=1).to(HALF).split(1000):
        cosine, index = (rows @ memory_DN).float().topk(NEIGHBORS, dim=1)
        votes = torch.zeros(len(rows), num_classes)
        votes.scatter_add_(1, y_N[index], (cosine / KNN_TEMPERATURE).exp())
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


def evaluate(network: Network, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict:
    """Accuracies and seconds."""
    clock = time.perf_counter
    network.eval()
    num_classes, started = int(train[1].max()) + 1, clock()
    x_ND, test_MD = (features(network, images) for images, _ in (train, test))
    mean_D, std_D = x_ND.mean(dim=0), x_ND.std(dim=0) + 1e-6
    x_ND, test_MD = x_ND.sub_(mean_D).div_(std_D), test_MD.sub_(mean_D).div_(std_D)
    extracted = clock()
    linear = linear_probe(x_ND, train[1], test_MD, num_classes)
    probed = clock()
    axes = principal_axes(x_ND, min(COMPONENTS, x_ND.shape[1]))
    nearest = knn(x_ND @ axes, train[1], test_MD @ axes, num_classes)
    network.train()
    return {
        "linear": float((linear == test[1]).double().mean()),
        "knn": float((nearest == test[1]).double().mean()),
        "numbers": x_ND.shape[1],
        "seconds_extract": round(extracted - started, 1),
        "seconds_linear": round(probed - extracted, 1),
        "seconds_knn": round(clock() - probed, 1),
    }


# --- the run -------------------------------------------------------------------------------------------------------


def train(network: Network, images: Tensor, seconds: float) -> dict[str, float]:
    """Train for some time; the rate is a function of the time that is gone."""
    kernels = [part[0].weight for part in (network.first, network.second, network.hidden)]
    rest = [p for p in network.parameters() if all(p is not kernel for kernel in kernels)]
    optimizers = [
        Muon(kernels, lr=LR),
        torch.optim.AdamW(rest, lr=LR_REST, weight_decay=0.0),
    ]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started, step, order = time.perf_counter(), 0, []
    while (gone := (time.perf_counter() - started) / seconds) < 1:
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * min(1, gone / WARMUP) * (1 - gone)
        order = order or list(torch.randperm(len(images)).split(BATCH))[:-1]
        x = scaled(images[order.pop()])
        views = torch.cat([recolored(crops(x)) for _ in range(2)])
        with torch.autocast("cpu", dtype=HALF):
            u = network(views)
        loss, invariance, divergence = falcon(u.unflatten(0, (2, BATCH)))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if step % 200 == 0:
            print(
                f"{gone:.0%} {step=} {float(invariance)=:.3f} {float(divergence)=:.4f}", flush=True
            )
        step += 1
    return {"steps": step, "images": step * BATCH, "seconds_train": time.perf_counter() - started}


def load(options: Namespace) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and labels to train on, and to evaluate on: a held-out fifth of train, or the test split."""
    splits = load_splits(options.data)
    assert splits.test is not None
    parts = []
    for source in (splits.train, splits.test):
        assert source.labels is not None, "the speed run is evaluated with labels"
        parts.append((source.images(torch.arange(len(source))), source.labels))
    if options.final:
        return parts[0], parts[1]
    images, labels = parts[0]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1234))
    kept, held_out = order.tensor_split([round(0.8 * len(images))])
    return (images[kept], labels[kept]), (images[held_out], labels[held_out])


def main() -> None:
    """Read, train, evaluate; print and write the record."""
    parser: ArgumentParser = arguments(__doc__, "speedrun/latest")
    parser.add_argument(
        "--data", required=True, help="CIFAR-10 or CIFAR-100: parquet:PATH, hf:cifar10"
    )
    parser.add_argument("--seconds", type=float, default=500, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--final", action="store_true", help="evaluate on the test split")
    parser.add_argument(
        "--untrained", action="store_true", help="evaluate the network as it begins, too"
    )
    options = parser.parse_args()
    train_part, test_part = load(options)
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    network = Network(train_part[0]).to(memory_format=torch.channels_last)
    before = {"untrained": evaluate(network, train_part, test_part)} if options.untrained else {}
    began = time.perf_counter()
    found = train(network, train_part[0], options.seconds) | evaluate(
        network, train_part, test_part
    )
    found["seconds"] = time.perf_counter() - started - (began - started if before else 0)
    split = "test" if options.final else "held-out fifth of train"
    record = {**found, **before, "seed": options.seed, "split": split, "about": machine()}
    line = (
        f"{split}: linear {found['linear']:.4f}, kNN {found['knn']:.4f}, {found['seconds']:.0f} s"
    )
    write_record(options.out, record, line + "\n")


if __name__ == "__main__":
    main()
