"""Code that a run folder, a table or an export names is not run before the user has agreed to it."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import falcon_ssl
from falcon_ssl import cli, commands
from falcon_ssl.commands import studies
from falcon_ssl.commands.studies.runner import Job, read_status, run_jobs
from falcon_ssl.config import FinetuneConfig, from_mapping
from falcon_ssl.core.errors import InputError
from falcon_ssl.report import build_report
from support.short_runs import SHORT

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
import my_parts  # noqa: E402

REFUSED = "code of .* is not run without consent: received the function .* of the module stranger "


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of parts of a module that leaves a mark where it is imported."""
    folder = tmp_path_factory.mktemp("stranger")
    run = commands.pretrain(
        replace(SHORT, epochs=1),
        out=folder / "run",
        encoder=my_parts.encoder,
        data=my_parts.data,
        views=my_parts.views,
        monitors=[],
    )
    for name in ("config.yaml", "data.json"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace("python:my_parts", "python:stranger"))
    code = "from pathlib import Path\nfrom my_parts import data, encoder, views\n"
    (folder / "stranger.py").write_text(f"{code}Path({str(folder / 'mark')!r}).touch()\n")
    return run


@pytest.fixture
def mark(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Written when the stranger's module is imported, which it can be."""
    monkeypatch.syspath_prepend(str(run.parent))
    sys.modules.pop("stranger", None)
    (run.parent / "mark").unlink(missing_ok=True)
    return run.parent / "mark"


def resume(run: Path, **more: Any) -> object:
    config = from_mapping(yaml.safe_load((run / "config.yaml").read_text()))
    return commands.pretrain(config, out=run, resume=True, monitors=[], **more)


def sheet(run: Path, **more: Any) -> object:
    config = from_mapping(yaml.safe_load((run / "config.yaml").read_text()))
    return commands.views_sheet(config, out=run.parent / "views.png", overwrite=True, **more)


def begin_from(run: Path, **more: Any) -> object:
    config = replace(SHORT, epochs=1, init=replace(SHORT.init, weights=str(run)))
    return commands.pretrain(config, out=run.parent / "next", overwrite=True, monitors=[], **more)


def sweep(run: Path, **more: Any) -> object:
    config = from_mapping(yaml.safe_load((run / "config.yaml").read_text()))
    return studies.sweep(
        config, out=run.parent / "sweep", num_codes=(32, 64), complete=False, **more
    )


COMMANDS: dict[str, Callable[..., object]] = {
    "evaluate": commands.evaluate,
    "evaluate other data": lambda run, **more: commands.evaluate(
        run, data="python:stranger:data", name="other", **more
    ),
    "diagnose": commands.diagnose,
    "diagnose an encoder": lambda run, **more: commands.diagnose(
        "python:stranger:encoder", data="digits", **more
    ),
    "embed": lambda run, **more: commands.embed(
        run, out=run.parent / "z.npz", overwrite=True, **more
    ),
    "export": lambda run, **more: commands.export(
        run, out=run.parent / "out", to="hf", overwrite=True, **more
    ),
    "finetune": lambda run, **more: commands.finetune(
        run,
        out=run.parent / "tuned",
        config=FinetuneConfig(labels=4, draws=1, epochs=1),
        overwrite=True,
        **more,
    ),
    "load_encoder": falcon_ssl.load_encoder,
    "load_run": commands.load_run,
    "resume": resume,
    "begin from it": begin_from,
    "views": sheet,
    "baseline": lambda run, **more: commands.baseline(
        "python:stranger:data", out=run.parent / "base", num_centers=8, patch_size=3, **more
    ),
    "speedrun": lambda run, **more: commands.speedrun(
        replace(SHORT, data="python:stranger:data"), out=run.parent / "speed", **more
    ),
    "sweep": sweep,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_imported_without_consent(name: str, run: Path, mark: Path) -> None:
    with pytest.raises(InputError, match=REFUSED):
        COMMANDS[name](run)
    assert not mark.exists()
    assert "stranger" not in sys.modules


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("speedrun", "sweep")])
def test_with_consent_everything_is_as_ever(name: str, run: Path, mark: Path) -> None:
    COMMANDS[name](run, trust_code=True)
    assert mark.exists()
    with pytest.raises(InputError, match=REFUSED):  # consent ends with the command
        falcon_ssl.load_encoder(run)


@pytest.mark.slow
def test_runs_in_processes_of_their_own_have_it(
    run: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, (run.parent, *sys.path))))
    config = from_mapping(yaml.safe_load((run / "config.yaml").read_text()))
    config = replace(
        config,
        monitor=replace(config.monitor, every_epochs=0),
        evaluation=replace(config.evaluation, untrained=False),
    )
    job = Job("one", config, (1, 8, 8))
    with falcon_ssl.trusting_code():
        run_jobs([job], tmp_path)
    assert read_status(tmp_path / "one").state == "done"


@pytest.mark.parametrize("part", ["data", "encoder", "views"])
def test_each_part_needs_it(part: str, run: Path, mark: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    text = (copy / "config.yaml").read_text().replace("stranger", "my_parts")
    (copy / "config.yaml").write_text(text.replace(f"my_parts:{part}", f"stranger:{part}"))
    with pytest.raises(InputError, match=f"the function {part} of the module stranger"):
        commands.evaluate(copy)
    assert not mark.exists()


def test_the_command_line_has_it_as_an_option(
    run: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", str(run), "--out", str(run.parent / "z.parquet"), "--overwrite"]
    assert cli.main(words) == 2
    assert "add --trust_code" in capsys.readouterr().err
    assert cli.main(["pretrain", "--out", str(run), "--resume"]) == 2
    assert not mark.exists()
    assert cli.main([*words, "--trust_code"]) == 0
    assert mark.exists()
    assert cli.main(["report", str(run), "--trust_code"]) == 2, "a report runs no code"


def test_a_report_runs_no_code(run: Path, mark: Path) -> None:
    assert "python:stranger" in build_report(run).read_text()
    assert not mark.exists()


def test_a_table_shows_no_images_of_a_stranger(
    run: Path, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = commands.embed(run, out=run.parent / "t.parquet", overwrite=True, trust_code=True)
    sys.modules.pop("stranger")
    mark.unlink()
    commands.search(table, [0], k=2)
    commands.duplicates(table)
    assert "no pictures" in caplog.text
    assert "is not run without consent" in caplog.text
    assert not mark.exists()
    commands.search(table, [0], k=2, trust_code=True)
    assert table.with_suffix(".search.png").is_file()


def test_an_exported_folder_is_a_strangers_too(run: Path, mark: Path) -> None:
    out = commands.export(run, out=run.parent / "file", overwrite=True, trust_code=True)
    sys.modules.pop("stranger")
    mark.unlink()
    with pytest.raises(InputError, match=REFUSED):
        falcon_ssl.load_encoder(out)
    with pytest.raises(InputError, match=REFUSED):
        commands.pretrain(
            replace(SHORT, init=replace(SHORT.init, weights=str(out))), out=run.parent / "none"
        )
    assert not mark.exists()
    with falcon_ssl.trusting_code():
        assert falcon_ssl.load_encoder(out)


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import sys; sys.modules['payload'] = sys",)


def test_a_program_of_torch_export_is_code(run: Path, tmp_path: Path) -> None:
    out = commands.export(run, out=tmp_path / "program", to="torch", trust_code=True)
    (out / "model.pt2").write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(InputError, match="code of the exported encoder is not run"):
        falcon_ssl.load_encoder(out)
    assert json.loads((out / "falcon_ssl.json").read_text())["to"] == "torch"
    assert "payload" not in sys.modules
