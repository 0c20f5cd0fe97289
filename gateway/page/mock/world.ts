/** A small synthetic stream for development without a gateway: it advances by the clock and answers with overviews. */

const BUCKETS = 60;
const KEPT_SECONDS = 120;

interface Topic {
  name: string;
  /** Posts a minute, base mood in [-1, 1], and how the mood swings. */
  volume: number;
  mood: number;
  swing: number;
  period: number;
  /** Minutes in each ten during which nobody speaks of it. */
  silent: number;
}

const TOPICS: Topic[] = [
  { name: "espresso", volume: 46, mood: 0.35, swing: 0.15, period: 34, silent: 0 },
  { name: "night trains", volume: 38, mood: -0.2, swing: 0.4, period: 48, silent: 0 },
  { name: "football", volume: 60, mood: 0.05, swing: 0.5, period: 21, silent: 0 },
  { name: "phone battery", volume: 30, mood: -0.45, swing: 0.12, period: 27, silent: 0 },
  { name: "ramen", volume: 22, mood: 0.55, swing: 0.1, period: 40, silent: 0 },
  { name: "bike lanes", volume: 18, mood: 0.1, swing: 0.25, period: 60, silent: 3 },
  { name: "exam week", volume: 16, mood: -0.3, swing: 0.3, period: 55, silent: 0 },
  { name: "open-air cinema", volume: 12, mood: 0.4, swing: 0.2, period: 30, silent: 2 },
  { name: "rent", volume: 11, mood: -0.6, swing: 0.1, period: 44, silent: 0 },
  { name: "gardens", volume: 8, mood: 0.5, swing: 0.15, period: 25, silent: 4 },
  { name: "software updates", volume: 7, mood: -0.1, swing: 0.45, period: 18, silent: 1 },
  { name: "libraries", volume: 5, mood: 0.3, swing: 0.3, period: 37, silent: 5 },
];

const TEXTS: [text: string, label: string, polarity: number, language: string | null, topics: string[]][] = [
  ["First espresso on the balcony and the swifts are back. Tiny, perfect morning ☕️🙂", "positive", 0.91, "eng", ["espresso"]],
  ["ok the night train to vienna is 140 min late again and nobody tells us ANYTHING @railhelp #nighttrains", "negative", -0.88, "eng", ["night trains"]],
  ["Half-time, 1:1. Let's see.", "neutral", 0.04, "eng", ["football"]],
  ["phone at 12% by noon after the update?? great. just great. #battery", "negative", -0.74, "eng", ["phone battery", "software updates"]],
  ["Die neue Radspur am Kanal ist endlich durchgehend, danke an alle, die drangeblieben sind! 🚲", "positive", 0.83, "deu", ["bike lanes"]],
  ["هذا المقهى هادئ جدا والقهوة ممتازة، سأعود غدا مع أصدقائي", "positive", 0.78, "ara", ["espresso"]],
  ["Library opens at 9, closes at 18 on Fridays. https://example.org/hours?branch=north&week=47", "neutral", 0.01, "eng", ["libraries"]],
  ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaargh exams", "negative", -0.66, null, ["exam week"]],
  ["Me han subido el alquiler otra vez y el ascensor sigue roto.", "negative", -0.81, "spa", ["rent"]],
  ["<b>not bold</b> <img src=x onerror=alert(1)> and & stay as typed", "neutral", -0.03, "eng", []],
  ["👨‍👩‍👧‍👦🎬🍿👨‍👩‍👧‍👦🎬🍿 open-air cinema with the whole family, the kids slept through all of it", "positive", 0.69, "eng", ["open-air cinema"]],
  ["屋台のラーメンが優勝。スープまで全部飲んだ。", "positive", 0.87, "jpn", ["ramen"]],
  ["meh", "neutral", -0.11, null, []],
  ["The tomatoes made it through the hail. I did not cry, you cried. #gardens", "positive", 0.58, "eng", ["gardens"]],
];

const SOURCES = ["generator", "webhook", "file"];
const NAMES = ["mara_k", "jonas.w", "tea_and_rain", "九月", "night_owl_07", "السفر", "averyveryverylonghandlethatneverends_2026"];

