"""The words that the templates are filled with. Ours; chosen plain, so that a failure is the grammar's and not the word's."""

from __future__ import annotations

POSITIVE, NEUTRAL, NEGATIVE = "positive", "neutral", "negative"

# All singular, all with their article.
THINGS = [
    "the coffee", "the app", "the hotel", "the concert", "the pizza", "the museum", "the new office", "the night train", "the update",
    "the battery", "the keyboard", "the delivery service", "this album", "this restaurant", "the support team", "the bike path",
    "the library", "the camera", "the airline", "the lecture",
]  # fmt: skip

GOOD = ["good", "great", "excellent", "wonderful", "fantastic", "amazing", "brilliant", "lovely", "superb", "impressive"]
BAD = ["bad", "awful", "terrible", "horrible", "dreadful", "disappointing", "annoying", "lousy", "useless", "pathetic"]
# Whose negation says the opposite, and not only that it could be better.
PLAINLY_GOOD = ["good", "nice", "helpful", "reliable", "pleasant", "worth the money", "worth the wait"]
PLAINLY_BAD = ["bad", "terrible", "awful", "a waste of time", "a disappointment"]

LIKE = ["love", "like", "enjoy", "adore", "appreciate"]
HATE = ["hate", "dislike", "despise", "detest", "can't stand"]

INTENSIFIERS = ["very", "really", "so", "extremely", "incredibly", "truly"]
DIMINISHERS = ["somewhat", "slightly", "kind of", "a bit", "fairly", "more or less"]

GOOD_EMOJI = ["😍", "😊", "🥰", "🎉", "❤️", "👍", "😁", "🤩", "💖", "😃"]
BAD_EMOJI = ["😡", "😠", "😞", "💔", "👎", "🤮", "😤", "😢", "😩", "🤬"]
# Pictures of things.
PLAIN_EMOJI = ["📦", "🚆", "📅", "🗺️", "🚲", "📎", "🏢", "🚪"]

PLACES = ["Lisbon", "Nairobi", "Osaka", "Leeds", "Montreal", "Lima", "Hanoi", "Cairo", "Ohio", "Kraków", "Lagos", "Denver"]
PEOPLE = ["Anna", "Mehmet", "Priya", "Carlos", "Wei", "Fatima", "Oluwaseun", "Ingrid", "Dmitri", "Keisha", "Liam", "Yuki"]
COMPANIES = ["Norvik", "Bluefern", "Tallow & Finch", "Orrin Air", "Kestrel Bank", "Pivotal Foods", "Marlow Rail", "Zentia"]
TIMES = ["at six", "at 10:30", "on Monday", "next Thursday", "in March", "on 4 June", "tomorrow at noon", "in an hour"]

# What nobody wants.
MISHAPS = [
    "my flight is delayed again", "the train broke down in the middle of nowhere", "the app deleted all my photos", "I lost my keys and my wallet",
    "they charged me twice", "the wifi died during my exam", "it rained all through the picnic", "my order arrived in pieces",
    "I have been on hold for an hour", "the power went out while I was cooking", "the bus drove past without stopping", "my laptop crashed before I could save",
]  # fmt: skip
TREATS = [
    "my flight was on time", "the train was empty and quiet", "the app saved me two hours", "I found my keys and my wallet",
    "they refunded me at once", "the wifi was fast all day", "the sun came out for the picnic", "my order arrived a day early",
    "they answered at the first ring", "the dinner turned out just right", "the bus waited for me", "my laptop got repaired for free",
]  # fmt: skip

# Said by nobody in praise or in blame.
EVENTS = [
    "I am at the station", "the parcel is here", "we are watching the game", "my sister called", "the meeting is over", "I just left the office",
    "the results are out", "they changed the timetable", "I am having lunch with my team", "we got the new phone", "class starts at nine",
    "the shop on the corner has a new owner",
]  # fmt: skip
FACTS = [
    "The {place} museum opens {time}.", "The train to {place} leaves {time}.", "The conference in {place} starts {time}.",
    "{person} lives in {place}.", "{person} works for {company}.", "{company} has an office in {place}.", "The form is due {time}.",
    "The bus to {place} stops here.", "{person} will give a talk in {place} {time}.", "{company} publishes its figures {time}.",
    "The population of {place} is counted every ten years.", "The bridge in {place} was built in 1932.", "{person} is the new head of sales at {company}.",
    "The file has 12 pages.", "The package contains a charger and two cables.", "The event will be held in {place} {time}.",
]  # fmt: skip
# Sad and happy matters, told without taking sides.
REPORTS = [
    "The film is about a war that killed thousands.", "The book tells the story of a murder in {place}.", "The article explains how cancer cells grow.",
    "The museum in {place} shows the history of slavery.", "The lecture is about love in medieval poetry.", "The song is called Happy Days.",
    "The court in {place} hears the fraud case {time}.", "The insurance covers theft and fire.", "The study asks what makes people happy.",
    "The label says that it kills weeds.", "The documentary deals with the earthquake of 1906.", "The prize is awarded in {place} {time}.",
]  # fmt: skip
QUESTIONS = [
    "What time does the {place} museum open?", "Does anyone know when the train to {place} leaves?", "Is {person} coming to the meeting {time}?",
    "Which bus goes to {place}?", "Has {company} published its figures yet?", "Where can I hand in the form?", "Who is speaking in {place} {time}?",
    "Is there a pharmacy open in {place}?",
]  # fmt: skip
