//! German. The subject stands in the nominative throughout.

use super::Phrases;

pub(super) const PHRASES: Phrases = Phrases {
    lang: "de",
    openings: &[
        "ehrlich gesagt:",
        "also,",
        "mal unter uns:",
        "na ja,",
        "kurzes Update:",
        "boah,",
        "Moin,",
        "ganz ehrlich,",
    ],
    opinions: [
        &[
            "{s} ist eine einzige Katastrophe",
            "{s} macht mich so wütend",
            "{s} hat mir den Tag verdorben",
            "{s} ist wirklich furchtbar",
            "nie wieder, {s} war der Horror",
        ],
        &[
            "{s} ist leider enttäuschend",
            "{s} könnte viel besser sein",
            "{s} nervt mich heute",
            "{s} war es leider nicht wert",
        ],
        &["{s} ist heute mein Thema", "wo ist eigentlich {s}?", "{s} steht heute in der Zeitung", "was ist denn {s}?"],
        &["{s} gefällt mir", "{s} ist ganz nett", "{s} war besser als gedacht", "{s} ist einen Versuch wert"],
        &[
            "{s} ist einfach großartig",
            "{s} macht mich so glücklich",
            "{s} ist das Beste überhaupt",
            "{s} hat mir die Woche gerettet",
            "{s} ist ein Traum",
        ],
    ],
    closings: &["und ihr so?", "mehr dazu später", "so ist das", "schönen Abend noch", "bis morgen", "meine Meinung"],
    space: " ",
};