const DEAD: [stage: string, reason: string, preview: string][] = [
  ["parse", "expected a JSON object, found the end of the line at column 41 (was the writer cut off?)", '{"id":"p-77120","source":"webhook","text":'],
  ["validate", "text is empty after cleaning", '{"id":"p-77188","source":"generator","text":"   ","created_at":"2026-05-02T08:14:00Z"}'],
  ["validate", "created_at is not RFC 3339: \"yesterday-ish\"", '{"id":"p-77203","source":"file","text":"fine day","created_at":"yesterday-ish"}'],
  ["parse", "not UTF-8 at byte 19", '{"id":"p-9","text":"caf\\xff\\xfe au lait"}'],
];

export type Scenario = "busy" | "quiet" | "empty" | "waiting" | "down";
export const SCENARIOS: readonly Scenario[] = ["busy", "quiet", "empty", "waiting", "down"];

/** A repeatable number in [0, 1) for a pair of whole numbers. */
function noise(a: number, b: number): number {
  let x = (Math.imul(a, 0x9e3779b1) ^ Math.imul(b + 1, 0x85ebca6b)) >>> 0;
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d) >>> 0;
  x = Math.imul(x ^ (x >>> 12), 0x297a2d39) >>> 0;
  return ((x ^ (x >>> 15)) >>> 0) / 2 ** 32;
}

const perSecond = (second: number, scenario: Scenario) =>
  scenario === "quiet"
    ? Number(noise(second, 3) < 0.15)
    : Math.round(46 + 14 * Math.sin(second / 17) + 10 * noise(second, 3) + (second % 90 < 6 ? 60 : 0));

function series(topic: Topic, index: number, startS: number, nowS: number, scenario: Scenario) {
  const minutes = Array.from({ length: BUCKETS }, (_, i) => startS / 60 + i);
  const elapsed = (minute: number) => Math.min(1, Math.max(0, nowS / 60 - minute));
  const silent = (minute: number) => (minute + 3 * index) % 10 < topic.silent;
  const scale = scenario === "quiet" ? 0.05 : 1;
  const count = minutes.map((m) =>
    silent(m) ? 0 : Math.floor(topic.volume * scale * elapsed(m) * (0.6 + 0.8 * noise(m, index + 20)) + (scale < 1 ? noise(m, 5) * 0.6 : 0)),
  );
  const polarity = minutes.map((m, i) => {
    if (!count[i]) return null;
    const wave = topic.swing * Math.sin((2 * Math.PI * m) / topic.period + index);
    const jitter = (noise(m, index + 40) - 0.5) * (1.4 / Math.sqrt(count[i]! + 1));
    return Math.round(Math.min(1, Math.max(-1, topic.mood + wave + jitter)) * 1000) / 1000;
  });
  return { topic: topic.name, count, polarity };
}

export class World {
  scenario: Scenario = "busy";
  readonly #started = Date.now() - 5_400_000;

