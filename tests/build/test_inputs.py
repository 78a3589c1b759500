import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from patchwheel.build import inputs
from patchwheel.kit import process


def test_environments_of_two_forks_are_made_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both, made = threading.Barrier(2), []

    def make(*given: object) -> Path:
        both.wait(10)
        made.append(given)
        return tmp_path

    monkeypatch.setattr(inputs, "build_environment", make)
    given: Any = {"context": None, "fork": None, "build": SimpleNamespace(build_requires=())}

    def ask() -> list[Path]:
        one = inputs.BuildInputs(**given, epoch=1)
        return [one.environment, one.environment]

    calls = [process.started(ask) for _ in range(2)]
    assert [call(20) for call in calls] == [[tmp_path, tmp_path]] * 2
    assert len(made) == 2
