# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes what the machines need, the image and the package, unless it is there: `python -m tests.vm.prepare`."""

from __future__ import annotations

from .image import image
from .package import package

if __name__ == "__main__":
    print(image(print).directory)
    print(package())
