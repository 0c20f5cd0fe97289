//! Spanish.

use super::Phrases;

pub(super) const PHRASES: Phrases = Phrases {
    lang: "es",
    openings: &["la verdad,", "a ver,", "pues nada,", "jajaja,", "en serio,", "hoy toca opinar:", "buenas,", "ojo:"],
    opinions: [
        &[
            "odio esto: {s}",
            "qué desastre con {s}",
            "{s} me ha arruinado el día",
            "nunca más, qué horror {s}",
            "{s} es lo peor",
        ],
        &[
            "{s} me decepciona",
            "esperaba más, la verdad: {s}",
            "{s} podría ser mucho mejor",
            "qué pesadilla de tarde con {s}",
        ],
        &["¿alguien sabe algo sobre {s}?", "hoy toca hablar de esto: {s}", "he leído algo sobre {s}", "otra vez {s}"],
        &["me gusta {s}", "{s} está muy bien", "{s} me ha hecho sonreír", "recomiendo {s}"],
        &[
            "me encanta {s}",
            "{s} es una maravilla",
            "{s} es lo mejor del mundo",
            "qué alegría, {s}",
            "{s} me ha alegrado la semana",
        ],
    ],
    closings: &["¿y vosotros?", "ya os contaré", "y punto", "nos vemos", "un saludo", "menudo día"],
    space: " ",
};