  overview(now = Date.now()): unknown {
    const nowS = Math.floor(now / 1000);
    const empty = this.scenario === "empty";
    const history = Array.from({ length: KEPT_SECONDS }, (_, i) => nowS - KEPT_SECONDS + i).map((s) => [s, empty ? 0 : perSecond(s, this.scenario)]);
    const events = empty ? 0 : Math.floor((now - this.#started) / 1000) * (this.scenario === "quiet" ? 1 : 48);
    const dead = empty ? 0 : this.scenario === "quiet" ? 0 : Math.floor(events / 900);
    const scored = events - dead;
    const startS = (Math.floor(nowS / 60) - BUCKETS + 1) * 60;
    const recent = history.slice(-10).reduce((sum, [, n]) => sum + n!, 0) / 10;
    return {
      now_ms: now,
      started_ms: this.#started,
      model: { name: "undertone-minilm-sentiment", revision: "9f2c41d07be86a5513c0e2f4", precision: "fp32" },
      rate: { posts_per_second: recent, history },
      totals: {
        events,
        scored,
        dead,
        negative: Math.floor(scored * 0.31),
        neutral: scored - Math.floor(scored * 0.31) - Math.floor(scored * 0.4),
        positive: Math.floor(scored * 0.4),
      },
      lag: this.#lag(nowS, empty),
      topics: {
        bucket_seconds: 60,
        start_s: startS,
        buckets: BUCKETS,
        series: empty
          ? []
          : TOPICS.map((t, i) => series(t, i, startS, nowS, this.scenario)).sort((a, b) => sum(b.count) - sum(a.count)),
      },
      latest: empty ? [] : this.#latest(now),
      dead: { total: dead, latest: dead === 0 ? [] : this.#dead(now, dead) },
    };
  }

  #lag(nowS: number, empty: boolean) {
    const since = (period: number) => nowS % period;
    const stages: [string, number, string | null][] = [
      ["score", 0.3, null],
      ["bronze.posts", since(30), null],
      ["silver.posts", since(30) + 2, null],
      ["gold.sentiment_1m", since(60), null],
      ["gold.tags_1m", since(60) + 1, null],
      ["dead-letters.jsonl", 0, null],
    ];
    // The scoring stage counts what is left, but cannot know how old it is.
    return stages.map(([stage, seconds, waiting]) => {
      const stuck = this.scenario === "waiting" && stage === "silver.posts";
      const s = empty ? 0 : stuck ? 412 : seconds;
      const scope = stage === "score" ? "all processes" : stage === "silver.posts" ? "2 of 6 partitions, those of this process" : null;
      return { stage, scope, posts: Math.round(s * 47), seconds: stage === "score" ? null : s, waiting: stuck ? "the catalog is locked by another process; trying again every 5 s" : waiting };
    });
  }

  #latest(now: number) {
    const step = this.scenario === "quiet" ? 7000 : 240;
    const newest = Math.floor(now / step);
    return Array.from({ length: 30 }, (_, i) => newest - i).map((n) => {
      const [text, label, polarity, language, topics] = TEXTS[((n * 5) % TEXTS.length)]!;
      const long = n % 23 === 0 ? " And then they said it again, slower, as if that would help.".repeat(40) : "";
      const wild = n % 29 === 0 ? 9.5e9 : n % 31 === 0 ? -7.2e6 : 0;
      return {
        uid: `u-${n}`,
        source: SOURCES[n % SOURCES.length],
        id: `p-${n % 1_000_000}`,
        author: n % 5 === 0 ? null : NAMES[n % NAMES.length],
        text: text + long,
        label,
        polarity,
        confidence: 0.5 + Math.abs(polarity) / 2.1,
        language,
        created_ms: n * step - 900 - wild,
        scored_ms: n * step,
        topics,
      };
    });
  }

  #dead(now: number, total: number) {
    return Array.from({ length: Math.min(10, total) }, (_, i) => {
      const [stage, reason, preview] = DEAD[(total + i) % DEAD.length]!;
      return { offset: (total - i) * 900 + 17, stage, reason, preview, at_ms: now - (i * 19_000 + (now % 19_000)) };
    });
  }
}

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

/** Scores by counting a few words: enough to see the bars move. */
export function mockScore(text: string): unknown {
  const hits = (words: RegExp) => (text.match(words) ?? []).length;
  const good = Math.exp(1.6 * hits(/\b(good|great|love|best|lovely|perfect|thanks|happy)\b/gi));
  const bad = Math.exp(1.6 * hits(/\b(bad|late|hate|worst|broken|awful|never|sad)\b/gi));
  const total = good + bad + 1.5;
  const sentiment = { negative: bad / total, neutral: 1.5 / total, positive: good / total };
  const top = (Object.entries(sentiment) as [string, number][]).reduce((a, b) => (b[1] > a[1] ? b : a));
  return {
    sentiment: { label: top[0], probabilities: sentiment },
    emotion: {
      label: "joy",
      probabilities: { anger: 0.04, anticipation: 0.11, disgust: 0.02, fear: 0.013, joy: 0.62, sadness: 0.09, surprise: 0.107 },
    },
    irony: { label: "not ironic", probabilities: { "not ironic": 0.91, ironic: 0.09 } },
    polarity: sentiment.positive - sentiment.negative,
    confidence: top[1],
    language: /[äöüß]/.test(text) ? "deu" : "eng",
    in_domain: !/[äöüß]/.test(text),
    tokens: Math.max(3, Math.round(text.length / 4)),
    truncated: text.length > 2000,
    model: { name: "undertone-minilm-sentiment", revision: "9f2c41d07be86a5513c0e2f4", precision: "fp32" },
  };
}
