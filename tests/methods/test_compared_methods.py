"""What holds for every method that FALCON is compared with, as a module and in a run."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from falcon_ssl import commands
from falcon_ssl.commands.loading import prepare
from falcon_ssl.commands.monitors import default_monitors
from falcon_ssl.config import METHODS
from falcon_ssl.config.mapping import read_yaml
from falcon_ssl.config.recipes import recipe_path
from falcon_ssl.config.run import (
    EncoderConfig,
    EngineConfig,
    MonitorConfig,
    RunConfig,
    from_mapping,
    to_mapping,
)
from falcon_ssl.core.errors import InputError
from falcon_ssl.core.monitor import Moment
from falcon_ssl.evaluation import AlarmMonitor
from falcon_ssl.losses.lejepa import collapsed_sigreg, lejepa_loss, random_directions
from falcon_ssl.methods import Method, build_method
from falcon_ssl.report import build_report
from support.learning import learned_classes
from support.short_runs import Interrupter, differing

SHAPE = (1, 8, 8)
NARROW = EncoderConfig("digits_cnn", width=8)
SMALL: dict[str, dict[str, Any]] = {
    "barlow_twins": {"embed_dim": 64},
    "vicreg": {"embed_dim": 64},
    "swav": {"embed_dim": 32, "num_prototypes": 60, "queue_length": 300},
    "self_classifier": {"embed_dim": 32, "num_prototypes": (60, 20)},
    "gedi": {"num_prototypes": 60, "beta": 1.0},
    "dino": {"embed_dim": 32, "num_prototypes": 60},
    "lejepa": {"embed_dim": 32, "num_directions": 128},
    "simclr": {"embed_dim": 32},
    "byol": {"embed_dim": 32},
}
TAKES_CROPS = [name for name in SMALL if getattr(RunConfig(), name).takes_small_views]
# Epochs, and options that differ from the above: with seed 0, twice as much as the test asks for.
ON_DIGITS: dict[str, tuple[int, dict[str, Any]]] = {
    "barlow_twins": (2, {}),
    "vicreg": (2, {}),
    "swav": (3, {}),
    "self_classifier": (2, {}),
    "gedi": (4, {"beta": 0.3, "temperature": 0.3}),
    "dino": (8, {"num_prototypes": 256, "teacher_momentum": 0.95}),  # averages take their time
    "lejepa": (6, {}),
    "simclr": (3, {}),
    "byol": (8, {"target_momentum": 0.95}),  # as DINO
}
# The value of a collapse must be far from the start: no queue, a temperature at which samples differ.
FAR_FROM_STUCK: dict[str, dict[str, Any]] = {
    "swav": {"queue_length": 0},
    "simclr": {"temperature": 0.05},
}
every_method = pytest.mark.parametrize("name", list(SMALL))


def config_of(name: str, **more: Any) -> RunConfig:
    return from_mapping(
        {
            "method": name,
            name: {"hidden_dim": 128, **SMALL[name], **more},
            "epochs": 3,
            "batch_size": 128,
            "encoder": {"name": "digits_cnn"},
            "optim": {"warmup_epochs": 0.5},
            "engine": {"device": "cpu", "log_every": 1},
            "monitor": {"every_epochs": 0},
        }
    )


def built(name: str, **more: Any) -> Method:
    torch.manual_seed(0)
    return build_method(config_of(name, **more), image_shape=SHAPE)


def views(num: int, *, rows: int = 12, size: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(num, rows, 1, size, size, generator=generator))


def test_every_method_is_tried() -> None:
    assert set(SMALL) | {"falcon"} == set(METHODS)


@every_method
def test_gradients_reach_every_trained_parameter(name: str) -> None:
    method = built(name)
    out = method(views(2))
    assert torch.equal(out.loss.detach(), out.terms["total"])
    out.loss.backward()
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert not out.u_NF.requires_grad
    assert torch.allclose(out.u_NF.norm(dim=1), torch.ones(12), atol=1e-5)


@every_method
def test_embed_gives_representation_and_unit_embedding(name: str) -> None:
    z_ND, u_NF = built(name).eval().embed(views(1)[0])
    assert z_ND.shape == (12, 256)
    assert torch.allclose(u_NF.norm(dim=1), torch.ones(12), atol=1e-5)


@every_method
def test_evaluation_changes_no_state(name: str) -> None:
    method = built(name).eval()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method(views(2))
    method.embed(views(1)[0])
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


@pytest.mark.parametrize("name", [name for name in SMALL if name not in TAKES_CROPS])
@pytest.mark.parametrize("num", [1, 3])
def test_methods_of_two_views_say_so(name: str, num: int) -> None:
    with pytest.raises(InputError, match=f"{name} takes two views: received {num}"):
        built(name)(views(num))


@pytest.mark.parametrize("name", TAKES_CROPS)
def test_small_views_join_the_loss(name: str) -> None:
    method = built(name)
    crops = [*views(2, size=8), *views(3, size=4, seed=1)]
    out = method(crops)
    out.loss.backward()
    assert out.terms["total"].isfinite()
    passes: list[tuple[int, ...]] = []
    method.encoder.register_forward_hook(lambda _, x, __: passes.append(tuple(x[0].shape)))
    method(crops)
    assert passes == [(24, 1, 8, 8), (36, 1, 4, 4)]  # one pass a size
    other = method([*crops[:4], views(1, size=4, seed=9)[0]])
    assert not torch.equal(other.terms["total"], out.terms["total"])


@every_method
@pytest.mark.parametrize("kind", ["collapsed", "healthy"])
def test_the_alarm_names_the_value_at_which_the_method_is_stuck(name: str, kind: str) -> None:
    """The encoder that gives every image the same representation, watched by the monitor that every run has."""
    method = built(name, **FAR_FROM_STUCK.get(name, {}))
    if kind == "collapsed":
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.zero_()
    monitor = AlarmMonitor(
        method.dictionary, stuck_values=method.stuck_values(12), batch_size=12, patience=0
    )
    method.before_step(0, 100)
    out = method(views(2))
    terms = {key: float(term) for key, term in out.terms.items()}
    seen = monitor(Moment(1, 0.0, terms, out.u_NF, method, is_epoch_end=False))
    if kind == "healthy":
        assert "stuck_loss" not in seen.alarms
        return
    assert "few_directions" in seen.alarms
    if name == "byol":  # its loss is least where it collapses
        assert method.stuck_values(12) == ()
        return
    term, value, _ = method.stuck_values(12)[0]
    assert terms[term] == pytest.approx(value, rel=0.01)
    assert f"{term} {terms[term]:.3g} within 1 % of {value:.3g}" in seen.alarms["stuck_loss"]
    if name in ("swav", "self_classifier", "gedi", "dino"):
        classes = [60, 20] if name == "self_classifier" else [60]
        assert value == pytest.approx(sum(math.log(c) for c in classes) / len(classes))


@pytest.mark.parametrize("name", ["swav", "self_classifier", "dino"])
def test_prototypes_are_the_dictionary_and_stay_so(name: str) -> None:
    method = built(name)
    dictionary = method.dictionary
    assert dictionary is not None
    assert (dictionary.num_codes, dictionary.width) == (60, 32)
    before = dictionary.block(0, 60).clone()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter))
    after = dictionary.block(0, 60)
    assert not torch.allclose(before, after)
    assert torch.allclose(after.norm(dim=1), torch.ones(60), atol=1e-6)


@pytest.mark.parametrize("name", ["swav", "self_classifier", "gedi", "dino"])
def test_few_codes_ask_for_an_option_that_the_method_has(name: str) -> None:
    run = prepare(config_of(name))
    monitor, method = default_monitors(run)[0], run.method
    assert method.dictionary is not None
    u_NF = torch.nn.functional.normalize(torch.ones(200, method.dictionary.width), dim=1)
    for step in (0, 1000):
        terms = dict.fromkeys(("total", "entropy"), 0.0)
        seen = monitor(Moment(step, 0.0, terms, u_NF, method, is_epoch_end=False))
    text = seen.alarms["few_codes"]
    assert text.endswith(f"1 of 60 codes used by 200 images: {method.few_codes_hint}")
    options = [field.name for field in dataclasses.fields(getattr(config_of(name), name))]
    assert any(option in text for option in options) or "two temperatures" in text


def test_options_of_the_quadrature_reach_lejepa() -> None:
    method = built("lejepa", integration_limit=3.0, num_points=12)
    directions = random_directions(method.config.num_directions, method.config.embed_dim, seed=0)
    expected = lejepa_loss(method.project(views(2)), directions, limit=3.0, num_points=12)
    assert torch.equal(method(views(2)).terms["sigreg"], expected.sigreg)
    assert method.stuck_values(1)[0].value == collapsed_sigreg(3.0, 12)


STATEFUL = [
    *(("swav", {"prototypes_frozen": 0.5}), ("dino", {"prototypes_frozen": 0.5}), ("lejepa", {})),
    ("gedi", {"generative": True, "sgld_steps": 1, "buffer_size": 600}),
]


@pytest.mark.parametrize(("name", "more"), STATEFUL)
def test_resume_is_bit_identical(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    config = replace(config_of(name, **more), epochs=2, batch_size=512, encoder=NARROW)
    whole = commands.pretrain(config, out=tmp_path / "whole", monitors=[Interrupter()])
    with pytest.raises(KeyboardInterrupt):
        commands.pretrain(config, out=tmp_path / "cut", monitors=[Interrupter(3)])
    torch.manual_seed(1234)
    cut = commands.pretrain(config, out=tmp_path / "cut", monitors=[Interrupter()], resume=True)
    assert differing(whole, cut) == []


@every_method
def test_a_few_epochs_on_digits_teach_it_the_classes(name: str, tmp_path: Path) -> None:
    epochs, more = ON_DIGITS[name]
    config = replace(
        config_of(name, **more),
        epochs=epochs,
        monitor=MonitorConfig(every_epochs=epochs, patience=20),
        engine=EngineConfig(device="cpu", log_every=5),
    )
    run = commands.pretrain(config, out=tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert next(x["monitor"]["top1_knn"] for x in lines if "monitor" in x) > 0.9
    assert [line for line in lines if "alarm" in line] == []
    assert learned_classes(run) > 0.05


def test_a_healthy_cross_entropy_of_gedi_is_not_stuck() -> None:
    """Views that disagree early in a run: sure assignments whose cross-entropy passes log C on its way down."""
    method = built("gedi")
    monitor = AlarmMonitor(
        method.dictionary, stuck_values=method.stuck_values(12), batch_size=12, patience=0
    )
    terms = {"invariance": math.log(60), "entropy": 1.0, "prior_matching": 4.2, "total": 8.3}
    u_NF = torch.nn.functional.normalize(torch.randn(12, 60), dim=1)
    seen = monitor(Moment(1, 0.0, terms, u_NF, method, is_epoch_end=False))
    assert "stuck_loss" not in seen.alarms


def test_only_the_options_of_the_method_may_be_changed() -> None:
    with pytest.raises(InputError, match=r"swav.temperature does not apply to the method falcon"):
        from_mapping({"swav": {"temperature": 0.2}})
    with pytest.raises(InputError, match=r"falcon.beta does not apply to the method dino"):
        from_mapping({"method": "dino", "falcon": {"beta": 0.2}})
    with pytest.raises(InputError, match="the method vicreg takes two views"):
        from_mapping({"method": "vicreg", "views": {"small_views": 2}})
    with pytest.raises(
        InputError, match=r"gedi\.sgld_steps does nothing without gedi\.generative=true"
    ):
        from_mapping({"method": "gedi", "gedi": {"sgld_steps": 3}})
    small = {"generative": True, "buffer_size": 100}
    with pytest.raises(InputError, match=r"gedi\.buffer_size is smaller than the batch"):
        from_mapping({"method": "gedi", "gedi": small, "batch_size": 101})
    assert from_mapping({"method": "gedi", "gedi": small, "batch_size": 100}).gedi.generative
    assert from_mapping({"swav": {"temperature": 0.1}}) == RunConfig()


@every_method
def test_the_configuration_names_its_own_options_alone(name: str) -> None:
    mapping = to_mapping(config_of(name))
    assert [group for group in METHODS if group in mapping] == [name]
    assert from_mapping(yaml.safe_load(yaml.safe_dump(mapping))) == config_of(name)


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("barlow_twins", "embed_dim", 1, "barlow_twins.embed_dim is too small"),
        ("vicreg", "variance_weight", -1.0, "vicreg.variance_weight is too small"),
        ("swav", "num_prototypes", 1, "swav.num_prototypes is too small"),
        ("swav", "prototypes_frozen", 1.5, "swav.prototypes_frozen is out of range"),
        ("swav", "queue_starts", 0.1, "does nothing without swav.queue_length"),
        ("swav", "queue_length", -1, "swav.queue_length is too small"),
        ("dino", "teacher_temperature", 0.0, "dino.teacher_temperature is not positive"),
        ("dino", "teacher_temperature_warmup", 0.1, "does nothing without dino.teacher_temp"),
        ("dino", "teacher_temperature_start", 0.02, "does nothing without dino.teacher_temp"),
        ("dino", "teacher_momentum", 1.1, "dino.teacher_momentum is out of range"),
        ("dino", "center_momentum", 1.0, "dino.center_momentum is out of range"),
        ("self_classifier", "num_prototypes", [], "entries of self_classifier.num_prototypes is"),
        ("self_classifier", "num_prototypes", [1], "self_classifier.num_prototypes is too small"),
        ("gedi", "temperature", 0.0, "gedi.temperature is not positive"),
        ("lejepa", "regularization", 2.0, "lejepa.regularization is out of range"),
        ("simclr", "temperature", float("inf"), "simclr.temperature is not finite"),
        ("byol", "target_momentum", -0.1, "byol.target_momentum is out of range"),
    ],
)
def test_bad_options_are_refused_by_name(
    name: str, option: str, value: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        from_mapping({"method": name, name: {option: value}})


def test_an_encoder_needs_no_width_from_the_method() -> None:
    """Any encoder goes with any method."""
    config = replace(config_of("vicreg"), encoder=EncoderConfig("resnet18", width=8, stem="cifar"))
    method = build_method(config, image_shape=(3, 16, 16))
    assert method(list(torch.randn(2, 4, 3, 16, 16))).loss.isfinite()


@pytest.mark.parametrize(("name", "has_codes"), [("swav", True), ("vicreg", False)])
def test_evaluation_diagnosis_and_report_work_for_any_method(
    name: str, has_codes: bool, tmp_path: Path
) -> None:
    config = replace(config_of(name), epochs=1, batch_size=256, encoder=NARROW)
    run = commands.pretrain(config, out=tmp_path / "run")
    evaluation = commands.evaluate(run)
    assert ("codes_used" in evaluation) is has_codes
    assert ("codes_used" in evaluation["random_encoder"]) is has_codes
    assert evaluation["about"]["embed_dim"] == SMALL[name]["embed_dim"]
    assert evaluation["certificate"] == {}
    measured = {measure.name for measure in commands.diagnose(run)["cluster"].measures}
    assert ("codes_used" in measured) is has_codes
    assert name.upper() in build_report(run).read_text(encoding="utf-8")


def test_export_writes_the_encoder_that_is_evaluated(tmp_path: Path) -> None:
    config = replace(config_of("dino"), epochs=1, batch_size=256)
    run = commands.pretrain(config, out=tmp_path / "run", monitors=[])
    exported = load_file(commands.export(run, out=tmp_path / "encoder") / "model.safetensors")
    kept = load_file(run / "checkpoint" / "model.safetensors")
    assert all(torch.equal(kept[f"teacher.encoder.{k}"], v) for k, v in exported.items())
    assert not all(torch.equal(kept[f"encoder.{k}"], v) for k, v in exported.items())


@every_method
def test_every_method_has_a_recipe_for_the_digits(name: str) -> None:
    config = from_mapping(read_yaml(Path(recipe_path(f"digits-{name}"))))
    assert (config.method, config.epochs, config.batch_size) == (name, 30, 128)
