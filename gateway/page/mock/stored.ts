/** What the mock's stores answer: made-up series and tags, no search, a model, and a few metrics. */

const TAGS = ["espresso", "nighttrains", "sourdough", "citycycling"];
const LABELS: [string, number][] = [["negative", -0.6], ["neutral", 0.1], ["positive", 0.65]];

export function series(params: URLSearchParams): unknown {
  const step = params.get("window") === "1h" ? 3_600_000 : 60_000;
  const floor = (name: string) => Math.floor(Date.parse(params.get(name) ?? "") / step) * step;
  const [from, to] = [floor("from"), floor("to") + step];
  const shift = (params.get("tag") ?? "").length;
  const points = Array.from({ length: (to - from) / step }, (_, i) => from + i * step).flatMap((start, i) =>
    LABELS.map(([label, mean], n) => ({
      start: new Date(start).toISOString(),
      label,
      posts: Math.round(12 + 10 * Math.sin(i / 9 + n + shift)),
      mean_polarity: mean,
    })),
  );
  return { store: "tables", window: params.get("window"), from: new Date(from).toISOString(), to: new Date(to).toISOString(), points };
}

export const tags = (): unknown => ({ store: "tables", tags: TAGS.map((tag, i) => ({ tag, posts: 420 - 90 * i, mean_polarity: 0.4 - 0.2 * i })) });

export const models = (): unknown => ({
  models: [
    {
      name: "undertone-minilm-sentiment",
      revision: "9f2c41d07be86a5513c0e2f4",
      precision: "fp32",
      device: "cpu",
      kernels: "avx2",
      heads: [{ name: "sentiment", labels: LABELS.map(([label]) => label) }],
      dimensions: 384,
      max_tokens: 256,
      normalizer: "social-1",
      languages: ["eng"],
      parameters: 22_718_221,
    },
  ],
});

export const METRICS = `undertone_stream_dead_total{stage="parse",reason="not_json"} 7
undertone_stream_dead_total{stage="parse",reason="no_text"} 3
undertone_sink_commits_total{sink="silver.posts",outcome="committed"} 41
undertone_sink_waiting{sink="silver.posts"} 0
undertone_sink_stopped{sink="silver.posts"} 0
undertone_sink_freshness_seconds_sum{sink="silver.posts"} 812
undertone_sink_freshness_seconds_count{sink="silver.posts"} 406
`;
