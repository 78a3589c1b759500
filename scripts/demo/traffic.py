"""Counts the bytes that cross between host and GPU, by the records of CUPTI's Activity API.

Python-level wrappers would miss what a library copies on its own; CUPTI sees every copy of the
process. Without a GPU nothing crosses; with one, but without libcupti, nothing can be said.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, byref, c_size_t, c_uint32, c_uint64, c_void_p, string_at
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coins import Backend

KIND_MEMCPY = 1
SUCCESS = 0
TO_DEVICE, TO_HOST = 1, 2
BUFFER = 8 << 20
# The head of CUpti_ActivityMemcpy (cupti_activity.h): kind, kind of copy, three bytes, size.
MEMCPY = struct.Struct("=IBxxxQ")
REQUESTED = CFUNCTYPE(None, POINTER(c_uint64), POINTER(c_size_t), POINTER(c_size_t))
COMPLETED = CFUNCTYPE(None, c_void_p, c_uint32, c_uint64, c_size_t, c_size_t)
# CUPTI may hold buffers, and call what is registered, until the process ends.
BUFFERS: dict[int, Any] = {}
REGISTERED: list[Any] = []
NAMES = ("libcupti.so.13", "libcupti.so", "libcupti.so.12")
PLACES = ("/usr/local/cuda/extras/CUPTI/lib64", "/usr/local/cuda/lib64")


@dataclass(slots=True)
class Traffic:
    """Bytes copied so far, and the largest copy to the host; `dropped` records were lost."""

    to_device: int = 0
    to_host: int = 0
    copies_to_host: int = 0
    largest_to_host: int = 0
    dropped: int = 0

    def add(self, copy_kind: int, size: int) -> None:
        if copy_kind == TO_DEVICE:
            self.to_device += size
        elif copy_kind == TO_HOST:
            self.to_host += size
            self.copies_to_host += 1
            self.largest_to_host = max(self.largest_to_host, size)


def find_cupti() -> ctypes.CDLL | None:
    """Return CUPTI from CUDA's wheels here, from a CUDA toolkit, or from the loader's path."""
    places = [os.environ.get("CUPTI_FOLDER", ""), *PLACES]
    spec = importlib.util.find_spec("nvidia")
    for root in (spec and spec.submodule_search_locations) or ():
        places += [str(p.parent) for p in Path(root).glob("*/lib/libcupti.so*")]
    paths = [Path(p) / n for p in places if p for n in NAMES]
    for path in [*(str(p) for p in paths if p.exists()), *NAMES]:
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


@contextmanager
def count_traffic(backend: Backend) -> Iterator[Traffic | None]:
    """Count copies between host and device while the block runs; None if they cannot be counted.

    The figures are complete when the block has ended. A process can count once at a time.
    """
    if backend.name != "cupy" and getattr(backend.device, "type", "cpu") != "cuda":
        yield Traffic()
        return
    cupti = find_cupti()
    if cupti is None:
        yield None
        return
    traffic = Traffic()
    with recording(cupti, traffic, backend.synchronize):
        yield traffic


@contextmanager
def recording(
    cupti: ctypes.CDLL,
    traffic: Traffic,
    synchronize: Callable[[], None],
    also: Mapping[int, Callable[[int], None]] | None = None,
) -> Iterator[None]:
    """Let CUPTI record copies into buffers of ours, and add them up as they come back.

    `also` takes the addresses of records of other kinds.
    """
    others = also or {}

    def requested(place: Any, size: Any, most: Any) -> None:
        buffer = (c_uint64 * (BUFFER // 8))()  # records are aligned to 8 bytes
        address = ctypes.addressof(buffer)
        BUFFERS[address] = buffer
        place[0], size[0], most[0] = address, BUFFER, 0

    def completed(context: int, stream: int, address: int, _size: int, valid: int) -> None:
        record = c_void_p()
        next_record = cupti.cuptiActivityGetNextRecord
        while next_record(c_uint64(address), c_size_t(valid), byref(record)) == SUCCESS:
            kind, copy_kind, size = MEMCPY.unpack(string_at(record, MEMCPY.size))
            if kind == KIND_MEMCPY:
                traffic.add(copy_kind, size)
            if record.value and kind in others:
                others[kind](record.value)
        lost = c_size_t()
        cupti.cuptiActivityGetNumDroppedRecords(c_void_p(context), c_uint32(stream), byref(lost))
        traffic.dropped += lost.value
        del BUFFERS[address]

    def call(name: str, *arguments: Any) -> None:
        if status := getattr(cupti, name)(*arguments):
            raise OSError(f"{name} failed with CUPTI error {status}")

    callbacks = REQUESTED(requested), COMPLETED(completed)
    REGISTERED.append(callbacks)
    call("cuptiActivityRegisterCallbacks", *callbacks)
    enabled = []
    try:
        for kind in {KIND_MEMCPY, *others}:
            call("cuptiActivityEnable", c_uint32(kind))
            enabled.append(kind)
        yield
    finally:
        synchronize()
        call("cuptiActivityFlushAll", c_uint32(1))
        for kind in enabled:
            call("cuptiActivityDisable", c_uint32(kind))
