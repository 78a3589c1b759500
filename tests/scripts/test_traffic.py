"""Counting bytes between host and device, on a CUPTI that hands out given records."""

import ctypes
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_profile
import pytest
import traffic

SIZE = 160
SOURCE = """
#include <stdint.h>
#include <string.h>
typedef void (*request)(uint64_t **, size_t *, size_t *);
typedef void (*complete)(void *, uint32_t, uint64_t *, size_t, size_t);
static request on_request;
static complete on_complete;
static size_t position;
static uint64_t calls;
static const unsigned char rows[] = {ROWS};
int cuptiGetTimestamp(uint64_t *now) { *now = 1000000000 * (1 + calls++ % 2); return 0; }
int cuptiActivityRegisterCallbacks(request r, complete c) {
    on_request = r; on_complete = c; return 0;
}
int cuptiActivityEnable(uint32_t kind) { return KNOWN ? 0 : 35; }
int cuptiActivityDisable(uint32_t kind) { return KNOWN ? 0 : 35; }
int cuptiActivityGetNumDroppedRecords(void *c, uint32_t s, size_t *dropped) {
    *dropped = 0; return 0;
}
int cuptiActivityGetNextRecord(uint64_t *buffer, size_t valid, void **record) {
    if (position + SIZE > valid) { position = 0; return 12; }
    *record = (char *)buffer + position; position += SIZE; return 0;
}
int cuptiActivityFlushAll(uint32_t flag) {
    uint64_t *buffer; size_t size, most;
    on_request(&buffer, &size, &most);
    memcpy(buffer, rows, sizeof rows);
    on_complete(0, 0, buffer, size, sizeof rows);
    return 0;
}
"""
SPMV = ctypes.create_string_buffer(b"spmv")
SECOND = 1_000_000_000


def make_cupti(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *rows: bytes, kinds: tuple[int, ...] = (1,)
) -> None:
    """Compile a CUPTI that knows kinds of records, and hands out these."""
    values = {
        "ROWS": ",".join(map(str, b"".join(row.ljust(SIZE, b"\0") for row in rows))) or "0",
        "KNOWN": "||".join(f"kind == {kind}" for kind in kinds) or "0",
        "SIZE": str(SIZE),
    }
    text = SOURCE
    for name, value in values.items():
        text = text.replace(name, value)
    (folder / "cupti.c").write_text(text)
    command = ["gcc", "-shared", "-fPIC", "-o", "libcupti.so", "cupti.c"]
    subprocess.run(command, cwd=folder, check=True)
    monkeypatch.setenv("CUPTI_FOLDER", str(folder))


def copied(direction: int, size: int, start: int = 0, end: int = 0) -> bytes:
    return struct.pack("=IBxxxQQQ", 1, direction, size, start, end)


def make_backend(name: str, device: object) -> Any:
    return SimpleNamespace(name=name, device=device, synchronize=lambda: None)


@pytest.mark.compiled
def test_bytes_of_both_directions_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = copied(1, 1000), copied(2, 5_000_000_000), copied(2, 8)
    make_cupti(tmp_path, monkeypatch, *rows)
    with traffic.count_traffic(make_backend("cupy", 0)) as found:
        pass
    assert found == traffic.Traffic(
        to_device=1000,
        to_host=5_000_000_008,
        copies_to_host=2,
        largest_to_host=5_000_000_000,
        dropped=0,
    )


@pytest.mark.compiled
def test_an_error_of_cupti_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cupti(tmp_path, monkeypatch, kinds=())
    cupti = ctypes.CDLL(str(tmp_path / "libcupti.so"))
    with (
        pytest.raises(OSError, match="cuptiActivityEnable failed with CUPTI error 35"),
        traffic.recording(cupti, traffic.Traffic(), lambda: None),
    ):
        pass


def test_without_cupti_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "find_cupti", lambda: None)
    with traffic.count_traffic(make_backend("cupy", 0)) as found:
        assert found is None


def test_nothing_crosses_without_a_gpu() -> None:
    with traffic.count_traffic(make_backend("numpy", "cpu")) as found:
        pass
    assert found == traffic.Traffic()


@pytest.mark.compiled
def test_a_profile_adds_up_kernels_copies_and_synchronisations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A copy to the host, a kernel and a synchronisation, in the time that cuptiGetTimestamp tells.
    kernel = struct.pack("=I12xQQ", 10, SECOND + 10, SECOND + 400_000_010)
    kernel = kernel.ljust(104, b"\0") + struct.pack("=Q", ctypes.addressof(SPMV))
    wait = struct.pack("=IIQQ", 38, 3, SECOND + 10, SECOND + 20)
    rows = copied(2, 64, SECOND + 10, SECOND + 100_000_010), kernel, wait
    make_cupti(tmp_path, monkeypatch, *rows, kinds=(1, 10, 38))
    coins = SimpleNamespace(
        make_backend=lambda xp: make_backend(xp, 0), segment=lambda *_, **__: None
    )
    monkeypatch.setitem(sys.modules, "coins", coins)
    row = gpu_profile.profile(1.0, "cluster_qr")
    assert row["kernels"] == row["copies"] == row["synchronizations"] == 1
    assert row["copies_to_host"] == 1
    assert row["gpu_busy_seconds"] == pytest.approx(0.5)
    assert row["longest"] == {"spmv": [1, pytest.approx(0.4)]}
    # A libcupti that lays out its records in another way is not believed.
    monkeypatch.setitem(gpu_profile.START, gpu_profile.KERNEL, 24)
    with pytest.raises(ValueError, match="records of kind 10 laid out anew"):
        gpu_profile.profile(1.0, "cluster_qr")
