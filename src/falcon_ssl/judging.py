"""Judging a run: features once, then numbers, verdicts, pictures and a certificate."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from falcon_ssl import engine
from falcon_ssl.config import ReadingConfig, RunConfig
from falcon_ssl.data import Source, hold_out
from falcon_ssl.devices import best_device
from falcon_ssl.dictionary import Dictionary
from falcon_ssl.dictionary_complete import CompleteDictionary
from falcon_ssl.engine import RunFolder
from falcon_ssl.evaluation import (
    Diagnosis,
    Features,
    certify,
    evaluate_features,
    extract,
    picture_arrays,
)
from falcon_ssl.evaluation import diagnose as diagnose_features
from falcon_ssl.losses import power_law_prior
from falcon_ssl.methods import Method
from falcon_ssl.runs import LoadedRun, load_run, log_skipped, read_data_record, untrained

HELD_OUT = 0.2  # share to judge on, of data that has no test split


class Judged(NamedTuple):
    """Features of a run's splits, and of the network that it started from."""

    run: LoadedRun
    test_source: Source
    train: Features
    test: Features
    random_train: Features
    random_test: Features
    dictionary: Dictionary | None
    random_dictionary: Dictionary | None  # differs where codes are learned


def extract_run(
    run: str | Path,
    *,
    device: torch.device,
    data: str | None = None,
    reading: ReadingConfig | None = None,
) -> Judged:
    """Features of train and test images, and those of the run's untrained network.

    Where there is no test split, a fifth of the images is held out to judge on.

    Raises:
        InputError: As `load_run`.
    """
    loaded = load_run(run, device=device, data=data, reading=reading)
    config, method, splits, views = loaded
    if splits.test is None:
        splits = hold_out(splits, HELD_OUT)
        if config.data == read_data_record(RunFolder.open(run))["data"]:
            splits = replace(splits, note=f"{splits.note}; pretraining saw it too, without labels")
        loaded = loaded._replace(splits=splits)
    test_source = splits.test
    assert test_source is not None

    def features(network: Method, source: Source) -> Features:
        return extract(
            network,
            source,
            views,
            batch_size=config.evaluation.batch_size,
            device=device,
            dictionary=_listed(network),
        )

    start = untrained(config, splits.train, views, device=device)
    return Judged(
        run=loaded,
        test_source=test_source,
        train=features(method, splits.train),
        test=features(method, test_source),
        random_train=features(start, splits.train),
        random_test=features(start, test_source),
        dictionary=_listed(method),
        random_dictionary=_listed(start),
    )


def _listed(method: Method) -> Dictionary | None:
    """The codes that have a histogram: in the complete dictionary every image has its own."""
    return None if isinstance(method.dictionary, CompleteDictionary) else method.dictionary


