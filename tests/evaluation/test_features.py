import numpy as np
import pytest
import torch
from torch import Tensor, nn

from falcon_ssl.core.errors import InputError
from falcon_ssl.core.modes import evaluation_mode
from falcon_ssl.data import TensorSource
from falcon_ssl.dictionary.rademacher import RademacherDictionary
from falcon_ssl.evaluation import Features, extract, load_features


class Network(nn.Module):
    """Linear -> BatchNorm, with a projector unless told otherwise."""

    def __init__(self, *, projector: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 16) if projector else None

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        z_ND = self.encoder(images)
        return z_ND, None if self.head is None else nn.functional.normalize(self.head(z_ND), dim=1)


class Views:
    def evaluate(self, images: Tensor) -> Tensor:
        return images.float() / 255


def source(num_images: int = 37) -> TensorSource:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(num_images, 3, 2, 2, generator=generator)
    return TensorSource(images, labels=torch.arange(num_images) % 5, name="noise")


def test_features_do_not_depend_on_the_batch_size():
    network, dictionary = Network(), RademacherDictionary(64, 16, seed=0)
    one = extract(network, source(), Views(), batch_size=1, dictionary=dictionary)
    all_at_once = extract(network, source(), Views(), batch_size=100, dictionary=dictionary)
    torch.testing.assert_close(one.z, all_at_once.z)
    assert one.code is not None
    assert all_at_once.code is not None
    assert torch.equal(one.code, all_at_once.code)
    assert torch.equal(one.label, torch.arange(37) % 5)


def test_negative_control_training_mode_would_depend_on_the_batch():
    network = Network().train()
    images = Views().evaluate(source().images(torch.arange(37)))
    assert not torch.allclose(network.embed(images)[0][:4], network.embed(images[:4])[0], atol=1e-3)


def test_extraction_leaves_the_network_as_it_was():
    network = Network().train()
    network.encoder[2].eval()  # somebody froze one BatchNorm on purpose
    before = {name: value.clone() for name, value in network.state_dict().items()}
    extract(network, source(), Views())
    assert network.training
    assert network.encoder[1].training
    assert not network.encoder[2].training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_modes_come_back_after_an_error():
    network = Network().train()
    inside = []

    def fail() -> None:
        with evaluation_mode(network):
            inside.append(network.encoder[2].training)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert inside == [False]
    assert network.encoder[2].training


def test_features_are_ordinary_tensors_fit_for_autograd():
    z = extract(Network(), source(), Views()).z
    assert not z.is_inference()
    (z @ torch.zeros(8, 1, requires_grad=True)).sum().backward()


class Holes(TensorSource):
    """Returns every seventh image black and says afterwards that it could not be read."""

    def images(self, indices: Tensor) -> Tensor:
        return super().images(indices) * (indices % 7 > 0)[:, None, None, None]

    def readable(self, indices: Tensor) -> Tensor:
        return indices % 7 > 0


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_images_that_cannot_be_read_are_no_rows(batch_size):
    whole = source()
    holes = Holes(whole.tensor, labels=whole.labels, name="holes")
    network, dictionary = Network(), RademacherDictionary(64, 16, seed=0)
    options = {"batch_size": batch_size, "dictionary": dictionary}
    found, want = (extract(network, one, Views(), **options) for one in (holes, whole))
    kept = torch.arange(37)[torch.arange(37) % 7 > 0]
    assert torch.equal(want.index, torch.arange(37))
    assert torch.equal(found.index, kept)
    torch.testing.assert_close(found.z, want.z[kept])
    torch.testing.assert_close(found.u, want.u[kept])
    assert torch.equal(found.code, want.code[kept])
    assert torch.equal(found.label, want.label[kept])


def test_only_unreadable_images_are_refused():
    holes = Holes(source().tensor, name="holes")
    with pytest.raises(InputError, match="number of readable images is too small"):
        extract(Network(), holes, Views(), indices=torch.tensor([0, 7, 14]))


