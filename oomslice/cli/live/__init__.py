# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `oomslicectl top` is made of: figures of the machine and its units, the picture of them, and the screen.

`figures` reads, `view` is pure (figures and keys in, lines out), `screen` alone knows curses.
"""