def evaluate(
    run: str | Path, *, data: str | None = None, reading: ReadingConfig | None = None
) -> dict[str, Any]:
    """Judge the encoder of a run; write ``evaluation.json``, ``diagnosis.json`` and ``arrays.npz``.

    Args:
        run: The run folder.
        data: Images to judge on instead of the run's own, for example with labels; named in "about".
        reading: How to read them; None for the defaults.

    Returns:
        What ``evaluation.json`` holds: metrics by name, the same for an untrained encoder under "random_encoder",
        chance levels under "chance", the certificate of the last epoch, and "about".

    Raises:
        InputError: As `load_run`.
    """
    started = time.perf_counter()
    device = best_device()
    judged = extract_run(run, device=device, data=data, reading=reading)
    config, method, splits, _ = judged.run
    folder = RunFolder.open(run)
    test_source, rows_N = judged.test_source, judged.test.index
    assert rows_N is not None
    labels = splits.train.labels
    num_classes = None if labels is None or test_source.labels is None else int(labels.max()) + 1
    num_codes = None if judged.dictionary is None else judged.dictionary.num_codes

    def judge(train: Features, test: Features, dictionary: Dictionary | None) -> dict[str, float]:
        return evaluate_features(
            train,
            test,
            num_classes=num_classes,
            num_codes=num_codes,
            dictionary=dictionary,
            knn_neighbours=config.evaluation.knn_neighbours,
            knn_temperature=config.evaluation.knn_temperature,
            seed=config.evaluation.seed,
            device=device,
        )

    found = judge(judged.train, judged.test, judged.dictionary)
    random_found = judge(judged.random_train, judged.random_test, judged.random_dictionary)
    arrays = picture_arrays(
        judged.test,
        judged.random_test,
        images=lambda chosen_M: test_source.images(rows_N[chosen_M]),
        num_codes=num_codes,
        seed=config.evaluation.seed,
    )
    np.savez_compressed(folder.path / "arrays.npz", allow_pickle=False, **arrays)
    folder.write_json("diagnosis.json", diagnose_judged(judged).to_dict())
    evaluation: dict[str, Any] = {
        **found,
        "random_encoder": random_found,
        "chance": {} if num_classes is None else {"top1": _largest_share(judged.test)},
        "certificate": _certificate(config, method, folder),
        "about": {
            "data": config.data,
            "note": splits.note,
            "split": "test",
            "num_train": len(judged.train),
            "num_test": len(judged.test),
            "num_classes": num_classes,
            "class_names": test_source.class_names,
            "dictionary": str(method.dictionary),
            "num_codes": num_codes,
            "embed_dim": None if judged.test.u is None else judged.test.u.shape[1],
            "logit_scale": method.logit_scale,
            "step": engine.read_state(folder.checkpoint)["step"],
            "seconds": round(time.perf_counter() - started, 2),
            **engine.environment(device),
        },
    }
    folder.write_json("evaluation.json", evaluation)
    log_skipped(splits)
    return evaluation


def diagnose_judged(judged: Judged, *, prototypes: Tensor | None = None) -> Diagnosis:
    """Diagnose a run beside the network that it started from.

    Args:
        judged: Its features.
        prototypes: Codes [C, F] to assign embeddings to instead of the run's own dictionary.

    Raises:
        InputError: Prototypes of another width, or too few images.
    """
    return diagnose_features(
        judged.test,
        dictionary=prototypes,
        num_codes=None if judged.dictionary is None else judged.dictionary.num_codes,
        reference=judged.random_test,
        seed=judged.run.config.evaluation.seed,
    )


def _certificate(config: RunConfig, method: Method, folder: RunFolder) -> dict[str, Any]:
    """What the loss of the last epoch proves: its terms, averaged over the logged steps."""
    if method.dictionary is None or method.logit_scale is None:
        return {}
    steps = [line for line in folder.metrics() if "total" in line]
    last = [line for line in steps if line["epoch"] > steps[-1]["epoch"] - 1]
    names = ("total", "invariance", "prior_matching", "entropy", "consistency")
    num_codes, exponent = method.dictionary.num_codes, config.falcon.prior_exponent
    return asdict(
        certify(
            {name: sum(line[name] for line in last) / len(last) for name in names},
            num_codes=num_codes,
            prior=power_law_prior(num_codes, exponent).tolist() if exponent else None,
            logit_scale=method.logit_scale,
            beta=config.falcon.beta,
            prior_matching=prior_matching(config, method),
            batch_size=config.batch_size,
            complete=isinstance(method.dictionary, CompleteDictionary),
        )
    )


def prior_matching(config: RunConfig, method: Method) -> Any:
    """The prior matching that the loss uses when the configuration leaves it open."""
    complete = isinstance(method.dictionary, CompleteDictionary)
    return config.falcon.prior_matching or ("renyi2" if complete else "reverse")


def _largest_share(features: Features) -> float:
    """Accuracy of always answering the most frequent class."""
    assert features.label is not None
    return float(features.label.bincount().max()) / len(features)
