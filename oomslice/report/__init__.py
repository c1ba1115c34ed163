# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page for a post-mortem: records of decisions and figures in, one self-contained HTML file out.

Pure: no clock, no file, no bus. The page loads nothing and runs nothing: its style is inside, its pictures are SVG, and
there is no script. All text from outside goes through `html.text`. What was not recorded is said to be so, never drawn.
"""
