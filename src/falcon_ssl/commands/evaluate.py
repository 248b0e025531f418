"""Evaluate a run: features once, then numbers, verdicts, pictures and a certificate."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from falcon_ssl import engine
from falcon_ssl.commands.features import (
    TRAINED,
    NetworkFeatures,
    RunFeatures,
    before_training,
    diagnose_run,
    extract_run_features,
)
from falcon_ssl.commands.files import folder_for_records
from falcon_ssl.commands.loading import log_skipped
from falcon_ssl.commands.processes import Processes
from falcon_ssl.commands.tracked import track_evaluation
from falcon_ssl.config.run import ReadingConfig, RunConfig
from falcon_ssl.config.sources import source_names
from falcon_ssl.core.consent import trusting_code
from falcon_ssl.core.devices import hardware
from falcon_ssl.core.errors import InputError
from falcon_ssl.engine import RunFolder
from falcon_ssl.engine.progress import WorkProgress
from falcon_ssl.evaluation import certify, evaluate_features, picture_arrays
from falcon_ssl.evaluation.diagnosis import LEAST_SAMPLES
from falcon_ssl.losses import power_law_prior
from falcon_ssl.methods import Falcon, Method
from falcon_ssl.networks import Readout
from falcon_ssl.records.arrays import write_arrays
from falcon_ssl.records.checkpoints import find_checkpoint
from falcon_ssl.records.files import read_json
from falcon_ssl.records.folder import (
    ARRAYS,
    BASELINE,
    DATA,
    DIAGNOSIS,
    EVALUATION,
    MODEL,
    RECORD_FORMS,
)
from falcon_ssl.records.folder import METRICS as METRICS_FILE
from falcon_ssl.records.metrics import METRICS
from falcon_ssl.records.schema import TRAINED_LINE, check_form
from falcon_ssl.report.summary import Evaluation

logger = logging.getLogger(__name__)


def evaluate(
    run: str | Path,
    *,
    data: str | None = None,
    name: str | None = None,
    reading: ReadingConfig | None = None,
    evaluation: Mapping[str, Any] | None = None,
    checkpoint: str = "last",
    baseline: str | Path | None = None,
    out: str | Path | None = None,
    trust_code: bool = False,
) -> Evaluation:
    """Evaluate the encoder of a run; write ``evaluation.json``, ``diagnosis.json`` and ``arrays.npz``.

    Of other images or of another checkpoint than the last, only ``evaluation-NAME.json`` is written: the run's own
    evaluation stays. Under torchrun every process computes features, and one the numbers, which it writes.

    Args:
        run: The run folder.
        data: Images to evaluate on instead of the run's own, for example with labels; named in "about".
        name: NAME of ``data``; None takes the last part of its path.
        reading: How to read them; None for the defaults.
        evaluation: Options of `EvaluationConfig` in place of the run's own, for example another readout; named in
            "about".
        checkpoint: "last", or one that is kept beside it.
        baseline: A ``baseline.json`` of the same images, to stand beside.
        out: Folder to write to instead of the run's, where that may not be written: with what a report reads of it.
        trust_code: Whether code that files name may be run, see `falcon_ssl.trusting_code`.

    Returns:
        What ``evaluation.json`` holds, as a dictionary that a notebook shows as a table: metrics by name, the same for
        an untrained encoder under "random_encoder" (where `evaluation.untrained` asks for it) and for patch k-means
        under "baseline", chance levels under "chance", the certificate of the last epoch (of the run's own images and
        last checkpoint, otherwise empty), "about".

    Raises:
        InputError: As `load_run`, a name that is none, or a baseline of other images.
    """
    started = time.perf_counter()
    record_name = evaluation_name(data=data, name=name, checkpoint=checkpoint)
    processes, target = Processes(), folder_for_records(run, out)
    beside = {} if baseline is None else _baseline(Path(baseline), run, data=data)
    device, progress = processes.device, WorkProgress(shown=processes.is_main)
    with trusting_code(trust_code), progress:
        features = extract_run_features(
            run,
            device=device,
            data=data,
            reading=reading,
            evaluation=evaluation,
            checkpoint=checkpoint,
            progress=progress,
        )
    if not processes.is_main:
        processes.wait()
        return Evaluation(target.read_json(record_name))
    (config, splits, _, method), trained, untrained = features
    folder, test_source = RunFolder.open(run), splits.test
    rows_N, num_classes, chance = trained.own.index, splits.num_classes, {}
    assert rows_N is not None
    assert test_source is not None
    if num_classes is not None:
        assert trained.test.label is not None
        # Accuracy of always answering the most frequent class.
        chance["top1"] = float(trained.test.label.bincount().max()) / len(trained.test)
        if splits.num_unseen:
            unseen = (
                "%d test images are of classes without a training image: none of them can be right"
            )
            logger.warning(unseen, splits.num_unseen)
    elif splits.train.labels is not None and test_source.labels is not None:
        logger.warning(
            "%s: all training images are of one class, so no accuracy is measured", config.data
        )
    elif config.evaluation.few_labels:
        logger.warning("evaluation.few_labels: %s has no labels to draw from", config.data)
    num_codes = None if trained.dictionary is None else trained.dictionary.num_codes
    # The loss of the last epoch is of the run's own images, and of its last checkpoint.
    elsewhere = data is not None or checkpoint != "last"

    def numbers(network: NetworkFeatures, name: str) -> dict[str, float]:
        progress.name(name)
        return evaluate_features(
            network.train,
            network.test,
            own=network.own,
            probe=network.probe,
            num_classes=num_classes,
            num_codes=num_codes,
            dictionary=network.dictionary,
            knn_neighbors=config.evaluation.knn_neighbors,
            knn_temperature=config.evaluation.knn_temperature,
            knn_components=config.evaluation.knn_components,
            linear_penalty=config.evaluation.linear_penalty,
            few_labels=config.evaluation.few_labels,
            seed=config.evaluation.seed,
            device=device,
            progress=progress.compute,
        )

    with progress:
        found = numbers(trained, TRAINED)
        reference = (
            {}
            if untrained is None
            else {"random_encoder": numbers(untrained, before_training(config))}
        )
        if record_name == EVALUATION:
            progress.name("")
            progress.compute("pictures and diagnosis")
            arrays = picture_arrays(
                trained.own,
                None if untrained is None else untrained.own,
                images=lambda chosen_M: test_source.images(rows_N[chosen_M]),
                num_codes=num_codes,
                seed=config.evaluation.seed,
            )
            write_arrays(target.path / ARRAYS, arrays)
            _diagnose(features, target)
    record: dict[str, Any] = {
        **found,
        **reference,
        **beside,
        "chance": chance,
        "certificate": {} if elsewhere else _certificate(config, method, folder),
        "about": {
            "data": config.data,
            "note": splits.note,
            "split": "test",
            "readout": asdict(Readout.of(config.evaluation)),
            "probe_each_scale": config.evaluation.probe_each_scale,
            "numbers_read": trained.test.z.shape[1],
            "knn_components": config.evaluation.knn_components,
            "linear_penalty": config.evaluation.linear_penalty,
            "overrides": dict(evaluation or {}),
            "initial_weights": config.init.weights,
            "num_train": len(trained.train),
            "num_test": len(trained.test),
            "num_classes": num_classes,
            "class_names": test_source.class_names,
            "dictionary": str(method.dictionary),
            "num_codes": num_codes,
            "embed_dim": None if trained.own.u is None else trained.own.u.shape[1],
            "logit_scale": method.logit_scale,
            "checkpoint": checkpoint,
            "step": find_checkpoint(folder.path, checkpoint, files=[MODEL]).step,
            "seconds": round(time.perf_counter() - started, 2),
            **engine.environment(hardware(device)),
        },
    }
    target.write_json(record_name, record)
    if record_name == EVALUATION:
        track_evaluation(target.path, config, record)
    log_skipped(splits)
    processes.wait()
    return Evaluation(record)


def _diagnose(features: RunFeatures, target: RunFolder) -> None:
    """Write the diagnosis, where there are images enough for one."""
    if (count := len(features.trained.own)) >= LEAST_SAMPLES:
        target.write_json(DIAGNOSIS, diagnose_run(features).to_dict())
        return
    logger.warning("no diagnosis: %d test images, it takes %d", count, LEAST_SAMPLES)
    (target.path / DIAGNOSIS).unlink(missing_ok=True)  # an older one is of other images


def evaluation_name(
    *, data: str | None = None, name: str | None = None, checkpoint: str = "last"
) -> str:
    """The file of an evaluation: ``evaluation.json`` for the run's own images and last checkpoint.

    Raises:
        InputError: A name that cannot be one.

    Example:
        >>> evaluation_name(data="folder:birds/labeled/", checkpoint="best")
        'evaluation-labeled-best.json'
    """
    if name is None and data is not None:
        lasts = [re.split(r"[:/]", one.rstrip("/"))[-1] for one in source_names(data)]
        name = "-".join(re.sub(r"[^\w.-]+", "_", last) for last in lasts)
    if name is not None and not re.fullmatch(r"[\w.-]+", name):
        raise InputError(
            "a name of images cannot be that of a file",
            received=repr(name),
            expected="letters, digits, dots, dashes and underscores",
        )
    parts = [*([name] if name else []), *([checkpoint] if checkpoint != "last" else [])]
    return "-".join([Path(EVALUATION).stem, *parts]) + Path(EVALUATION).suffix


def _baseline(path: Path, run: str | Path, *, data: str | None) -> dict[str, Any]:
    """The numbers of a baseline under "baseline"; its images are the run's if they are as many and named alike."""
    record, own = read_json(path, RECORD_FORMS[BASELINE]), RunFolder.open(run).read_json(DATA)
    names = ("train", "num_train", "test", "num_test") if data is None else ("data",)
    wanted = {name: (own if data is None else {"data": data})[name] for name in names}
    found = {name: record.get("about", {}).get(name) for name in names}
    if found != wanted:
        raise InputError(
            "the baseline is of other images",
            received=f"{path}, of {found}",
            expected=str(wanted),
            fix="write one with falcon-ssl baseline DATA --out DIR",
        )
    return {"baseline": {name: record[name] for name in METRICS if name in record}}


