#!/usr/bin/env python3
"""Writes social-1.jsonl: hard texts of our own, and what the normaliser `social-1` makes of them.

    make_social_1.py UNDERTONE    (the binary; run it once for a new case, read what changed, commit)

A case whose output changes is a new normaliser with a new name, unless no model was trained with this one yet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

TARGET = Path(__file__).with_name("social-1.jsonl")
ZWJ, VS16, KEYCAP = "\u200d", "\ufe0f", "\ufe0f\u20e3"

HANDLES = [
    "@ana", "@Ana_99 hello", "hello @ana", "hi @ana, @bob and @cleo!", "@a @b @c @d thread", "@a,@b,@c,@d thread",
    "@a @b @c ok @d @e @f", "@ana's cake", ".@ana look", "(@ana)", '"@ana" said so', "@@ana", "@ ana", "@", "@!",
    "@_under_", "@123", "@ana@bob", "@ana@social.example", "@ana@social.example.", "@ana@social.example/post", "@ana.",
    "@ana...", "@ana:)", "@ana :)", "mail me: ana@post.example", "ana@post", "a@b@c", "@ana-lena", "@ana/@bob",
    "\u2066@ana\u2069 thanks", "RT @ana: it rains", "RT @ana @bob @cleo: it rains", "via @ana!!!!!", "@user @user @user x",
    "@ANA", "@ñandú", "@日本 です", "#@ana", "@#ana", "e@ana", "9@ana", "é@ana", "、@ana", "@ana\n@bob\n@cleo\nend",
]
LINKS = [
    "https://a.example", "see https://a.example/b?c=d&e=f#g now", "http://a.example.", "(https://a.example/x)", "<https://a.example>",
    '"https://a.example"', "HTTPS://A.EXAMPLE/B", "HtTp://a.example", "https://", "https:// a", "https:///", "http://!", "hhttps://a.example",
    "xhttps://a.example", "https://a.example!!!", "https://a.example, and more", "https://a.examplehttps://b.example", "www.a.example",
    "www.", "www..", "wwww.a.example", "awww.a.example", "a.www.example", "t.co/abc", "at.co/abc", "t.co/", "pic.twitter.com/abc",
    "pic.x.com/abc)", "lookpic.twitter.com/abc", "t.co/abc\u2026", "https://t.co/ab\u2026", "https://a.example/😂", "https://a.example/\u200bb",
    "https://a.example/@ana#tag", "https://a.example/(x)", "https://a.example/x_", "https://a.example/'", "httttps://a.example", "htp://a.example",
    "ftp://a.example", "mailto:ana@post.example", "a.example/b", "https&#58;//a.example", "https:&#x2f;/a.example", "https://a.example&nbsp;next",
    "https://a.example\u3000next", "https://a.example|b", "pic.twittter.com/x", "https://[::1]/x", "link:https://a.example", "https://a.example/日本",
    "wWw.a.example", "http http http", "t.co/a t.co/b",
]
ENTITIES = [
    "Tom &amp; Ina", "Tom &amp;amp; Ina", "Tom &amp;amp;amp;amp; Ina", "&lt;3", "&amp;lt;3", "&lt;/3", "&gt;:(", "it&#39;s", "it&#x27;s", "it&#X27;s",
    "it&amp;#39;s", "it&rsquo;s", "&ldquo;yes&rdquo;", "wait&hellip;", "wait&hellip;&hellip;", "5 &lt; 6 &gt; 4", "a&nbsp;b", "a&ensp;b&thinsp;c",
    "a&shy;b", "&copy; us", "&hearts;", "&hearts;&hearts;&hearts;", "caf&eacute;", "&Uuml;ber", "&AMP;", "&Amp;", "&amp", "&amp x", "&;", "&#;", "&#x;",
    "&#xZZ;", "&#0;", "&#10;", "&#xD83D;&#xDE02;", "&#55357;&#56834;", "&#128514;", "&#x1F602;", "&#1114112;", "&#99999999999;", "&unknown;",
    "AT&T;", "R&D", "&&amp;&", "&amp;&amp;&amp;", "&#38;#38;#38;", "&#38;amp;", "&am\u00adp;", "&am\ufe0fp;", "&#64;ana", "&#35;tag", "&amp;#35;tag", "x&#59;)",
    "&#58;)", "&euro;5 &pound;4 &yen;3", "&frac12; a day", "&iexcl;hola!", "&laquo;oui&raquo;", "&bull; one &middot; two", "&lt;b&gt;bold&lt;/b&gt;",
    "a &ndash; b &mdash; c", "&zwj;x&zwnj;y", "&trade; &reg;", "&heeellip;", "&apos;ok&apos;", "&quot;ok&quot;", "&lt;script&gt;",
]
EMOJI = [
    "😂", "so 😂 funny", "😂😂", "😂😂😂😂😂😂", "😂 😂 😂 😂", "😂🔥😂🔥", "😂ok😂ok", "good😂", "😂good", "😭💔", "👍", "👍🏻", "👍🏿👍🏽👍🏻", "🏽", "❤", "❤\ufe0f", "❤\ufe0e",
    "🖤💛💚", f"👨{ZWJ}👩{ZWJ}👧{ZWJ}👦", f"👩{ZWJ}💻", f"👩🏾{ZWJ}💻", f"👩🏾{ZWJ}🚀 go", f"🧔🏿{ZWJ}♀{VS16}", f"👩🏽{ZWJ}🦰", f"👩{ZWJ}🦰", f"❤{VS16}{ZWJ}🔥", f"❤{ZWJ}🔥", f"🏳{VS16}{ZWJ}🌈",
    f"🏳{ZWJ}🌈", f"🤷🏻{ZWJ}♂{VS16}", f"🤷{ZWJ}♂", f"🤦{ZWJ}♀{VS16} again", f"👁{VS16}{ZWJ}🗨{VS16}", f"👩🏻{ZWJ}🤝{ZWJ}👨🏿", f"💏🏽", f"👩{ZWJ}❤{VS16}{ZWJ}💋{ZWJ}👨", f"{ZWJ}😂", f"😂{ZWJ}", f"😂{ZWJ}🔥",
    f"😂{ZWJ}{ZWJ}🔥", "😀\u0301", "🇩🇪", "🇩🇪🇫🇷", "🇩🇪 🇩🇪 🇩🇪", "🇩", "🇩🇩", "🇦🇧🇨", "go 🇧🇷!!", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🏴\U000e0067\U000e0062", f"1{KEYCAP}", f"1\u20e3", f"#{KEYCAP}", f"*{KEYCAP}",
    f"1{KEYCAP}2{KEYCAP}3{KEYCAP}", f"a1{KEYCAP}", f"#a1{KEYCAP}", f"#1{KEYCAP}", "©", "© 2020", "™", "®", "‼", "⁉", "!?", "☺", "☹", "♥", "♡", "♥♥♥", "✨✨✨✨ new", "💯", "🆗", "🔛🔝", "㊗", "🈁", "🅰", "ℹ",
    "☎", "⌚", "▶", "↔", "〰", "♀", "⚽ 3:1", "1⚽0", "🙂)", ":)🙂", "🙏🏼 pls", "👏 clap 👏 for 👏 this", "👏👏👏👏", "🤡", "🫠", "🥹🥹🥹", "🪩", "💩", "🙃", "😮\u200d💨", "😵\u200d💫", "🐻\u200d❄\ufe0f", "🧑🏿\u200d🤝\u200d🧑🏻", "👌🏾👌🏾👌🏾",
    "@ana😂", "#tag😂", "#😂", "😂#tag", "😂@ana", "&#128514;😂😂", "\U0001fae8", "⭐", "★", "♪", "→", "✔", "✌🏿", "☕", "🌧🌧🌧 rain", "💔💔", "🤣😂🤣", "😡😡😡😡", "🥲", "😊☺️", "🤷",
]
EMOTICONS = [
    ":)", ":-)", ":(", ":-(", ":D", ":-D", ";)", ";-)", ":P", ":p", ":'(", ":'-(", ":/", ":|", "<3", "</3", ":*", ":o", "=)", "=(", "^_^", "-_-", ">:(", ":]", ":[", "=D", ":-/", ":-|", ":-P", ";D",
    "nice :)", "nice:)", "nice :)))))", "nice :(((", ":DDDD", "<3<3<3", "<333", "<3 <3 <3", "i <3 u", "i<3u", "1 <3", ":) :) :)", ":):):)", "(:", "):", ":-))", ":)x", ":)9", ":Dog", ":pizza", ":o)", "a:/b", "10:30", "3:1",
    "ratio 2:(1)", "note :(a) and :(b)", "see :/ there", "://", "c:/dir", ":-", ":--)", ":')", "D:", "xD", "XD", "T_T", "o_O", "8)", ";;)", "::)", ":::)", "-_-_-", "---_---", ">>:(", "^_^_^", ">_<", ":3", ":-O", "¯\\_(ツ)_/¯",
    "lol:D", "lol :D.", "lol :D!", "(:D)", "[:)]", "#tag:)", "@ana :(", ":)😂", "😂:)", "=/", ":\\", "</33", "\"<3\"", "&lt;3&lt;3", "; )", ":\u200b)", ":\u00ad(",
]
STRETCHED = [
    "soooo", "sooooo goooood", "SOOOO", "SoOoOo", "SOOOooo", "yesss", "noooooo!!!!!!", "aaaaaaaaaaaaaaaaaaaa", "hahahaha", "hahahahahahaha", "looool", "loooool 😂", "www", "wwwww", "mmm", "Mmmmm", "zzz", "zzzzzz", "ééééé",
    "дааааа", "ЯЯЯЯ", "ναιιιι", "ßßßß", "哈哈哈哈", "ああああ", "ㅋㅋㅋㅋ", "نننن", "हहहह", "111111", "1000000", "iii", "Henry VIII", "!!!!", "!!!", "????", "?!?!?!?!", "?????!!!!!", "....", "......", ". . . .", ",,,,,", "*****", "----", "-----> here", "____", "====", "~~~~",
    "++++", "////", "((((", "))))", "&&&&", "$$$$", "%%%%", "\"\"\"\"", "''''", "####", "@@@@", "||||", "\u2026\u2026", "\u2014\u2014\u2014\u2014", "e\u0301e\u0301e\u0301e\u0301", "i\u0307i\u0307i\u0307", "o" * 300, "ha" * 200, "!" * 300, "😂" * 200, "no " * 60 + "end", "a\u200baaa", "s\u00adoooo",
    "ﬀﬀﬀﬀ", "ｗｗｗｗ", "𝓵𝓵𝓵𝓵", "Ⓐ", "ⓐⓐⓐⓐ", "ǅǅǅǅ",
]
HASHTAGS = [
    "#rain", "#Rain", "#NoMoreRain", "#noMoreRain", "#NOMORERAIN", "#HTMLParser", "#aHTMLParser", "#nomorerain", "#covid19", "#Covid19Update", "#2020Election", "#2020", "#1", "#1st", "#4thOfJuly", "#B2B", "#WWE2K22", "#iOS16", "#iPhone", "#McDonald", "#snake_case_tag", "#_x_",
    "#__", "#_", "#", "# tag", "##tag", "###", "#a#b#c", "#a #b #c", "#A#B", "x#y", "é#y", "9#y", "C#", "C# and F#", "#c++", "#rock'n'roll", "#covid-19", "#tag.", "#tag!!!!", "(#tag)", "\"#tag\"", "#tag,#other", "#tag/other", "#ÉtéIndien", "#été", "#Größe", "#ПриветМир", "#日本語", "#日本語Tag", "#Tagです",
    "#مرحبا", "#مرحبا_بك", "#हिन्दी", "#ไม่ไป", "#می\u200cخواهم", "#cafe\u0301Noir", "#naïveIdea", "#soooooGood", "#YESSSSS", "#LOLOLOL", "#aB", "#ABc", "#ABC", "#A", "#aa1bb2", "#X1Y2", "#½Price", "#①②", "#Ⅷ", "#ǅungla", "#ﬁnal", "#_\u0301a", "#a\u20e3", "#tag\u200bother", "#tag\ufe0f", "＃tag", "#ＴＡＧ", "&#35;NoMoreRain", "#No&shy;MoreRain",
    "#NoMore😂Rain", "#ThisIsAVeryLongTagThatNobodyReadsToItsEnd", "#" + "Ab" * 60, "love #NoMoreRain and #SunIsBack today", "#MondayMotivation #BlessedAndHappy", "#NotMyProblem...", "#FAIL", "#TBT", "#ff @ana @bob", "#İstanbul", "#IstanbulBüyükşehir", "#StraßenBahn", "#eins2drei", "#l33tSpeak",
]
MARKS = [
    "\u05d0\u05d1\u05d2 #\u05d3\u05d4 @ana", "مرحبا @ana 😂 https://a.example", "\u200fمرحبا\u200f", "\u202bمرحبا\u202c :)", "\u200e:)", "e\u0301te\u0301", "Z\u0351\u036b\u0343a\u0321\u0353lgo", "ก็ไม่รู้", "한국어 ㅠㅠ", "\u1112\u1161\u11ab", "नमस्ते 🙏", "தமிழ் :)", "日本語です。@ana #日本", "中文，很好！！！！！", "すごいwwww", "これは草😂😂😂",
    "x\u0000y", "x\u0007y", "x\ty\r\nz", "x\u000b\u000cy", "x\u0085y", "x\u009fy", "x\u2028y\u2029z", "\ufeffstart", "mid\ufeffdle", "zero\u200bwidth", "word\u2060joiner", "soft\u00adhyphen", "a\u200cb\u200dc", "\u200d", "\u200b", "\u00a0", " \u00a0 \u3000 ", "", " ", "\n", ".", "\u0301", "\u20dd", "\u3164", "\u034f", "\ufffc", "\ufffd", "\ue000", "\U0010ffff", "\u0378",
    "\u2018q\u2019 \u201cq\u201d \u201aq\u201b \u201eq\u201f", "`q` \u00b4q\u00b4", "«q»", "‹q›", "5\u2032 6\u2033", "don\u2019t can\u02bct", "a\u2026b", "\u2025", "a\u2010b\u2011c", "a\u2012b\u2013c\u2014d", "a\u2212b", "½ ⅓ x² H₂O", "№ 5", "𝕙𝕖𝕝𝕝𝕠", "ʇxǝʇ", "ｈｅｌｌｏ　ｗｏｒｌｄ", "ﷺ", "ﬁne", "ǆ", "İi Iı", "ΣΑΣ ς",
]
MIXED = [
    "@ana @bob @cleo soooo happy 😂😂😂 #BestDayEver https://t.co/abc &amp; more :)", "RT @ana: I &lt;3 this!!!!! 😍😍😍 #LoveIt https://t.co/x\u2026", "“Late again”… thanks @Line9 😡 #FAIL", "\u2066@ana\u2069 it\u2019s #TooLate\u2026 :(", "&quot;@ana: yes&quot; &gt;:( &lt;/3",
    "ok…https://t.co/x #a#b 🇩🇪🇩🇪🇩🇪!!!!", "#1 @1 1:1 1️⃣ 1!!!!", "see(https://a.example):)", "w/ @ana @ #NoMoreRain, 10:30 :)", "50% off!!!! 💸💸💸 www.a.example/x #Sale2Day", "not bad :) not good :( not sure :/", "@ana😂😂😂@bob", "#Tag@ana#Tag", "@ana#Tag@bob", "https://a.example#Tag @ana",
    "a  b\t\tc\n\n\nd", "😂\n😂\n😂\n😂", "🔥 🔥\u200b🔥 🔥", "hmm.... 🤔.... ok", "_emphasis_ *bold* ~gone~", "I can't even 😭😭😭 #Dead &#128128;&#128128;&#128128;", "pls RT!!! @a @b @c @d @e #x #y #z", "1/2 thread \u2b07\ufe0f", "2/2 \u2b06\ufe0f end", "\u25b6\ufe0f https://t.co/v", "$TSLA to the moon 🚀🚀🚀", "u/ana r/sub", "> quoted\n>> twice", "[link](https://a.example/x)",
    "<a href=\"https://a.example\">x</a>", "{\"text\": \"@ana\"}", "C:\\dir\\file", "a=b; c=(d)", "if (x<3) y=3;)", "-_-'", "o/ \\o", "@ana: :@ana", "#:) :#", "😂:😂", "::😂::", ":joy: :smile:", "...@ana...#tag...", "'@ana' '#tag' ':)'", "@ana\u2019s #tag\u2019s", "\U0001f1e9@ana\U0001f1ea",
]
TOPICS = {
    "handles": HANDLES, "links": LINKS, "entities": ENTITIES, "emoji": EMOJI, "emoticons": EMOTICONS,
    "stretched": STRETCHED, "hashtags": HASHTAGS, "marks": MARKS, "mixed": MIXED,
}  # fmt: skip


def normalize(binary: str, texts: list[str]) -> list[str]:
    """What the binary makes of the texts, in their order."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    done = subprocess.run([binary, "normalize", "--normalizer", "social-1"], input=lines.encode(), capture_output=True, check=True)
    return [json.loads(line)["clean_text"] for line in done.stdout.split(b"\n") if line]


def line(case: dict[str, str]) -> str:
    """JSON in which a reader sees every character: those that show nothing, or move others, are escaped."""
    hidden = lambda c: c != " " and unicodedata.category(c) in {"Cc", "Cf", "Cn", "Co", "Mn", "Me", "Zl", "Zp", "Zs"}  # noqa: E731
    escape = lambda c: json.dumps(c)[1:-1] if hidden(c) else c  # noqa: E731
    return "".join(map(escape, json.dumps(case, ensure_ascii=False)))


def main() -> None:
    cases = [(topic, text) for topic, texts in TOPICS.items() for text in texts]
    texts = [text for _, text in cases]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise SystemExit(f"make_social_1.py: twice in the table: {twice}")
    outputs = normalize(sys.argv[1], texts)
    lines = [
        line({"topic": topic, "text": text, "clean_text": clean}) + "\n"
        for (topic, text), clean in zip(cases, outputs, strict=True)
    ]
    TARGET.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