def test_without_projector_there_is_no_embedding_and_no_code():
    features = extract(Network(projector=False), source(), Views())
    assert features.u is None
    assert features.code is None
    with pytest.raises(InputError, match="codes need an embedding"):
        extract(Network(projector=False), source(), Views(), dictionary=RademacherDictionary(4, 16))


def test_a_network_that_returns_nan_is_reported():
    network = Network()
    nn.init.constant_(network.encoder[1].bias, float("nan"))
    with pytest.raises(InputError, match="z holds values that are not finite: received 296 of 296"):
        extract(network, source(), Views())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("full", [True, False])
def test_saved_features_come_back_equal(tmp_path, suffix, full):
    generator = torch.Generator().manual_seed(0)
    z, u = torch.randn(6, 4, generator=generator), torch.randn(6, 3, generator=generator)
    index = torch.arange(6)
    whole = {"u": u, "code": index, "label": index % 2, "index": index + 3}
    features = Features(z=z, **whole) if full else Features(z=z)
    features.save(tmp_path / f"features{suffix}")
    loaded = load_features(tmp_path / f"features{suffix}")
    for name in ("z", "u", "code", "label", "index"):
        saved, found = getattr(features, name), getattr(loaded, name)
        assert (saved is None and found is None) or torch.equal(saved, found), name


def test_foreign_dtypes_are_converted_and_other_arrays_named(tmp_path, caplog):
    path = tmp_path / "theirs.npz"
    np.savez(
        path, z=np.eye(3), label=np.array([0, 1, 1], np.int32), paths=np.array(["a", "b", "c"])
    )
    features = load_features(path)
    assert features.z.dtype == torch.float32
    assert features.label is not None
    assert features.label.dtype == torch.int64
    assert "theirs.npz: arrays left out: paths" in caplog.text


def test_a_pickle_is_never_opened(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, z=np.array([{"not": "numbers"}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"evil\.npz cannot be read"):
        load_features(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npz", None, "no such feature file"),
        ("broken.npz", b"not an archive", r"broken\.npz cannot be read"),
        ("broken.safetensors", b"not tensors", r"broken\.safetensors cannot be read"),
        ("features.pt", b"", r"unknown kind of feature file: received '\.pt'"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_features(path)


def test_a_file_without_z_says_what_it_has(tmp_path):
    np.savez(tmp_path / "a.npz", feats=np.eye(2))
    with pytest.raises(InputError, match="has no array z: received arrays feats"):
        load_features(tmp_path / "a.npz")


def test_saving_under_another_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown kind of feature file"):
        Features(z=torch.eye(2)).save(tmp_path / "a.csv")


Z = torch.eye(3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": torch.ones(3)}, "z has the wrong number of dimensions"),
        ({"z": torch.ones(0, 3)}, "z is empty"),
        ({"z": Z.double()}, "z has the wrong dtype: received torch.float64"),
        ({"z": torch.tensor([[1.0, float("nan")]])}, "z holds values that are not finite"),
        ({"z": torch.tensor([[1.0, float("inf")]])}, "1 of 2 NaN or infinite"),
        ({"z": Z, "u": torch.eye(2)}, "z and u differ in length: received 3 and 2"),
        ({"z": Z, "label": torch.tensor([0, 1])}, "z and label differ in length"),
        ({"z": Z, "label": torch.tensor([0.0, 1.0, 1.0])}, "label has the wrong dtype"),
        ({"z": Z, "label": torch.tensor([0, 1, -1])}, "smallest label is too small: received -1"),
        ({"z": Z, "index": torch.tensor([0, 1])}, "z and index differ in length"),
        ({"z": Z, "code": torch.tensor([[0], [1], [2]])}, "code is not a list of indices"),
    ],
)
def test_bad_features(arrays, message):
    with pytest.raises(InputError, match=message):
        Features(**arrays)


def test_labels_that_are_not_whole_numbers():
    with pytest.raises(InputError, match="label holds values that are not whole numbers"):
        Features.from_arrays(np.eye(2), label=np.array([0.5, 1]))


def test_bad_batch_size():
    with pytest.raises(InputError, match="batch_size is too small"):
        extract(Network(), source(), Views(), batch_size=0)
