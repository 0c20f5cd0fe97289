/** What the page reads of /metrics: dead letters by reason, and how each sink fares. Everything else there is passed over. */

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** The samples of Prometheus' text format whose name is wanted. Lines that are none are passed over. */
export function samples(exposition: string, wanted: (name: string) => boolean): Sample[] {
  const out: Sample[] = [];
  for (const line of exposition.split("\n")) {
    const parts = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!parts || !wanted(parts[1]!)) continue;
    const value = Number(parts[3]);
    if (!Number.isFinite(value)) continue;
    const labels: Record<string, string> = {};
    for (const [, name, escaped] of (parts[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[name!] = escaped!.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
    }
    out.push({ name: parts[1]!, labels, value });
  }
  return out;
}

export interface Reason {
  stage: string;
  reason: string;
  count: number;
}

export interface Sink {
  sink: string;
  committed: number;
  failed: number;
  /** Mean seconds from ingestion to durable; null before the first commit. */
  freshness: number | null;
  /** Waits for something outside. */
  waiting: boolean;
  /** Has given up, and needs a person. */
  stopped: boolean;
}

export interface Health {
  /** Dead letters since the process started, those of most first. */
  reasons: Reason[];
  sinks: Sink[];
}

const DEAD = "undertone_stream_dead_total";
const COMMITS = "undertone_sink_commits_total";
const WAITING = "undertone_sink_waiting";
const STOPPED = "undertone_sink_stopped";
const FRESH_SUM = "undertone_sink_freshness_seconds_sum";
const FRESH_COUNT = "undertone_sink_freshness_seconds_count";
const NAMES = new Set([DEAD, COMMITS, WAITING, STOPPED, FRESH_SUM, FRESH_COUNT]);

/** What the metrics say; null if they are no text. */
export function decodeHealth(body: unknown): Health | null {
  if (typeof body !== "string") return null;
  const found = samples(body, (name) => NAMES.has(name));
  const sum = (name: string, keeps: (labels: Record<string, string>) => boolean) =>
    found.filter((sample) => sample.name === name && keeps(sample.labels)).reduce((total, sample) => total + sample.value, 0);
  const reasons = found
    .filter((sample) => sample.name === DEAD && sample.value > 0)
    .map(({ labels, value }) => ({ stage: labels.stage ?? "", reason: labels.reason ?? "", count: value }))
    .sort((a, b) => b.count - a.count || a.reason.localeCompare(b.reason));
  const names = [...new Set(found.filter((sample) => sample.name === WAITING || sample.name === STOPPED).map((s) => s.labels.sink ?? ""))];
  const sinks = names.sort().map((sink): Sink => {
    const own = (labels: Record<string, string>) => labels.sink === sink;
    const posts = sum(FRESH_COUNT, own);
    return {
      sink,
      committed: sum(COMMITS, (labels) => own(labels) && labels.outcome === "committed"),
      failed: sum(COMMITS, (labels) => own(labels) && labels.outcome !== "committed"),
      freshness: posts > 0 ? sum(FRESH_SUM, own) / posts : null,
      waiting: sum(WAITING, own) > 0,
      stopped: sum(STOPPED, own) > 0,
    };
  });
  return { reasons, sinks };
}

const WORDS: Record<string, string> = {
  not_json: "not JSON",
  not_utf8: "not UTF-8",
  no_text: "no text",
  no_id: "no id",
  wrong_type: "a field of a wrong type",
  too_large: "too large",
  crash: "ended the process three times",
};

/** A reason's code in words; a code that has none reads as it is. */
export const reasonWords = (code: string): string => WORDS[code] ?? code.replaceAll("_", " ");

/** Stages that are stores: what died there was scored, and is written again. */
export const STORES = ["qdrant", "opensearch", "clickhouse"];

/** How an operator looks at dead letters of a stage, and sends them again: with a dry run first. */
export function replayCommands(stage: string): string[] {
  if (stage === "") return ["undertone dead list", "undertone dead replay --dry-run", "undertone dead replay"];
  const replay = STORES.includes(stage) ? `undertone dead replay --sink ${stage}` : `undertone dead replay --stage ${stage}`;
  return [`undertone dead list --stage ${stage}`, `${replay} --dry-run`, replay];
}
