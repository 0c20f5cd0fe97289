"""Slices of posts by what their text, as it was posted, holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# Pictographs, regional indicators, and the older symbols that platforms draw as emoji.
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u203c\u2049\u231a\u231b\u23e9-\u23f3]")
EMOTICON = re.compile(r"(?:^|\s)[:;=8xX]['’]?-?[)(DPpOo/\\|*3]+(?=\s|$|[.,!])|<3")
HASHTAG = re.compile(r"(?:^|\W)#\w")
HANDLE = re.compile(r"(?:^|\W)@\w")
LINK = re.compile(r"https?://|\bwww\.")
NEGATION = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|hardly|barely|cannot|\w+n['’]t|(?:do|does|did|is|was|are|were|would|could|should|ca|wo|have|has|had|ai)nt)\b",
    re.IGNORECASE,
)
CONTRAST = re.compile(r"\b(?:but|although|though|however|despite|yet)\b", re.IGNORECASE)

SLICES: dict[str, Callable[[str], bool]] = {
    "emoji": lambda text: bool(EMOJI.search(text)),
    "emoticons": lambda text: bool(EMOTICON.search(text)),
    "hashtags": lambda text: bool(HASHTAG.search(text)),
    "handles": lambda text: bool(HANDLE.search(text)),
    "links": lambda text: bool(LINK.search(text)),
    "negation words": lambda text: bool(NEGATION.search(text)),
    "but, although": lambda text: bool(CONTRAST.search(text)),
    "a question": lambda text: "?" in text,
}


QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")


def slices(texts: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the posts of each slice: those above, and quarters by words."""
    found = {name: [i for i, text in enumerate(texts) if holds(text)] for name, holds in SLICES.items()}
    words = [len(text.split()) for text in texts]
    for quarter, (low, high) in enumerate(quarters(words)):
        found[f"{QUARTERS[quarter]}: {low} to {high} words"] = [i for i, n in enumerate(words) if low <= n <= high]
    return found


def quarters(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges, both ends included, that hold about a quarter of the numbers each; a tie belongs to the lower one."""
    ordered = sorted(numbers)
    highs = [ordered[max(0, len(ordered) * k // 4 - 1)] for k in (1, 2, 3, 4)]
    return [(ordered[0], highs[0])] + [(low + 1, high) for low, high in zip(highs, highs[1:])]
