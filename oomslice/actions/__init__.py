# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steps that need more than a write to a file that is already open: warn, purge, checkpoint, start, and OnDecision=.

oomsliced has no privileges; it asks oomslice-actions.service, which is root and small, over one socket (`client`,
`messages`, `service`). One module per step does the work; `checks` says beforehand what would be refused.
That service is started when memory is already short, so what it imports is kept to a few modules of the standard
library: nothing here, `client`, `restore` and `verify` excepted, imports asyncio, cffi, dataclasses, or another layer
of the package beyond `oomslice.errors` and `oomslice.settings.unitname`. (`assign` imports the parsers of settings, in
the child process that sets some.)
"""
