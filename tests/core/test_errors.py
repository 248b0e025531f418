"""A mistyped name is met with the nearest known one, wherever names are listed."""

import pytest

from falcon_ssl import InputError
from falcon_ssl.commands.studies.grid import Selection, make_runs, read_grid
from falcon_ssl.config import RunConfig, ViewsConfig
from falcon_ssl.config.mapping import build
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.core.errors import did_you_mean
from falcon_ssl.data import load_splits
from falcon_ssl.networks import build_encoder
from falcon_ssl.views import build_views


def _rows(name: str) -> object:
    return make_runs(read_grid("small"), Selection(rows=(name,)))


@pytest.mark.parametrize(
    ("make", "word", "meant"),
    [
        (recipe_path, "digts", "digits"),
        (lambda word: RunConfig(method=word), "falcn", "falcon"),
        (lambda word: build(RunConfig, {"optim": {word: 1}}), "wieght_decay", "optim.weight_decay"),
        (lambda word: build(RunConfig, {"optim": {"name": word}}), "Muoon", "muon"),
        (lambda word: build_views(ViewsConfig(word)), "imagnet", "imagenet"),
        (lambda word: build_encoder(word, in_channels=3), "ResNet-18", "resnet18"),
        (load_splits, "digit", "digits"),
        (load_splits, "flder:photos", "folder"),
        (load_splits, "parquet:", "parquet:DIR"),
        (load_splits, "hf:cifar-10", "cifar10"),
        (_rows, "swv", "swav"),
    ],
)
def test_the_nearest_name_is_asked_about(make, word, meant):
    with pytest.raises(InputError, match=rf"; did you mean {meant}\?$"):
        make(word)


@pytest.mark.parametrize("make", [recipe_path, load_splits, _rows])
def test_nothing_is_guessed_where_no_name_is_near(make):
    with pytest.raises(InputError) as error:
        make("zzz")
    assert "did you mean" not in str(error.value)


def test_a_file_of_words_costs_no_time():
    assert did_you_mean("a" * 10**7, ["a" * 100]) == f"did you mean {'a' * 100}?"
