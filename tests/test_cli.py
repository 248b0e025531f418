"""The command line as a user meets it: real digits, exit codes, one clear line for what is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from falcon_ssl import cli, cli_parser

TINY = ["--epochs", "2", "--falcon.num_codes", "64", "--falcon.embed_dim", "16"]

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
        ([], "command"),
        (["fly"], "fly"),
        (["pretrain"], "out"),
        (["pretrain", "--out", "OUT", "--epoks", "3"], "--epoks"),
        (["pretrain", "--out", "OUT", "--epochs", "three"], "epochs"),
        (["pretrain", "--out", "OUT", "--epochs", "0"], "epochs is too small: received 0"),
        (["pretrain", "--out", "OUT", "--data", "cats"], "cats"),
        (
            ["pretrain", "--out", "OUT", "--config", "nope.yaml"],
            "no such configuration: received nope.yaml",
        ),
        (["pretrain", "--out", "OUT", "--falcon.epsilon", "0.01"], "1/num_codes = 0.000244141"),
        (
            ["pretrain", "--out", "OUT", "--falcon.epsilon", "1e-8", "--falcon.temperature", "1"],
            "epsilon and temperature state the same thing",
        ),
        (["pretrain", "--out", "OUT", "--resume"], "no run folder"),
        (["evaluate", "OUT"], "no run folder"),
        (["report", "OUT"], "run folder"),
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
    assert not out.exists(), "nothing is written before the options are known to be good"


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
    for command in ("demo", "evaluate", "report"):
        assert run(command, "--help") == 0


@pytest.mark.parametrize("name", cli_parser.recipe_names())
def test_every_recipe_is_valid(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pretrain", "--config", name, "--out", "x", "--print_config") == 0
    assert Path(cli_parser.recipe_path(name)).read_text().startswith("#"), (
        "a recipe's header says what it gives"
    )
