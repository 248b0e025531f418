"""What is read off the encoder, from the configuration or the command line to every command that reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from falcon_ssl import cli, commands
from falcon_ssl.commands.features import extract_run_features
from falcon_ssl.config import EvaluationConfig, FalconConfig, MonitorConfig, RunConfig
from falcon_ssl.core.errors import InputError
from falcon_ssl.evaluation import load_features
from falcon_ssl.networks import Readout
from falcon_ssl.report import build_comparison, build_report

CONFIG = RunConfig(
    epochs=2,
    falcon=FalconConfig(dictionary="rademacher", num_codes=64, embed_dim=16),
    evaluation=EvaluationConfig(representation="last_two", mirror=True),
    monitor=MonitorConfig(every_epochs=1),
)
NAMED = {"representation": "last_two", "mirror": True, "crops": 1, "scales": [1.0]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.pretrain(CONFIG, out=tmp_path_factory.mktemp("read") / "run")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(CONFIG, evaluation=EvaluationConfig())
    return commands.pretrain(config, out=tmp_path_factory.mktemp("own") / "run")


def test_features_are_what_is_read(run: Path) -> None:
    _, splits, views, method = commands.load_run(run)
    assert splits.test is not None
    with torch.no_grad():
        x = views.evaluate(splits.test.images(torch.arange(10)))
        z, u = method.embed(x)
        read = Readout("last_two", mirror=True)(method.encoder, x)
    features = extract_run_features(run, device=torch.device("cpu"))
    torch.testing.assert_close(features.trained.test.z[:10], read)
    torch.testing.assert_close(features.trained.own.z[:10], z)
    torch.testing.assert_close(features.trained.own.u[:10], u)
    widths = [(f.train.z.shape[1], f.own.z.shape[1]) for f in features[1:]]
    assert widths == [(512, 256), (512, 256)]


def test_the_probe_can_learn_from_every_scale(run: Path) -> None:
    scales = {"scales": (1.0, 1.5), "untrained": False}
    options = scales | {"probe_each_scale": True}
    found = extract_run_features(run, device=torch.device("cpu"), evaluation=options).trained
    mean = extract_run_features(run, device=torch.device("cpu"), evaluation=scales).trained
    assert mean.probe is mean.train
    torch.testing.assert_close(found.train.z, mean.train.z)
    small, large = found.probe.z.chunk(2)
    torch.testing.assert_close((small + large) / 2, mean.train.z)
    assert not torch.allclose(small, large)
    assert torch.equal(found.probe.label, mean.train.label.repeat(2))

    words = ["--scales", "1,1.5", "--probe_each_scale", "true"]
    assert cli.main(["evaluate", str(run), *words]) == 0
    record = json.loads((run / "evaluation.json").read_text())
    assert "every image at each scale" in build_report(run).read_text()
    plain = commands.evaluate(run, evaluation=scales)
    assert record["about"]["probe_each_scale"] is True
    assert record["top1_knn"] == pytest.approx(plain["top1_knn"], abs=0.005)
    assert record["about"]["num_train"] == plain["about"]["num_train"]
    assert record["top1_linear"] != plain["top1_linear"]


def test_evaluation_names_what_it_read(
    run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run)]) == 0
    found = json.loads((run / "evaluation.json").read_text())
    assert found["about"]["readout"] == NAMED
    assert found["numbers_read"] == found["random_encoder"]["numbers_read"] == 512
    assert found["about"]["overrides"] == {}
    printed = capsys.readouterr().out
    assert any("numbers read" in line and "512" in line for line in printed.splitlines())

    # The same network read otherwise: other accuracies, the same geometry of its own representation.
    want = commands.evaluate(own)
    again = commands.evaluate(run, evaluation={"representation": "pooled", "mirror": False})
    assert again["numbers_read"] == 256
    assert again["top1_linear"] == want["top1_linear"] != found["top1_linear"]
    for name in ("effective_rank_z", "mean_cosine_u", "ami_kmeans_z"):
        assert found[name] == again[name] == want[name]
    assert again["about"]["overrides"] == {"representation": "pooled", "mirror": False}

    alone = commands.evaluate(run, evaluation={"untrained": False})
    assert "random_encoder" not in alone
    assert {key: alone[key] for key in found if key.endswith(("_z", "_u"))} == {
        key: found[key] for key in found if key.endswith(("_z", "_u"))
    }
    assert "spectrum_random_z" not in np.load(run / "arrays.npz")
    assert "Random encoder: not evaluated" in build_report(run).read_text()

    options = ["--representation", "pooled2x2", "--crops", "9", "--mirror", "false"]
    assert cli.main(["evaluate", str(run), *options]) == 0
    about = json.loads((run / "evaluation.json").read_text())["about"]
    assert about["readout"] == {
        "representation": "pooled2x2",
        "mirror": False,
        "crops": 9,
        "scales": [1.0],
    }

    page = build_report(run).read_text()
    assert "pooled2x2, 9 crops" in page
    assert "numbers read" in page
    both = build_comparison([run, own], tmp_path / "comparison.html").read_text()
    assert "numbers read" in both


def test_a_baseline_stands_beside(
    run: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = json.loads((own / "data.json").read_text())
    record = {"top1_linear": 0.912, "numbers_read": 80, "about": about}
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(record))
    assert "patch k-means" not in build_report(own).read_text()
    assert cli.main(["evaluate", str(own), "--baseline", str(path)]) == 0
    assert "patch k-means" in capsys.readouterr().out
    found = json.loads((own / "evaluation.json").read_text())
    assert found["baseline"] == {"top1_linear": 0.912, "numbers_read": 80}
    page = build_report(own).read_text()
    assert "patch k-means" in page
    assert "91.2" in page
    assert "91.2" in build_comparison([run, own], tmp_path / "comparison.html").read_text()

    path.write_text(json.dumps(record | {"about": about | {"num_train": 7}}))
    assert cli.main(["evaluate", str(own), "--baseline", str(path)]) == 2
    assert "the baseline is of other images" in capsys.readouterr().err


def test_embed_and_export_follow(run: Path, tmp_path: Path) -> None:
    features = load_features(commands.embed(run, out=tmp_path / "z.npz"))
    assert features.z.shape[1] == 512
    assert features.u is not None
    other = {"representation": "pooled2x2"}
    plain = load_features(commands.embed(run, out=tmp_path / "p.npz", evaluation=other))
    assert torch.equal(plain.u, features.u)
    assert plain.z.shape[1] == np.load(tmp_path / "p.npz")["z"].shape[1] == 256

    def about(path: Path) -> dict[str, object]:
        with safe_open(path, "pt") as file:
            found: dict[str, object] = json.loads(file.metadata()["falcon_ssl"])
        return found

    header = about(commands.export(run, out=tmp_path / "e") / "model.safetensors")
    assert header["readout"] == NAMED
    assert header["numbers_read"] == 512
    words = ["export", str(run), "--out", str(tmp_path / "o"), "--crops", "9"]
    assert cli.main(words) == 0
    assert about(tmp_path / "o" / "model.safetensors")["readout"] == {**NAMED, "crops": 9}


def test_probes_while_training_follow(run: Path, own: Path) -> None:
    def probes(folder: Path, name: str) -> list[float]:
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        return [line["monitor"][name] for line in lines if "monitor" in line]

    assert probes(run, "effective_rank_z") == probes(own, "effective_rank_z")
    assert len(probes(run, "top1_knn")) == 2
    assert probes(run, "top1_knn") != probes(own, "top1_knn")


def test_what_the_encoder_does_not_have_is_refused_before_any_work(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = replace(CONFIG, evaluation=EvaluationConfig(representation="cls"))
    with pytest.raises(InputError, match="the readout cls does not fit the encoder DigitsCNN"):
        commands.pretrain(wanted, out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()
    before = (run / "evaluation.json").read_bytes() if (run / "evaluation.json").exists() else b""
    for command in (["evaluate"], ["embed", "--out", f"{tmp_path}/z.npz"]):
        words = [command[0], str(run), "--representation", "last_four", *command[1:]]
        assert cli.main(words) == 2
        assert "3 maps, expected at least 4 maps" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run), "--crops", "4"]) == 2
    assert "unknown evaluation.crops: received 4, expected 1 or 9" in capsys.readouterr().err
    after = (run / "evaluation.json").read_bytes() if (run / "evaluation.json").exists() else b""
    assert before == after
    assert not (tmp_path / "z.npz").exists()
