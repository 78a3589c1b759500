"""The counting of bytes between host and device, on a CUPTI that hands out records as the real one does."""

from __future__ import annotations

import ctypes
import importlib
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Three copies in one buffer: 96 bytes each, of which the first 16 are what is read.
CUPTI = """
#include <stdint.h>
#include <string.h>
typedef void (*request)(uint64_t **, size_t *, size_t *);
typedef void (*complete)(void *, uint32_t, uint64_t *, size_t, size_t);
static request on_request;
static complete on_complete;
static int position;
int cuptiActivityRegisterCallbacks(request r, complete c) { on_request = r; on_complete = c; return 0; }
int cuptiActivityEnable(uint32_t kind) { return kind == 1 ? 0 : 1; }
int cuptiActivityDisable(uint32_t kind) { return kind == 1 ? 0 : 1; }
int cuptiActivityGetNumDroppedRecords(void *c, uint32_t s, size_t *dropped) { *dropped = 0; return 0; }
int cuptiActivityGetNextRecord(uint64_t *buffer, size_t valid, void **record) {
    if ((size_t)(position + 1) * 96 > valid) { position = 0; return 12; }
    *record = (char *)buffer + 96 * position++;
    return 0;
}
int cuptiActivityFlushAll(uint32_t flag) {
    uint64_t *buffer; size_t size, most;
    on_request(&buffer, &size, &most);
    struct { uint32_t kind; uint8_t copy, src, dst, flags; uint64_t bytes; } rows[3] =
        {{1, 1, 0, 0, 0, 1000}, {1, 2, 0, 0, 0, 5000000000}, {1, 2, 0, 0, 0, 8}};
    for (int i = 0; i < 3; i++) memcpy((char *)buffer + 96 * i, &rows[i], 16);
    on_complete(0, 0, buffer, size, 288);
    return 0;
}
"""


@pytest.fixture(name="traffic")
def _traffic(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("traffic")


def gpu() -> SimpleNamespace:
    return SimpleNamespace(name="cupy", device=0, synchronize=lambda: None)


@pytest.mark.compiled
def test_bytes_of_both_directions_are_added_up(
    traffic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cupti.c").write_text(CUPTI)
    command = ["gcc", "-shared", "-fPIC", "-o", "libcupti.so", "cupti.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.setenv("CUPTI_FOLDER", str(tmp_path))
    with traffic.count_traffic(gpu()) as found:
        pass
    assert found.to_device == 1000
    assert found.to_host == 5_000_000_008
    assert found.largest_to_host == 5_000_000_000
    assert found.dropped == 0


@pytest.mark.compiled
def test_an_error_of_cupti_is_named(traffic: ModuleType, tmp_path: Path) -> None:
    broken = CUPTI.replace("return kind == 1 ? 0 : 1", "return 35", 1)
    (tmp_path / "cupti.c").write_text(broken)
    command = ["gcc", "-shared", "-fPIC", "-o", "libcupti.so", "cupti.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    cupti = ctypes.CDLL(str(tmp_path / "libcupti.so"))
    with (
        pytest.raises(OSError, match="cuptiActivityEnable failed with CUPTI error 35"),
        traffic.recording(cupti, traffic.Traffic(), lambda: None),
    ):
        pass


def test_without_cupti_nothing_is_claimed(
    traffic: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "find_cupti", lambda: None)
    with traffic.count_traffic(gpu()) as found:
        assert found is None


def test_nothing_crosses_without_a_gpu(traffic: ModuleType) -> None:
    backend = SimpleNamespace(name="numpy", device="cpu", synchronize=lambda: None)
    with traffic.count_traffic(backend) as found:
        pass
    assert found == traffic.Traffic()