def _certificate(config: RunConfig, method: Method, folder: RunFolder) -> dict[str, Any]:
    """What the loss of the last epoch proves: its terms, averaged over the logged steps."""
    if not isinstance(method, Falcon):
        return {}
    steps = _logged_steps(folder)
    if not steps:
        logger.warning(
            "%s: no logged steps can be read, so there is no certificate",
            folder.path / METRICS_FILE,
        )
        return {}
    last = [line for line in steps if line["epoch"] > steps[-1]["epoch"] - 1]
    names = ("total", "invariance", "prior_matching", "entropy", "consistency")
    num_codes, exponent = method.loss.dictionary.num_codes, config.falcon.prior_exponent
    return asdict(
        certify(
            {name: sum(line[name] for line in last) / len(last) for name in names},
            num_codes=num_codes,
            prior=power_law_prior(num_codes, exponent).tolist() if exponent else None,
            logit_scale=method.loss.logit_scale,
            beta=config.falcon.beta,
            prior_matching=method.loss.prior_matching,
            batch_size=config.batch_size,
            complete=config.falcon.dictionary == "complete",
            rows_per_sample=method.rows_per_sample(config.views.count),
            unbiased=method.loss.is_unbiased,
            num_places=method.num_places,
            kernel_places=config.falcon.kernel_places,
            marginal_momentum=config.falcon.marginal_momentum,
            draws=method.loss.draws(config.batch_size),
        )
    )


def _logged_steps(folder: RunFolder) -> list[dict[str, Any]]:
    """The training steps of ``metrics.jsonl``; none where it is missing or damaged."""
    try:
        steps = [line for line in folder.metrics() if "total" in line]
        check_form(folder.path / METRICS_FILE, steps, [TRAINED_LINE])
        return steps
    except InputError as error:
        logger.warning("%s", error)
        return []
