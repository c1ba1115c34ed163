# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes what the machines need, an image and a disk with the package, unless there: `python -m tests.vm.prepare`."""

from __future__ import annotations

from .image import image
from .machine import installed_disk, making, programs_disk, turn
from .package import package

if __name__ == "__main__":
    with turn(), making():
        base = image(print)
        programs_disk()
        print(installed_disk(base, package(), print))
