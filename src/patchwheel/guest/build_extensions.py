"""Runs in a build environment: builds some extension modules of a setuptools project.

Its arguments are the backend, a folder for the modules, and as JSON the config settings and the
paths in the wheel. The backend is asked for a wheel, and stopped when the modules are built.
"""

# ruff: noqa: PTH118

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


class Done(BaseException):
    """No error: all that is wanted was built."""


def build_only(wanted: set[str], out: str) -> None:
    """Let setuptools build only these extension modules."""
    distribution: Any = importlib.import_module("setuptools.dist").Distribution
    real = distribution.run_command

    def run_command(self: Any, name: str) -> None:  # noqa: ANN401
        if name != "bdist_wheel":
            real(self, name)
            return
        command = self.get_command_obj("build_ext")
        command.ensure_finalized()
        command.build_lib = os.path.join(out, "")
        # A project may go over either list, to run Cython on it or to build it.
        self.ext_modules[:] = command.extensions[:] = [
            extension
            for extension in command.extensions
            if os.path.relpath(command.get_ext_fullpath(extension.name), out) in wanted
        ]
        real(self, "build_ext")
        raise Done

    distribution.run_command = run_command


def main() -> None:
    backend, out, settings, wanted = sys.argv[1:]
    build_only(set(json.loads(wanted)), out)
    module, _, attribute = backend.partition(":")
    hooks: Any = importlib.import_module(module)
    hooks = getattr(hooks, attribute) if attribute else hooks
    try:
        hooks.build_wheel(out, json.loads(settings))
    except Done:
        return


if __name__ == "__main__":
    main()
