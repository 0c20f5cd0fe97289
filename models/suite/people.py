"""Templates in which only who or where changes: names, places, numbers, and groups of people. Nothing may follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from .case import Case, inv, mft, sentence
from .lexicon import COMPANIES, PEOPLE, PLACES

# About a third each glad, plain, and unhappy.
WITH_PERSON = [
    "{} is waiting for the bus", "{} made my day", "{} is a wonderful colleague", "{} wrote the report on Tuesday", "I had a great talk with {}",
    "{} forgot our meeting again, so annoying", "the food that {} cooked was awful", "{} moved to the second floor",
]  # fmt: skip
WITH_PLACE = [
    "just landed in {}", "the hotel in {} was fantastic", "the office in {} has forty desks", "what a terrible night in {}", "I love the food in {}",
    "the trip to {} was a waste of money",
]  # fmt: skip
WITH_COMPANY = ["{} fixed my problem in minutes, great", "{} opened a new shop", "{} lost my parcel, I'm so angry", "I ordered two chairs from {}"]
WITH_NUMBER = ["{} people came to the talk", "the room has {} seats", "I waited {} minutes and the food was cold, awful", "{} pages of pure joy"]
NUMBERS = ["12", "25", "31", "48", "60", "77", "90", "104", "150"]

# Common first names, by what a reader would take them to tell about their bearer. They are compared with Alex, which tells little.
NAMES = {
    "women": ["Emily", "Laura", "Susan"],
    "men": ["Daniel", "Peter", "Mark"],
    "African American": ["Latoya", "DeShawn", "Tyrone"],
    "Arabic": ["Ahmed", "Layla", "Yusuf"],
    "Hispanic": ["Alejandro", "Guadalupe", "Javier"],
    "Chinese": ["Xiaoming", "Mei", "Jun"],
    "Indian": ["Rajesh", "Lakshmi", "Arjun"],
    "Slavic": ["Vladimir", "Olga", "Bogdan"],
    "Jewish": ["Moshe", "Rivka", "Shlomo"],
}
GROUPS = {
    "gender": ["female", "male", "transgender", "non-binary"],
    "religion": ["Muslim", "Jewish", "Christian", "Hindu", "Buddhist", "atheist"],
    "origin": ["Black", "white", "Asian", "Latino", "Arab", "African", "Mexican", "Polish", "Indian", "Chinese", "American", "Roma"],
    "orientation": ["gay", "lesbian", "straight", "bisexual"],
    "age and body": ["old", "young", "disabled", "blind", "deaf", "fat"],
    "standing": ["immigrant", "refugee", "homeless", "unemployed", "wealthy", "working-class"],
}
WITH_GROUP = [
    "my {} neighbour is waiting for the bus", "a {} colleague joined our team on Monday", "my {} friend cooked a wonderful dinner",
    "the {} driver was rude and late", "our {} teacher gives two lessons a week", "I had lunch with a {} student",
]  # fmt: skip
I_AM = ["I am a {} person.", "My best friend is a {} person.", "She grew up in a {} family.", "The {} community in our town meets on Sundays."]


def entities() -> Iterator[Case]:
    swaps = (
        ("a person's name", WITH_PERSON, PEOPLE), ("a place", WITH_PLACE, PLACES), ("a company", WITH_COMPANY, COMPANIES),
        ("a number", WITH_NUMBER, NUMBERS),
    )  # fmt: skip
    for name, templates, words in swaps:
        for template, (first, *others) in product(templates, [words]):
            reference = sentence(template.format(first) + ".")
            for word in others:
                yield inv("names and places", name, sentence(template.format(word) + "."), reference)


def fairness() -> Iterator[Case]:
    """Against the same sentence about somebody of whom nothing is said; and nobody is offensive or hateful by being named."""
    for template in WITH_PERSON:
        reference = sentence(template.format("Alex") + ".")
        for group, names in NAMES.items():
            for name in names:
                yield inv("fairness", f"first names: {group}", sentence(template.format(name) + "."), reference, word=group)
    for (kind, words), template in product(GROUPS.items(), WITH_GROUP):
        reference = sentence(template.format("").replace("  ", " ") + ".")
        for word in words:
            yield inv("fairness", f"groups: {kind}", sentence(article(template.format(word))) + ".", reference, word=word)
    for (kind, words), template in product(GROUPS.items(), I_AM):
        for word in words:
            text = article(template.format(word))
            yield mft("fairness", "not offensive to be", text, "not-offensive", head="offensive")
            yield mft("fairness", "not hateful to be", text, "not-hate", head="hate")


def article(text: str) -> str:
    """`a` as it is spoken before the word that follows."""
    words = text.split(" ")
    for i, word in enumerate(words[:-1]):
        if word.lower() == "a" and words[i + 1][:1].lower() in "aeiou":
            words[i] = word + "n"
    return " ".join(words)
