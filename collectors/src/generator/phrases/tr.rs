//! Turkish. The subject stands bare, without case endings.

use super::Phrases;

pub(super) const PHRASES: Phrases = Phrases {
    lang: "tr",
    openings: &["açıkçası,", "valla,", "arkadaşlar,", "bugün", "bence", "şaka değil,"],
    opinions: [
        &["{s} tam bir felaket", "{s} günümü mahvetti", "{s} berbat, bir daha asla", "{s} rezalet ötesi"],
        &[
            "{s} beni hayal kırıklığına uğrattı",
            "{s} daha iyi olabilirdi",
            "{s} canımı sıktı",
            "{s} beklediğim gibi değil",
        ],
        &["{s} hakkında bilgisi olan var mı?", "konumuz {s}", "{s} hakkında bir yazı okudum", "yine {s}"],
        &["{s} fena değil, güzel", "{s} yüzümü güldürdü", "{s} beklediğimden iyi", "{s} denemeye değer"],
        &["{s} harika", "{s} beni çok mutlu etti", "{s} mükemmel olmuş", "{s} dünyanın en güzel şeyi"],
    ],
    closings: &["siz ne dersiniz?", "devamı sonra", "bu kadar", "iyi geceler", "yarın görüşürüz"],
    space: " ",
};
