"""The command line as a user meets it: real digits, exit codes, one clear line for what is wrong."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from falcon_ssl import cli
from falcon_ssl.cli.commands import COMMANDS
from falcon_ssl.cli.parser import parse
from falcon_ssl.config import RunConfig
from falcon_ssl.config.recipes import grid_names, recipe_names, recipe_path
from falcon_ssl.networks import build_encoder
from falcon_ssl.networks.timm import import_beside_torchvision
from support.short_runs import FEW_CODES

TINY = ["--epochs", "2", *FEW_CODES]

NEEDED = {
    *("top1_linear", "top1_knn", "nmi_codes", "ami_codes", "ari_codes", "chance_nmi_codes"),
    *("codes_used", "effective_rank_z", "effective_rank_u"),
    *(f"{what}_kmeans_{on}" for what in ("nmi", "ami", "ari", "accuracy") for on in "zu"),
}


def run(*argv: str) -> int:
    try:
        return cli.main(argv)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    assert run("pretrain", "--data", "digits", "--out", str(out), "--seed", "1", *TINY) == 0
    return out


def test_pretrain_evaluate_report(digits_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", str(digits_run)) == 0
    assert "random encoder" in capsys.readouterr().out
    evaluation = json.loads((digits_run / "evaluation.json").read_text())
    assert all(math.isfinite(evaluation[name]) for name in NEEDED)
    assert evaluation["random_encoder"].keys() >= NEEDED
    assert evaluation["chance"]["top1"] == pytest.approx(0.1, abs=0.01)
    assert evaluation["about"]["split"] == "test"
    assert evaluation["top1_linear"] > 0.9
    assert run("report", str(digits_run)) == 0
    page = (digits_run / "report.html").read_text()
    assert "<html" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_written_configuration_runs_again(digits_run: Path, tmp_path: Path) -> None:
    written = digits_run / "config.yaml"
    again = tmp_path / "again"
    assert run("pretrain", "--config", str(written), "--out", str(again)) == 0
    assert yaml.safe_load(written.read_text()) == yaml.safe_load(
        (again / "config.yaml").read_text()
    )
    first, second = (
        (folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (digits_run, again)
    )
    assert first == second


def test_resume_after_the_end_changes_nothing(digits_run: Path) -> None:
    before = (digits_run / "checkpoint" / "model.safetensors").read_bytes()
    assert run("pretrain", "--out", str(digits_run), "--resume") == 0
    assert (digits_run / "checkpoint" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "missing command (falcon-ssl --help)"),
        (["fly"], "unknown command fly"),
        (["evalaute"], "did you mean evaluate?"),
        (["pretrain"], "pretrain: missing argument --out (falcon-ssl pretrain --help)"),
        (["pretrain", "--out"], "--out: expected one argument"),
        (["pretrain", "--out", "OUT", "--epoks", "3"], "--epoks, did you mean --epochs?"),
        (["pretrain", "--out", "OUT", "--falcon.bata=3"], "did you mean --falcon.beta?"),
        (["pretrain", "--out", "OUT", "--method", "falcn"], "did you mean falcon?"),
        (["pretrain", "--out", "OUT", "--encoder", "resnet19"], "did you mean resnet18?"),
        (["pretrain", "--out", "OUT", "--data", "digit"], "did you mean digits?"),
        (["pretrain", "--out", "OUT", "--views", "imagnet"], "did you mean imagenet?"),
        (["export", "RUN", "--out", "OUT", "--to", "tim"], "did you mean timm?"),
        (["evaluate", "--run", "RUN"], "unknown option --run, RUN stands without it"),
        (["finetune", "RUN", "--out", "OUT", "--finetune.labels", "0"], "finetune --help"),
        (["pretrain", "--out", "OUT", "cats"], "unknown argument cats"),
        (
            ["pretrain", "--out", "OUT", "--epochs", "three"],
            "epochs has the wrong type: received 'three', expected an integer. See falcon-ssl pretrain --help.",
        ),
        (["pretrain", "--out", "OUT", "--epochs", "0"], "epochs is too small: received 0"),
        (["pretrain", "--out", "OUT", "--data", "cats"], "cats"),
        (
            ["pretrain", "--out", "OUT", "--config", "nope.yaml"],
            "no such configuration: received nope.yaml",
        ),
        (
            [
                *("pretrain", "--out", "OUT", "--falcon.dictionary", "rademacher"),
                "--falcon.epsilon",
                "0.01",
            ],
            "1/num_codes = 0.000244141",
        ),
        (
            ["pretrain", "--out", "OUT", "--falcon.epsilon", "1e-8", "--falcon.temperature", "1"],
            "epsilon and temperature state the same thing",
        ),
        (["pretrain", "--out", "OUT", "--resume"], "no run folder"),
        (["pretrain", "--out", "OUT", "--vicreg.nope", "3"], "unknown option --vicreg.nope"),
        (["watch", "OUT"], "no run folder"),
        (["compare", "OUT"], "nothing to compare"),
        (["runs", "OUT"], "no such folder"),
        (["runs", "OUT", "OUT"], "unknown argument"),
        (["evaluate", "OUT"], "no run folder"),
        (["report", "OUT"], "run folder"),
        (["report", "OUT", "--out", "OUT.pdf"], "a name that ends in .html"),
        (["evaluate"], "evaluate: missing argument RUN"),
        (
            ["pretrain", "--out", "OUT", "--encoder.stem", "wide"],
            "unknown encoder.stem: received wide, expected cifar, half, imagenet or null",
        ),
        (["pretrain", "--out", "OUT", "--epochs", "3.5"], "received '3.5', expected an integer"),
        (
            [
                *("pretrain", "--out", "OUT", "--data", "digits"),
                *("--engine.precision", "fp16", "--engine.device", "cpu"),
            ],
            "received engine.precision=fp16, expected auto, bf16 or no",
        ),
        (["pretrain", "--out", "OUT", "--batch_size", "5000"], "batches of 5000 from 1437 images"),
        (
            ["pretrain", "--out", "OUT", "--views.preset", "grayscale", "--views.scale", "[2,0.1]"],
            "views.scale is out of range: received [2.0, 0.1]",
        ),
        (
            ["pretrain", "--out", "OUT", "--method", "barlow_twins", "--views.small_views", "2"],
            "the method barlow_twins takes two views",
        ),
        (
            ["pretrain", "--out", "OUT", "--data", "digits", "--views.preset", "cifar"],
            "color operations need color images",
        ),
        (["views", "--out", "OUT", "--data", "digits"], "a name that ends in .png"),
        (["views", "--out", "OUT.png", "--num_images", "0"], "num_images is too small"),
        (["sweep", "--out", "OUT", "--seeds", "a"], "received 'a', expected a list of integers"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*(str(out) if word == "OUT" else word for word in argv)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert [line for line in error if "error" in line] == error[-1:]
    assert message in error[-1]
    assert error[-1].count("--help") <= 1, "said once"
    assert not out.exists(), "nothing is written before the options are known to be good"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty small colour photographs of two sizes in two class folders; some grey, one broken."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for i in range(60):
        channels = () if i % 10 == 0 else (3,)
        pixels = random.integers(0, 256, (20 + i % 2, 24, *channels), dtype=np.uint8)
        path = root / ("cats" if i % 3 else "dogs") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    (root / "cats" / "59.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def folder_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder without labels and without test split."""
    out = tmp_path_factory.mktemp("folder") / "run"
    options = ["--reading.image_size", "16", "--reading.max_unreadable", "0.05"]
    small = ["--encoder.name", "resnet8", "--encoder.width", "8", "--batch_size", "16"]
    data = f"folder:{photos}"
    assert run("pretrain", "--data", data, "--out", str(out), *options, *small, *TINY) == 0
    return out


