"""Text that was read from somewhere, with nothing in it that hides, or that changes what stands beside it."""

import re
import unicodedata

_CANDIDATES = re.compile(r"[^\x20-\x7e\n\t]")
# Controls (escape sequences of a terminal), formats (right-to-left overrides, zero widths), lone surrogates.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def visible(text: str) -> str:
    r"""The text with control and format characters as escapes such as ``\u202e``; line breaks and tabs stay."""
    return _CANDIDATES.sub(lambda m: _escape(m[0]) if unicodedata.category(m[0]) in _HIDDEN else m[0], text)


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if character > "\x7f" else f"\\x{ord(character):02x}"
