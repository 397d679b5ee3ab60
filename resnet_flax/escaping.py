"""Escapes characters that hide text, or that change how the text around them is shown."""

import re
import unicodedata

_CANDIDATES = re.compile(r"[^\x20-\x7e\n\t]")
# Unicode categories: control characters (terminal escape sequences), format characters (right-to-left overrides,
# zero-width ones), lone surrogates, private use, line and paragraph separators.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def escape_hidden(text: str) -> str:
    r"""Replaces control and format characters by escapes such as ``\u202e``, except for line breaks and tabs."""
    return _CANDIDATES.sub(lambda m: _escape(m[0]) if unicodedata.category(m[0]) in _HIDDEN else m[0], text)


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if character > "\x7f" else f"\\x{ord(character):02x}"