def test_any_folder_of_images(
    folder_run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No labels, no test split, broken files: words, not errors; labels can be read later."""
    assert "59.png" in (folder_run / "skipped.txt").read_text()
    assert run("evaluate", str(folder_run)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "No labels were read" in printed
    assert "20% held out" in printed
    assert "pretraining saw it too" in printed
    found = json.loads((folder_run / "evaluation.json").read_text())
    assert "top1_knn" not in found
    assert math.isfinite(found["effective_rank_z"])
    assert run("report", str(folder_run)) == 0
    assert run("diagnose", str(folder_run)) == 0

    assert run("evaluate", str(folder_run), "--reading.folder_labels", "true") == 0
    assert "pretraining saw it too" in " ".join(capsys.readouterr().out.split())
    own = json.loads((folder_run / "evaluation.json").read_text())
    assert own["about"]["class_names"] == ["cats", "dogs"]
    assert run("evaluate", str(folder_run), "--reading.holdout", "0.5") == 2
    assert "what the run held out" in capsys.readouterr().err

    labeled = ["--reading.folder_labels", "true", "--reading.max_unreadable", "0.05"]
    assert run("evaluate", str(folder_run), "--data", f"folder:{photos}", *labeled) == 0
    found = json.loads((folder_run / "evaluation.json").read_text())
    assert found["about"]["class_names"] == ["cats", "dogs"]
    assert 0 <= found["top1_knn"] <= 1
    assert own["top1_knn"] == found["top1_knn"], "its own images, read as the run read them"


def test_photographs_of_several_sizes_need_no_option(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size that was chosen is the run's own: other images are brought to it too."""
    data = ["--data", f"folder:{photos}", "--reading.max_unreadable", "0.05"]
    small = ["--encoder.name", "resnet8", "--encoder.width", "8", "--batch_size", "16"]
    out = tmp_path / "run"
    assert run("pretrain", *data, "--out", str(out), *small, *TINY) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["reading"]["image_size"] == 16
    assert run("views", *data, "--out", str(tmp_path / "views.png")) == 0


def test_embed_other_images(
    digits_run: Path, folder_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features of a run's images and of new ones, even grey ones, fit for scikit-learn."""
    own = tmp_path / "new" / "own.npz"
    assert run("embed", str(digits_run), "--out", str(own)) == 0
    with np.load(own) as arrays:
        assert arrays["z"].shape == (360, 256)
        assert arrays["label"].shape == (360,)
    assert run("embed", str(digits_run), "--out", str(own)) == 2
    assert "the file exists" in capsys.readouterr().err
    assert run("embed", str(digits_run), "--out", str(own), "--split", "train", "--overwrite") == 0
    grey = tmp_path / "grey"
    grey.mkdir()
    for i in range(3):
        Image.fromarray(np.full((30, 40), 80 * i, np.uint8)).save(grey / f"{i}.png")
    other = tmp_path / "other.npz"
    assert run("embed", str(folder_run), "--out", str(other), "--data", f"folder:{grey}") == 0
    with np.load(other) as arrays:
        assert arrays["z"].shape == (3, 8)
    assert run("embed", str(folder_run), "--out", str(other), "--split", "test") == 2


def test_export_needs_no_images(folder_run: Path, tmp_path: Path) -> None:
    """The weights load into a plain module; the header says what else is needed."""
    moved = tmp_path / "moved"
    shutil.copytree(folder_run, moved)
    text = (moved / "config.yaml").read_text()
    (moved / "config.yaml").write_text(re.sub("folder:.*", "folder:gone", text))
    out = tmp_path / "encoder"
    assert run("export", str(moved), "--out", str(out)) == 0
    encoder = build_encoder("resnet8", in_channels=3, width=8)
    encoder.load_state_dict(load_file(out / "model.safetensors"))
    with safe_open(out / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()["falcon_ssl"])
    assert about["preprocessing"]["image_shape"] == [3, 16, 16]
    assert len(about["preprocessing"]["mean"]) == 3


def test_a_folder_that_cannot_be_written_is_one_line(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert run("pretrain", "--out", str(blocked / "run"), *TINY) == 2
    assert run("export", str(digits_run), "--out", str(blocked / "e")) == 1
    error = capsys.readouterr().err
    assert "the run folder cannot be made" in error
    assert error.count("the run failed") == 1
    assert "Traceback" not in error


def test_interrupt_inside_an_epoch_then_resume(tmp_path: Path) -> None:
    """Ctrl-C ends with code 75 and one line; --resume ends where the whole run ends."""
    options = [
        *("--epochs", "4", "--batch_size", "64", "--monitor.every_epochs", "0"),
        *("--encoder.name", "digits_cnn", "--encoder.width", "16"),
        *("--falcon.dictionary", "rademacher", "--falcon.num_codes", "64"),
    ]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    # A shell that started the tests in the background has told all its children to ignore Ctrl-C.
    heeding = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from falcon_ssl.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-W", "error", "-c", heeding, "pretrain"]
    process = subprocess.Popen(
        [*command, "--out", str(broken), *options], stderr=subprocess.PIPE, text=True
    )
    state, metrics = broken / "checkpoint" / "state.json", broken / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        # a step after the first checkpoint has been logged: the run is inside an epoch
        if state.is_file() and json.loads(metrics.read_text().splitlines()[-1])["epoch"] > 1.1:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75, error
    assert error.splitlines()[-1].startswith("falcon-ssl: stopped by SIGINT after step")
    assert run("pretrain", "--resume", "--out", str(broken)) == 0
    assert run("pretrain", "--out", str(whole), *options) == 0
    first, second = (
        (folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (broken, whole)
    )
    assert first == second


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    for extra in ([], ["--overwrite"]):
        assert (
            run("pretrain", "--out", str(out), "--engine.trackers", "[tensorboard]", *TINY, *extra)
            == 0
        )
    assert list(out.rglob("events.out.tfevents*"))


@pytest.mark.parametrize(
    "options",
    [
        ["--engine.precision", "bf16"],
        ["--engine.precision", "no", "--engine.channels_last", "false"],
    ],
)
def test_execution_options(options: list[str], tmp_path: Path) -> None:
    assert run("pretrain", "--out", str(tmp_path / "run"), *options, *TINY, "--epochs", "1") == 0


def test_vit_small_on_images_of_64_pixels(tmp_path: Path) -> None:
    """The encoder of the paper's Table 2, for a few steps, through every command that takes a run."""
    import_beside_torchvision("timm")
    rng, out = np.random.default_rng(0), tmp_path / "run"
    for part, count in (("train", 16), ("test", 8)):
        for label in ("a", "b"):
            (tmp_path / "photos" / part / label).mkdir(parents=True)
            for k in range(count):
                pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / label / f"{k}.png")
    data = ["--data", f"folder:{tmp_path / 'photos'}", "--reading.folder_labels", "true"]
    vit = ["--encoder.name", "timm:vit_small_patch16_224", "--encoder.patch_size", "32"]
    few = ["--batch_size", "16", "--epochs", "1", "--optim.warmup_epochs", "0"]
    assert run("pretrain", "--out", str(out), *data, *vit, *few) == 0
    assert run("evaluate", str(out)) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert 0 <= found["top1_linear"] <= 1
    assert found["about"]["num_test"] == 16
    assert yaml.safe_load((out / "config.yaml").read_text())["views"]["size"] == 64
    assert run("export", str(out), "--out", str(tmp_path / "vit")) == 0
    assert run("embed", str(out), "--out", str(tmp_path / "z.npz")) == 0


def test_bad_yaml_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    for text in ("falcon: [", "falcon:\n  nun_codes: 3\n", "just words"):
        config.write_text(text)
        assert run("pretrain", "--config", str(config), "--out", str(tmp_path / "out")) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_print_config_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--out", "x", "--falcon.beta", "0.25", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["falcon"]["beta"] == 0.25
    assert run("pretrain", "--help") == 0
    text = capsys.readouterr().out
    options = [line for line in text.splitlines() if line.startswith("  --")]
    assert len(options) > 40
    assert "Weight of the invariance term" in text
    assert text.startswith("usage: falcon-ssl pretrain --out OUT [options]\n")
    assert not {"type:", "Literal", "Optional"} & set(text.split())
    assert "{reverse,forward,renyi2,null}" in text
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  (\w+)", text, re.M) == list(COMMANDS)
    texts = {}
    for command in COMMANDS:
        assert run(command, "--help") == 0
        texts[command] = capsys.readouterr().out
    assert all(name in texts["reproduce"] for name in grid_names()), (
        "reproduce lists what comes with the library"
    )


def parsed(*argv: str) -> dict[str, Any]:
    return parse(argv[0], COMMANDS[argv[0]], argv[1:])


def test_values_of_every_kind() -> None:
    config = parsed(
        *("pretrain", "--out=a", "--epochs=7", "--data", "12", "--falcon.beta", "1e-2"),
        *("--views.scale", "[0.2,1]", "--encoder.stem", "null", "--views.symmetric", "true"),
        *("--engine.precision", "no", "--reading.in_memory", "null", "--reading.stream=false"),
        *("--engine.trackers", "[]", "--self_classifier.num_prototypes", "1000"),
    )["config"]
    assert (config.epochs, config.data, config.falcon.beta) == (7, "12", 0.01)
    assert (config.views.scale, config.encoder.stem, config.views.symmetric) == (
        (0.2, 1),
        None,
        True,
    )
    assert (config.engine.precision, config.reading.in_memory) == ("no", None)
    assert (config.engine.trackers, config.self_classifier.num_prototypes) == ((), (1000,))
    assert config == RunConfig(**{f.name: getattr(config, f.name) for f in fields(RunConfig)})
    joined = parsed("pretrain", "--out", "a", "--data", "folder:a,b", "tar:c")["config"]
    assert joined.data == "folder:a,b + tar:c"
    assert parsed("embed", "RUN", "--out", "f", "--data", "folder:a")["data"] == "folder:a"
    for seeds in (["0,1"], ["0", "1"], ["[0,1]"]):
        assert parsed("sweep", "--out", "x", "--seeds", *seeds)["seeds"] == (0, 1)
    found = parsed("reproduce", "small", "--out", "x", "--data", "a=b=c", "d=e", "--dry-run")
    assert found == {"grid": "small", "out": "x", "data": {"a": "b=c", "d": "e"}, "dry_run": True}
    assert parsed("diagnose", "--fail_on_collapse", "RUN")["target"] == "RUN"
    assert parsed("compare", "a,b", "c")["runs"] == ("a,b", "c")
    assert "folder" not in parsed("runs")
    assert parsed("runs", "elsewhere")["folder"] == "elsewhere"


def test_resume_takes_the_options_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 9\nmethod: dino\n")
    config = parsed("pretrain", "--epochs", "8", "--resume", "--out", str(tmp_path))["config"]
    assert (config.epochs, config.method) == (8, "dino")
    assert parsed("pretrain", "--out", str(tmp_path))["config"].method == "falcon"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--config", name, "--out", "x", "--print_config") == 0
    text = recipe_path(name).read_text()
    header = " ".join(line[2:] for line in text.splitlines() if line.startswith("#"))
    assert ("not measured yet" in header) == name.startswith("unmeasured/")
    assert all(word in header for word in ("Result", "Command: "))
    assert "Cost" in header or "hardware" in header
    for command in re.findall(r"# Command: .*(pretrain .*)", text):
        assert parsed(*command.replace("SEED", "0").split())


@pytest.mark.parametrize(
    "argv",
    [
        ["pretrain", "--epochs", "1", "--config", "digits-dino", "--out", "x"],
        ["pretrain", "--config=digits-dino", "--epochs", "1", "--out", "x"],
        ["pretrain", "--out", "x", "--epochs=1", "--config=digits-dino"],
        ["sweep", "--epochs", "1", "--out", "x", "--config", "digits-dino"],
    ],
)
def test_options_win_over_the_recipe_wherever_they_stand(argv: list[str]) -> None:
    """`--epochs 1 --config digits-dino` once ran the recipe's 30 epochs."""
    config = parsed(*argv)["config"]
    assert (config.epochs, config.method) == (1, "dino")


def test_of_two_configurations_the_later_one_wins(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("epochs: 3\noptim: {lr: 0.5, trust: 0.1, name: lars}\n")
    (tmp_path / "b.yaml").write_text("optim: {lr: 0.25}\n")
    files = [f"--config={tmp_path / name}.yaml" for name in "ab"]
    config = parsed("pretrain", "--out", "x", *files)["config"]
    assert (config.epochs, config.optim.lr, config.optim.trust) == (3, 0.25, 0.1)


@pytest.mark.parametrize(
    ("words", "group", "option", "value"),
    [
        (["--encoder", "resnet18"], "encoder", "name", "resnet18"),
        (["--encoder=resnet18"], "encoder", "name", "resnet18"),
        (["--views", "cifar", "--views.size", "24"], "views", "preset", "cifar"),
        (["--init", "a.safetensors"], "init", "weights", "a.safetensors"),
    ],
)
def test_a_group_alone_is_its_name(words: list[str], group: str, option: str, value: str) -> None:
    config = parse("pretrain", COMMANDS["pretrain"], ["--out", "x", *words])["config"]
    assert getattr(getattr(config, group), option) == value


def test_other_groups_have_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--falcon", "--reading", "--optim", "--encode"):
        assert run("pretrain", "--out", "x", word, "3") == 2
        assert f"unknown option {word}" in capsys.readouterr().err
