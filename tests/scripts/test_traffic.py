"""The counting of bytes between host and device, on a CUPTI that hands out records as the real one does."""

from __future__ import annotations

import ctypes
import importlib
import subprocess
import sys
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
    monkeypatch.syspath_prepend(str(SCRIPTS / "gpu"))
    monkeypatch.syspath_prepend(str(SCRIPTS / "demo"))
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


# A copy to the host, a kernel and a synchronisation, 160 bytes each, in the time that cuptiGetTimestamp tells.
PROFILED = """
#include <stdint.h>
#include <string.h>
typedef void (*request)(uint64_t **, size_t *, size_t *);
typedef void (*complete)(void *, uint32_t, uint64_t *, size_t, size_t);
static request on_request;
static complete on_complete;
static int position;
static uint64_t clock_ns;
int cuptiGetTimestamp(uint64_t *now) { *now = clock_ns += 1000000000; return 0; }
int cuptiActivityRegisterCallbacks(request r, complete c) { on_request = r; on_complete = c; return 0; }
int cuptiActivityEnable(uint32_t kind) { return kind == 1 || kind == 10 || kind == 38 ? 0 : 1; }
int cuptiActivityDisable(uint32_t kind) { return 0; }
int cuptiActivityGetNumDroppedRecords(void *c, uint32_t s, size_t *dropped) { *dropped = 0; return 0; }
int cuptiActivityGetNextRecord(uint64_t *buffer, size_t valid, void **record) {
    if ((size_t)(position + 1) * 160 > valid) { position = 0; return 12; }
    *record = (char *)buffer + 160 * position++;
    return 0;
}
int cuptiActivityFlushAll(uint32_t flag) {
    uint64_t *buffer; size_t size, most;
    on_request(&buffer, &size, &most);
    struct __attribute__((packed)) { uint32_t kind; uint8_t copy, rest[3]; uint64_t bytes, start, end; } copy =
        {1, 2, {0}, 64, clock_ns + 10, clock_ns + 100000010};
    struct __attribute__((packed)) {
        uint32_t kind, rest[3]; uint64_t start, end, completed; uint32_t more[14]; int64_t grid; const char *name;
    } kernel = {10, {0}, clock_ns + 10, clock_ns + 400000010, 0, {0}, 0, "spmv"};
    struct __attribute__((packed)) { uint32_t kind, type; uint64_t start, end; } wait =
        {38, 3, clock_ns + 10, clock_ns + 20};
    memcpy((char *)buffer, &copy, sizeof copy);
    memcpy((char *)buffer + 160, &kernel, sizeof kernel);
    memcpy((char *)buffer + 320, &wait, sizeof wait);
    on_complete(0, 0, buffer, size, 480);
    return 0;
}
"""


@pytest.mark.compiled
def test_a_profile_adds_up_kernels_copies_and_synchronisations(
    traffic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cupti.c").write_text(PROFILED)
    command = ["gcc", "-shared", "-fPIC", "-o", "libcupti.so", "cupti.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.setenv("CUPTI_FOLDER", str(tmp_path))
    coins = SimpleNamespace(make_backend=lambda _xp: gpu(), segment=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "coins", coins)
    check = importlib.import_module("gpu_check")
    [row] = check.work_profile("cupy", 1.0, "cluster_qr")
    assert row["kernels"] == row["copies"] == row["synchronizations"] == 1
    assert row["copies_to_host"] == 1
    assert row["gpu_busy_seconds"] == pytest.approx(0.5)
    assert row["longest"] == {"spmv": [1, pytest.approx(0.4)]}
    # A libcupti that lays out its records in another way is not believed.
    monkeypatch.setitem(check.START, check.KERNEL, 24)
    with pytest.raises(ValueError, match="records of kind 10 laid out anew"):
        list(check.work_profile("cupy", 1.0, "cluster_qr"))
