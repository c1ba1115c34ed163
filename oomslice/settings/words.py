# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lists of words in one value, split and quoted as systemd does in its lists of units and paths.

The rules are those of config_parse_strv(): extract_first_word() with EXTRACT_UNQUOTE and
EXTRACT_RETAIN_ESCAPE. Single and double quotes join words and are removed, also in the middle of one, and a
backslash is an ordinary character, because names such as app-foo\\x2dbar.service hold it.
"""

from __future__ import annotations

from collections.abc import Iterable

from oomslice.settings.values import WHITESPACE, BadValueError


def split_words(text: str) -> list[str]:
    """The words of `text`. Raises BadValueError if a quote is not closed."""
    words: list[str] = []
    word: list[str] | None = None  # None: between words; a pair of quotes begins a word even when nothing is in it
    quote = ""
    for character in text:
        if quote:
            assert word is not None
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in WHITESPACE:
            if word is not None:
                words.append("".join(word))
                word = None
        else:
            word = [] if word is None else word
            if character in "'\"":
                quote = character
            else:
                word.append(character)
    if quote:
        raise BadValueError(f"has a quote {quote} that is not closed")
    if word is not None:
        words.append("".join(word))
    return words


def join_words(words: Iterable[str]) -> str:
    """The text that split_words() takes apart into `words`, quoted only where it must be."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word and not any(character in WHITESPACE or character in "'\"" for character in word):
        return word
    if '"' not in word:
        return f'"{word}"'
    return '"' + word.replace('"', '"\'"\'"') + '"'
