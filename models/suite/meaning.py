"""Templates for what words do to each other: vocabulary, negation, intensity, time, comparison, contrast, and saying nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from .case import MOVE, SLACK, Case, down, mft, sentence, up
from .lexicon import (
    BAD, COMPANIES, DIMINISHERS, FACTS, GOOD, HATE, INTENSIFIERS, LIKE, NEGATIVE, NEUTRAL, PEOPLE, PLACES, PLAINLY_BAD, PLAINLY_GOOD,
    POSITIVE, QUESTIONS, REPORTS, THINGS, TIMES,
)  # fmt: skip

NOT_NEGATIVE = (NEUTRAL, POSITIVE)
NOT_POSITIVE = (NEGATIVE, NEUTRAL)
# A negation takes a word to the other side, more than a change of tone.
FLIP = 3 * MOVE


def vocabulary() -> Iterator[Case]:
    for thing in THINGS:
        for words, verbs, label in ((GOOD, LIKE, POSITIVE), (BAD, HATE, NEGATIVE)):
            for word in words:
                yield mft("vocabulary", "adjective", sentence(f"{thing} is {word}."), label)
            for verb in verbs:
                yield mft("vocabulary", "verb", f"I {verb} {thing}.", label)
    slang = {
        POSITIVE: ["this track slaps", "that goal was insane, what a player", "she killed it on stage tonight", "this game is sick", "ngl that was fire"],
        NEGATIVE: ["this update sucks", "what a letdown", "the new logo is trash", "that was a total trainwreck", "smh, what a joke of a service"],
    }
    for label, texts in slang.items():
        for text in texts:
            yield mft("vocabulary", "slang", text, label)


def negation() -> Iterator[Case]:
    for thing in THINGS:
        for word in PLAINLY_GOOD:
            plain = sentence(f"{thing} is {word}.")
            for text in (f"{thing} is not {word}.", f"{thing} isn't {word} at all.", f"{thing} was never {word}."):
                yield mft("negation", "not good", sentence(text), NEGATIVE)
                yield down("negation", "falls against the plain sentence", sentence(text), plain, FLIP)
            yield mft("negation", "nothing is good", f"Nothing about {thing} is {word}.", NEGATIVE)
            yield mft("negation", "belief: I don't think it is good", f"I don't think {thing} is {word}.", NEGATIVE)
            yield mft("negation", "belief: I wouldn't say it is good", f"I wouldn't say {thing} is {word}.", *NOT_POSITIVE)
            yield mft("negation", "belief: a question takes no side", f"Do you think {thing} is {word}?", NEUTRAL)
            yield mft("negation", "scope: expected, and is not", f"I thought {thing} would be {word}, but it isn't.", NEGATIVE)
            yield mft("negation", "scope: not expected, and is", f"I didn't expect {thing} to be {word}, but it is.", POSITIVE)
            yield mft("negation", "scope: nobody told me", f"Nobody told me that {thing} is so {word}!", POSITIVE)
            yield mft("negation", "scope: the negation is of something else", f"No queue, no trouble, and {thing} is {word}.", POSITIVE)
            yield mft("negation", "scope: not only", f"Not only is {thing} cheap, it is also {word}.", POSITIVE)
            yield mft("negation", "double", f"Nobody can say that {thing} isn't {word}.", *NOT_NEGATIVE)
            yield mft("negation", "double", f"You can't tell me {thing} isn't {word}.", *NOT_NEGATIVE)
        for word in PLAINLY_BAD:
            plain = sentence(f"{thing} is {word}.")
            for text in (f"{thing} is not {word}.", f"{thing} isn't {word} at all."):
                yield mft("negation", "not bad", sentence(text), *NOT_NEGATIVE)
                yield up("negation", "rises against the plain sentence", sentence(text), plain, FLIP)
            yield mft("negation", "belief: I don't think it is bad", f"I don't think {thing} is {word}.", *NOT_NEGATIVE)
            yield mft("negation", "belief: others say so, and I disagree", f"People say {thing} is {word}. I don't agree.", *NOT_NEGATIVE)
        for verb in ("like", "enjoy", "love", "recommend"):
            yield mft("negation", "I don't like it", f"I don't {verb} {thing}.", NEGATIVE)
            yield mft("negation", "double", f"There is no way not to {verb} {thing}.", *NOT_NEGATIVE)
        for verb in ("hate", "mind", "regret trying", "dislike"):
            yield mft("negation", "I don't hate it", f"I don't {verb} {thing}.", *NOT_NEGATIVE)


def intensity() -> Iterator[Case]:
    for thing, (word, stronger, weaker) in product(THINGS, [(w, up, down) for w in GOOD[:6]] + [(w, down, up) for w in BAD[:6]]):
        plain = sentence(f"{thing} is {word}.")
        for much in INTENSIFIERS:
            yield stronger("intensity", "an intensifier does not weaken", sentence(f"{thing} is {much} {word}."), plain, SLACK)
        for little in DIMINISHERS:
            yield weaker("intensity", "a diminisher does not strengthen", sentence(f"{thing} is {little} {word}."), plain, SLACK)
        yield stronger("intensity", "exclamation marks do not weaken", plain.removesuffix(".") + "!!!", plain, SLACK)


def time() -> Iterator[Case]:
    for thing in THINGS:
        for good, bad in product(GOOD[:5], BAD[:5]):
            yield mft("time", "was bad, is good", sentence(f"{thing} was {bad} last year, now it is {good}."), POSITIVE)
            yield mft("time", "was good, is bad", sentence(f"{thing} was {good} last year, now it is {bad}."), NEGATIVE)
        for good in GOOD:
            yield mft("time", "used to be good", sentence(f"{thing} used to be {good}."), *NOT_POSITIVE)
            yield mft("time", "no longer good", sentence(f"{thing} is no longer {good}."), NEGATIVE)
        for bad in BAD:
            yield mft("time", "no longer bad", sentence(f"{thing} is no longer {bad}."), *NOT_NEGATIVE)
        for like in LIKE:
            yield mft("time", "used to like", f"I used to {like} {thing}.", *NOT_POSITIVE)
            yield mft("time", "no longer like", f"I no longer {like} {thing}.", NEGATIVE)
            yield mft("time", "used to like, now hates", f"I used to {like} {thing}, now I avoid it.", NEGATIVE)
            yield mft("time", "used to hate, now likes", f"I used to avoid {thing}, now I {like} it.", POSITIVE)


def comparison() -> Iterator[Case]:
    for full in THINGS:
        thing = full.removeprefix("the ").removeprefix("this ").removeprefix("new ")
        for better, worse in (("better", "worse"), ("so much better", "so much worse"), ("nicer", "uglier"), ("more reliable", "less reliable")):
            yield mft("comparison", "new over old", f"The new {thing} is {better} than the old one.", POSITIVE)
            yield mft("comparison", "old over new", f"The old {thing} was {better} than the new one.", NEGATIVE)
            yield mft("comparison", "new under old", f"The new {thing} is {worse} than the old one.", NEGATIVE)
            yield mft("comparison", "old under new", f"The old {thing} was {worse} than the new one.", POSITIVE)
        yield mft("comparison", "none better", f"I have never seen a better {thing}.", POSITIVE)
        yield mft("comparison", "none worse", f"I have never seen a worse {thing}.", NEGATIVE)
        yield mft("comparison", "seen better", f"I have seen a better {thing} than this.", *NOT_POSITIVE)
        yield mft("comparison", "could not be better", f"The {thing} could not be better.", POSITIVE)
        yield mft("comparison", "could not be worse", f"The {thing} could not be worse.", NEGATIVE)
        yield mft("comparison", "could have been worse", f"The {thing} could have been worse.", *NOT_NEGATIVE)
        yield mft("comparison", "could have been better", f"The {thing} could have been better.", *NOT_POSITIVE)


def contrast() -> Iterator[Case]:
    for thing, good, bad in product(THINGS, GOOD[:6], BAD[:6]):
        yield mft("contrast", "looks good, but is bad", sentence(f"{thing} looks {good}, but it is {bad}."), NEGATIVE)
        yield mft("contrast", "looks bad, but is good", sentence(f"{thing} looks {bad}, but it is {good}."), POSITIVE)
        yield mft("contrast", "everybody but me", f"Everyone says {thing} is {good}, but I find it {bad}.", NEGATIVE)
        yield mft("contrast", "despite", f"Despite the {bad} weather, {thing} was {good}.", POSITIVE)
        yield down(
            "contrast", "what follows but weighs more",
            f"The start was {good}, but the end was {bad}. That was {thing}.",
            f"The start was {bad}, but the end was {good}. That was {thing}.",
        )  # fmt: skip
    for thing, like in product(THINGS, LIKE):
        yield mft("contrast", "not perfect, but I like it", sentence(f"{thing} isn't perfect, but I {like} it."), POSITIVE)
        yield mft("contrast", "I wanted to like it", f"I wanted to {like} {thing}, but I couldn't.", NEGATIVE)


def neutral() -> Iterator[Case]:
    for name, templates in (("facts", FACTS), ("sad and happy matters", REPORTS), ("questions", QUESTIONS)):
        for template, place, person, company, time_ in product(templates, PLACES[:6], PEOPLE[:4], COMPANIES[:3], TIMES[:5]):
            text = template.format(place=place, person=person, company=company, time=time_)
            yield mft("neutral", name, text, NEUTRAL)
