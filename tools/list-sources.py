# SPDX-License-Identifier: LGPL-2.1-or-later
"""list-sources.py FOLDER PATTERN...: the files below FOLDER that match, one a line, sorted, relative to the top.

For meson, which has no globs of its own. After a new file, `meson setup --reconfigure`.
"""

from __future__ import annotations

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def main() -> int:
    folder, *patterns = sys.argv[1:]
    found = {path for pattern in patterns for path in (TOP / folder).rglob(pattern) if path.is_file()}
    print("\n".join(sorted(str(path.relative_to(TOP)) for path in found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
