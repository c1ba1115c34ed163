# SPDX-License-Identifier: LGPL-2.1-or-later
"""What administrators write, as values: [X-OOMSlice] of unit files, and oomslice.yaml with its drop-ins.

Text in, values and `Problem`s out: nothing here opens a file, reads a clock or knows a machine, and no parser
of whole files raises. A bad value is ignored with file, line and reason, and what was said before it stays.
May import the standard library, PyYAML (configuration and yamltext only) and `oomslice.errors`; no other layer.
"""
