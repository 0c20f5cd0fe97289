//! Portuguese.

use super::Phrases;

pub(super) const PHRASES: Phrases = Phrases {
    lang: "pt",
    openings: &[
        "sinceramente,",
        "gente,",
        "então,",
        "kkkk,",
        "olha,",
        "falando sério,",
        "bom dia,",
        "só digo uma coisa:",
    ],
    opinions: [
        &[
            "odeio {s}",
            "{s} é um desastre",
            "{s} estragou o meu dia",
            "nunca mais, que horror {s}",
            "{s} é uma vergonha",
        ],
        &["{s} me decepcionou", "esperava mais: {s}", "{s} podia ser bem melhor", "que preguiça, {s} outra vez"],
        &["alguém viu {s} hoje?", "hoje o assunto é {s}", "li alguma coisa sobre {s}", "de novo {s}"],
        &["gosto muito: {s}", "{s} me fez sorrir", "{s} vale a pena", "recomendo {s}"],
        &["adoro {s}", "{s} é uma maravilha", "que alegria, {s}", "{s} salvou a minha semana", "{s} é tudo de bom"],
    ],
    closings: &["e vocês?", "depois eu conto", "é isso", "boa noite", "até amanhã", "pronto, falei"],
    space: " ",
};
