# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus service org.oomslice1 and the client that oomslicectl uses.

`interface` says as data what is on the bus, `backend` what the service asks of the daemon, `service` joins the two,
`client` is the other side. `transport` is the only importer of dbus-next and knows nothing of oomslice. `question` and
`wire` do for oomslicectl what `transport` does, without all that takes long to import. What the daemon tells everybody
is made into events by `events`, and heard by `listener`, or by `hearing` over a `question`. May import
decisions.record, settings.model and errors; never policy, units or daemon.
"""

from __future__ import annotations
