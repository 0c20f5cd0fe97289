//! French.

use super::Phrases;

pub(super) const PHRASES: Phrases = Phrases {
    lang: "fr",
    openings: &["franchement,", "bon,", "mdr,", "alors,", "petite mise à jour :", "je vous jure,", "bref,", "sérieux,"],
    opinions: [
        &[
            "je déteste {s}",
            "{s}, quelle catastrophe",
            "{s} m'a gâché la journée",
            "{s}, c'est une honte",
            "plus jamais ça : {s}",
        ],
        &["{s}, c'est décevant", "{s}, bof, rien de bon", "je m'attendais à mieux : {s}", "{s} m'énerve aujourd'hui"],
        &["quelqu'un connaît {s} ?", "{s}, on en parle ?", "encore {s} aujourd'hui", "j'ai lu un article sur {s}"],
        &["j'aime bien {s}", "{s}, c'est plutôt sympa", "{s} m'a fait sourire", "je recommande {s}"],
        &[
            "j'adore {s}",
            "{s}, c'est génial",
            "{s}, quelle merveille",
            "{s} a sauvé ma semaine",
            "trop contente, {s}, c'est le bonheur",
        ],
    ],
    closings: &["et vous ?", "à suivre", "voilà", "bonne soirée", "je vous raconterai", "à demain"],
    space: " ",
};
