//! What the posts are about: everyday subjects and inventions of our own. No real brand, club, title or person.

use super::phrases::LANGUAGES;

/// A subject of conversation.
pub(super) struct Topic {
    /// The hashtag, in CamelCase, without the #.
    pub(super) tag: &'static str,
    /// The mood on an ordinary day, in [-1, 1].
    pub(super) usual: f64,
    /// How much is said about it on an ordinary day, relative to the others.
    pub(super) popularity: f64,
    /// English noun phrases, singular, so that any opinion fits any of them.
    pub(super) subjects: &'static [&'static str],
    /// Whole sentences for when something good happens.
    pub(super) good_news: &'static [&'static str],
    /// Whole sentences for when something bad happens.
    pub(super) bad_news: &'static [&'static str],
    /// A singular noun phrase in each of the other languages, in the order of [`LANGUAGES`].
    pub(super) abroad: [&'static str; LANGUAGES.len() - 1],
}

/// The dozen topics.
pub(super) const TOPICS: [Topic; 12] = [
    Topic {
        tag: "Espresso",
        usual: 0.35,
        popularity: 1.4,
        subjects: &[
            "the espresso on the corner",
            "my morning espresso",
            "the new roast",
            "the office coffee machine",
            "a double shot",
        ],
        good_news: &[
            "free shots at the roastery all morning!",
            "the old machine is back and better than ever",
            "they finally hired a barista who cares",
        ],
        bad_news: &[
            "the machine broke again and the queue is out of the door",
            "they raised the price again",
            "the whole batch tastes burnt",
        ],
        abroad: ["el espresso", "der Espresso", "l'espresso", "o espresso", "エスプレッソ", "bu espresso"],
    },
    Topic {
        tag: "NightTrains",
        usual: 0.15,
        popularity: 1.0,
        subjects: &[
            "the night train to Velmar",
            "my sleeper cabin",
            "the dining car",
            "the new timetable",
            "the overnight line",
        ],
        good_news: &[
            "the new sleeper line opens tonight!",
            "we arrived ten minutes early",
            "tickets are half price this week",
        ],
        bad_news: &[
            "stuck in the dark for three hours, no announcement",
            "they cancelled it ten minutes before departure",
            "the heating is dead in every carriage",
        ],
        abroad: ["el tren nocturno", "der Nachtzug", "le train de nuit", "o trem noturno", "夜行列車", "gece treni"],
    },
    Topic {
        tag: "Kestiva9",
        usual: -0.05,
        popularity: 1.6,
        subjects: &[
            "the Kestiva 9",
            "my new Kestiva",
            "the Kestiva camera",
            "the latest Kestiva update",
            "the battery of the Kestiva 9",
        ],
        good_news: &[
            "the new update doubles the battery life!",
            "they replace every cracked screen for free",
            "the camera update just landed and wow",
        ],
        bad_news: &[
            "the update bricked my phone",
            "the whole network is down, no calls, nothing",
            "it gets so hot I can't hold it",
        ],
        abroad: ["el Kestiva 9", "das Kestiva 9", "le Kestiva 9", "o Kestiva 9", "Kestiva 9", "Kestiva 9"],
    },
    Topic {
        tag: "CityCycling",
        usual: 0.1,
        popularity: 1.0,
        subjects: &[
            "the new bike lane",
            "cycling to work",
            "the bridge crossing",
            "the ride along the harbour",
            "the cycle path by the river",
        ],
        good_news: &[
            "the harbour lane is open at last!",
            "no cars downtown today, pure bliss",
            "the council voted for forty new cycle streets",
        ],
        bad_news: &[
            "another truck parked across the lane",
            "they dug up the whole path without a detour",
            "nearly got hit twice this morning",
        ],
        abroad: ["el carril bici", "der neue Radweg", "la piste cyclable", "a ciclovia", "自転車通勤", "bisiklet yolu"],
    },
    Topic {
        tag: "Marrowgate",
        usual: 0.05,
        popularity: 1.8,
        subjects: &["FC Marrowgate", "this Marrowgate side", "our defence", "the new Marrowgate coach", "the away end"],
        good_news: &[
            "GOAL!!! what a strike!",
            "three points and top of the table!",
            "last-minute winner, I have no voice left",
        ],
        bad_news: &[
            "own goal. of course",
            "four down at half-time, I'm going home",
            "the keeper let that one through his legs",
        ],
        abroad: ["el Marrowgate", "Marrowgate", "Marrowgate", "o Marrowgate", "マローゲート", "Marrowgate"],
    },
    Topic {
        tag: "RainyWeekend",
        usual: -0.1,
        popularity: 0.8,
        subjects: &[
            "this rainy weekend",
            "the rain",
            "a Saturday indoors",
            "the weather forecast",
            "Sunday in this drizzle",
        ],
        good_news: &[
            "the sun is out, everybody outside!",
            "double rainbow over the harbour!",
            "perfect excuse for soup and a blanket",
        ],
        bad_news: &[
            "the cellar is flooded again",
            "the street festival is cancelled",
            "soaked to the bone, twice in one day",
        ],
        abroad: [
            "este fin de semana de lluvia",
            "das Regenwochenende",
            "ce week-end pluvieux",
            "o fim de semana de chuva",
            "雨の週末",
            "yağmurlu hafta sonu",
        ],
    },
    Topic {
        tag: "SmallMachines",
        usual: 0.4,
        popularity: 0.7,
        subjects: &[
            "the Museum of Small Machines",
            "the clockwork hall",
            "the new exhibition",
            "the guided tour",
            "the museum café",
        ],
        good_news: &[
            "free entry all day, and they let you wind the clocks!",
            "the clockwork hall opened and it is stunning",
            "the night at the museum was magical",
        ],
        bad_news: &[
            "queued two hours and then they closed the doors",
            "half of the exhibits are out of order",
            "they lost my booking and shrugged",
        ],
        abroad: ["el museo nuevo", "das neue Museum", "le nouveau musée", "o museu novo", "新しい博物館", "yeni müze"],
    },
    Topic {
        tag: "Sourdough",
        usual: 0.25,
        popularity: 0.8,
        subjects: &["my sourdough", "the starter", "this loaf", "the bakery's rye", "today's crust"],
        good_news: &[
            "best rise ever, look at that crumb!",
            "the bakery gave me some of their starter!",
            "first loaf that did not end as a brick!",
        ],
        bad_news: &["my starter died", "flat as a tile again", "burnt outside, raw inside"],
        abroad: [
            "el pan de masa madre",
            "das Sauerteigbrot",
            "le pain au levain",
            "o pão de fermentação natural",
            "サワードウのパン",
            "ekşi mayalı ekmek",
        ],
    },
    Topic {
        tag: "SaltAndLanterns",
        usual: 0.2,
        popularity: 1.3,
        subjects: &[
            "Salt and Lanterns",
            "the new episode",
            "the season finale",
            "the lighthouse scene",
            "that soundtrack",
        ],
        good_news: &[
            "they renewed it for another season!",
            "that twist!!! I screamed",
            "the finale was worth every minute",
        ],
        bad_news: &[
            "they cancelled it on a cliffhanger",
            "the stream froze right before the ending",
            "who wrote this ending, seriously",
        ],
        abroad: [
            "el último capítulo",
            "die neue Folge",
            "le dernier épisode",
            "o último episódio",
            "最新話",
            "yeni bölüm",
        ],
    },
    Topic {
        tag: "Scooters",
        usual: -0.25,
        popularity: 0.9,
        subjects: &[
            "the electric scooter",
            "the scooter app",
            "the scooter parking",
            "this rental scooter",
            "the scooter company",
        ],
        good_news: &[
            "free rides all afternoon!",
            "they finally built proper parking for them",
            "the new ones have real brakes, hooray",
        ],
        bad_news: &[
            "the app charged me four times",
            "the brakes failed on the hill",
            "six of them dumped across the pavement again",
        ],
        abroad: [
            "el patinete eléctrico",
            "der E-Scooter",
            "la trottinette électrique",
            "o patinete elétrico",
            "電動キックボード",
            "elektrikli scooter",
        ],
    },
    Topic {
        tag: "Houseplants",
        usual: 0.45,
        popularity: 0.7,
        subjects: &["my monstera", "the little fern", "the plant shelf", "this cactus", "the new pot"],
        good_news: &["it flowered overnight!", "a new leaf after six months!", "the plant swap was a dream"],
        bad_news: &["spider mites. everywhere", "came home to a brown, crispy fern", "the cat ate the last leaf"],
        abroad: ["mi planta", "meine Monstera", "ma plante", "a minha planta", "観葉植物", "ev bitkim"],
    },
    Topic {
        tag: "Moonferry",
        usual: 0.1,
        popularity: 1.2,
        subjects: &[
            "Moonferry",
            "the new Moonferry patch",
            "the boss on level nine",
            "the co-op mode",
            "the Moonferry map",
        ],
        good_news: &["the servers are flying tonight!", "free expansion out now!", "we beat the boss at last!!"],
        bad_news: &["servers down since noon", "the patch deleted my save", "lagging so badly it is unplayable"],
        abroad: [
            "el juego Moonferry",
            "das Spiel Moonferry",
            "le jeu Moonferry",
            "o jogo Moonferry",
            "ムーンフェリー",
            "Moonferry oyunu",
        ],
    },
];
