# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `oomslicectl doctor` looks at: the kernel, memory, the services, other killers, the daemon's own word.

Each module gives findings and changes nothing. Files are read below a root that is a parameter, systemd and the bus
are asked by functions that are parameters: so tests show them machines that are not there.
"""
