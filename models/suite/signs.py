"""Templates for what posts hold beside words: emoji, hashtags, irony's markers, and spelling."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterator
from itertools import product

from .case import Case, down, inv, mft, sentence, up
from .lexicon import (
    BAD, BAD_EMOJI, COMPANIES, EVENTS, GOOD, GOOD_EMOJI, HATE, LIKE, MISHAPS, NEGATIVE, NEUTRAL, PLAIN_EMOJI, POSITIVE, THINGS, TREATS,
)  # fmt: skip


def emoji() -> Iterator[Case]:
    for good, bad in product(GOOD_EMOJI, BAD_EMOJI):
        for event in EVENTS:
            text = sentence(event)
            yield down("emoji", "the same words, another emoji", f"{text} {bad}", f"{text} {good}", 0.3)
    for event in EVENTS:
        text = sentence(event)
        for good in GOOD_EMOJI:
            yield up("emoji", "a glad emoji lifts", f"{text} {good}", text)
            yield mft("emoji", "a glad emoji decides", f"{text} {good}{good}", POSITIVE)
        for bad in BAD_EMOJI:
            yield down("emoji", "an angry or sad emoji lowers", f"{text} {bad}", text)
            yield mft("emoji", "an angry or sad emoji decides", f"{text} {bad}{bad}", NEGATIVE)
        for plain in PLAIN_EMOJI:
            yield inv("emoji", "the picture of a thing changes nothing", f"{text} {plain}", text)
    for count in (1, 2, 3):
        for good in GOOD_EMOJI:
            yield mft("emoji", "alone", good * count, POSITIVE)
        for bad in BAD_EMOJI:
            yield mft("emoji", "alone", bad * count, NEGATIVE)
        for plain in PLAIN_EMOJI:
            yield mft("emoji", "alone, of a thing", plain * count, NEUTRAL)


def hashtags() -> Iterator[Case]:
    good = ["#love", "#BestDayEver", "#grateful", "#awesome", "#happy", "#highlyrecommended", "#winning", "#SoProud"]
    bad = ["#fail", "#WorstDayEver", "#disappointed", "#NeverAgain", "#angry", "#ripoff", "#terrible", "#SoAnnoyed"]
    topics = ["#travel", "#MondayMeeting", "#coffee", "#football", "#TechNews", "#photo", "#Lisbon", "#books"]
    for event in EVENTS:
        text = sentence(event)
        for tag in good:
            yield up("hashtags", "a glad tag lifts", f"{text} {tag}", text)
        for tag in bad:
            yield down("hashtags", "an angry tag lowers", f"{text} {tag}", text)
        for tag in topics:
            yield inv("hashtags", "a topic changes nothing", f"{text} {tag}", text)
    for tag in good:
        yield mft("hashtags", "alone", tag, POSITIVE)
    for tag in bad:
        yield mft("hashtags", "alone", tag, NEGATIVE)


def irony() -> Iterator[Case]:
    openings = ["Great, {}", "Oh great, {}", "Just what I needed: {}", "Love it when {}", "Fantastic. {}", "Perfect timing, {}", "Lucky me, {}"]
    endings = ["{} 🙄", "{}. What a great day.", "{}. How wonderful 😒", "{} #sarcasm", "{}. Best day ever, not.", "{}, thanks a lot!", "{} /s"]
    for mishap in MISHAPS:
        for opening in openings:
            text = opening.format(mishap)
            yield mft("irony", "a glad opening", sentence(text), NEGATIVE)
            yield mft("irony", "a glad opening, rolling eyes", f"{sentence(text)} 🙄", NEGATIVE)
        for ending in endings:
            yield mft("irony", "a glad ending", sentence(ending.format(mishap)), NEGATIVE)
    for company in COMPANIES:
        for text in ("Thanks for nothing, {}.", "Well done {}, two hours late again.", "Great job losing my luggage, {}!", "Slow clap for {} 👏",
                     "{}, as helpful as ever. I'm still waiting.", "Nice one {}, my order is broken again"):  # fmt: skip
            yield mft("irony", "mock thanks", text.format(company), NEGATIVE)
    for treat, opening in product(TREATS, ["Great, {}", "Love it when {}", "Lucky me, {}", "Just what I needed: {}"]):
        yield mft("irony", "the same opening, meant", sentence(opening.format(treat)), POSITIVE)


def spelling() -> Iterator[Case]:
    """Texts that say the same. Uppercase and stretched letters may add force, so that only their label counts."""
    plain = [f"{thing} is {word}, I {verb} it." for thing in THINGS for words, verbs in ((GOOD, LIKE), (BAD, HATE)) for word in words for verb in verbs[:2]]
    for base in map(sentence, plain):
        yield inv("spelling", "two letters swapped", typo(base, swap), base)
        yield inv("spelling", "a letter lost", typo(base, lose), base)
        yield inv("spelling", "a letter doubled", typo(base, double), base)
        yield inv("spelling", "stretched", stretched(base), base, None)
        yield inv("spelling", "uppercase", base.upper(), base, None)
        yield inv("spelling", "lowercase, no full stop", base.lower().removesuffix("."), base)
        yield inv("spelling", "handles in front", f"@river_44 @tom {base}", base)
        yield inv("spelling", "a link at the end", f"{base} https://example.com/a1?b=2", base)
        yield inv("spelling", "wide spaces", base.replace(" ", "  "), base)
        yield inv("spelling", "HTML entities", html.escape(base.replace(",", " &"), quote=True), base.replace(",", " &"))


def typo(text: str, change) -> str:
    """Changes one word of at least five letters, inside it; which, the text decides."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word.strip(",.")) >= 5] or [max(range(len(words)), key=lambda i: len(words[i]))]
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    chosen = long[number % len(long)]
    inside = max(len(words[chosen].strip(",.")) - 3, 1)
    words[chosen] = change(words[chosen], 1 + number // len(long) % inside)
    return " ".join(words)


def swap(word: str, at: int) -> str:
    return word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]


def lose(word: str, at: int) -> str:
    return word[:at] + word[at + 1 :]


def double(word: str, at: int) -> str:
    return word[:at] + word[at] + word[at:]


def stretched(text: str) -> str:
    """The last vowel of the longest word, five times."""
    words = text.split(" ")
    chosen = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[chosen]
    at = max((word.rfind(vowel) for vowel in "aeiou"), default=-1)
    words[chosen] = word if at < 0 else word[:at] + word[at] * 5 + word[at + 1 :]
    return " ".join(words)
