"""Where training reports to."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.errors import UserError
from stages.training import loggers

TRACKING = loggers.Tracking(wandb="offline", project="p", group=None, tags=["mine"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path


def make(tracking: loggers.Tracking = TRACKING) -> list[str]:
    made = loggers.make(tracking, "task-method", ["task", "method"], {"finetune": {"epochs": 3}})
    return [type(logger).__name__ for logger in made]


def test_offline_needs_no_key_and_records_the_run(folder: Path) -> None:
    import wandb

    assert make() == ["CSVLogger", "WandbLogger"]
    run = wandb.run
    assert run is not None and run.settings.mode == "offline"
    assert (run.project, run.group, run.tags) == ("p", "task-method", ("mine", "task", "method"))
    assert run.config["finetune"] == {"epochs": 3}
    loggers.finish()
    assert wandb.run is None
    assert list(folder.glob("results/run/wandb/offline-run-*/*.wandb"))
    assert not (folder / "wandb").exists()


def test_the_variable_goes_before_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert make() == ["CSVLogger"]
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(UserError, match=r"WANDB_MODE: not a known value, got 'of'; write one of"):
        make()


def test_online_without_a_key_is_refused() -> None:
    online = TRACKING.model_copy(update={"wandb": "online"})
    with pytest.raises(UserError, match="got 'online'; run `wandb login`, or write offline"):
        make(online)
