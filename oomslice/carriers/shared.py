# SPDX-License-Identifier: LGPL-2.1-or-later
"""The maps that BPF programs share with the core: found where oomslice-bpf pins them, to be handed on. Nothing is read
from them or written to them here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oomslice._core import ffi, lib
from oomslice.carriers.bpf import PINS

CORE_MAPS = ("pulse", "signs")
"""Names, in the order in which the core takes them (core/channel.h): all, or it is as if there were none."""


class SharedMaps:
    """What is pinned now below `pins`."""

    def __init__(self, pins: Path = PINS) -> None:
        self._directory = pins / "shared"

    @contextmanager
    def open(self) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Descriptors, as long as the block runs, and the kernel's ids of the maps: new ones if they were made anew."""
        descriptors: list[int] = []
        ids: list[int] = []
        map = ffi.new("struct oomslice_pinned_map *")
        try:
            for name in CORE_MAPS:
                fd = lib.oomslice_pinned_open(os.fsencode(self._directory / f"map-{name}"))
                if fd < 0:
                    break
                descriptors.append(fd)
                if lib.oomslice_pinned_map(fd, map) < 0:
                    break
                ids.append(map.id)
            complete = len(ids) == len(CORE_MAPS)
            yield (tuple(descriptors), tuple(ids)) if complete else ((), ())
        finally:
            for fd in descriptors:
                os.close(fd)
