/**
 * The live view's object, as GET /v1/overview and the events of GET /v1/live carry it.
 *
 * `decodeOverview` turns anything that JSON can hold into a complete `Overview`: a missing or ill-typed field becomes its
 * neutral value, never an exception, so that a gateway one version older or newer still draws a page.
 */

import { clamp, count, list, number, object, polarityOrNull as polarity, text, textOrNull } from "./json.ts";

export type Label = "negative" | "neutral" | "positive";
export const LABELS: readonly Label[] = ["negative", "neutral", "positive"];

export interface Model {
  name: string;
  revision: string;
  precision: string;
}

export interface Lag {
  stage: string;
  posts: number;
  /** The age of the oldest of them, or null if it is not known. */
  seconds: number | null;
  /** Why the stage does not move, or null while it does. */
  waiting: string | null;
  /** Of what part of the stage this is told, or null if of all of it. */
  scope: string | null;
}

export interface Series {
  topic: string;
  /** Posts in each bucket. */
  count: number[];
  /** Mean polarity in [-1, 1] of each bucket; null where there are no posts. Same length as `count`. */
  polarity: (number | null)[];
}

/** The time that a plot shows, in buckets of one length. */
export interface Axis {
  bucketSeconds: number;
  /** Start of the first bucket, in seconds since the epoch. */
  startS: number;
  buckets: number;
}

export interface Topics extends Axis {
  series: Series[];
}

export interface Post {
  uid: string;
  source: string;
  id: string;
  author: string | null;
  text: string;
  label: string | null;
  polarity: number | null;
  confidence: number | null;
  language: string | null;
  createdMs: number | null;
  scoredMs: number | null;
  topics: string[];
}

export interface DeadLetter {
  offset: number;
  stage: string;
  reason: string;
  preview: string;
  atMs: number | null;
}

export interface Overview {
  nowMs: number;
  startedMs: number | null;
  model: Model;
  rate: { postsPerSecond: number; history: [second: number, count: number][] };
  totals: { events: number; scored: number; dead: number } & Record<Label, number>;
  lag: Lag[];
  topics: Topics;
  latest: Post[];
  dead: { total: number; latest: DeadLetter[] };
}

/** The page's colours reach this far; the gateway sends no more either. */
const MAX_SERIES = 12;
const MAX_BUCKETS = 1440;

const countOrNull = (value: unknown): number | null => (number(value) === null ? null : count(value));

function decodeTopics(value: unknown): Topics {
  const topics = object(value);
  const series = list(topics.series).slice(0, MAX_SERIES).map(object);
  const longest = Math.max(0, ...series.map((s) => list(s.polarity).length));
  const buckets = clamp(Math.floor(number(topics.buckets) ?? longest), 0, MAX_BUCKETS);
  const seen = new Set<string>();
  return {
    bucketSeconds: Math.max(1, number(topics.bucket_seconds) ?? 60),
    startS: number(topics.start_s) ?? 0,
    buckets,
    series: series
      .map((s) => ({
        topic: text(s.topic),
        count: Array.from({ length: buckets }, (_, i) => count(list(s.count)[i])),
        polarity: Array.from({ length: buckets }, (_, i) => polarity(list(s.polarity)[i])),
      }))
      // Topics are keys of lists on the page: an empty or repeated one would break it.
      .filter((s) => s.topic !== "" && !seen.has(s.topic) && seen.add(s.topic)),
  };
}

function decodeLag(value: unknown): Lag {
  const lag = object(value);
  return { stage: text(lag.stage), posts: count(lag.posts), seconds: countOrNull(lag.seconds), waiting: textOrNull(lag.waiting), scope: textOrNull(lag.scope) };
}

function decodePost(value: unknown, index: number): Post {
  const post = object(value);
  return {
    uid: textOrNull(post.uid) ?? `#${index}`,
    source: text(post.source),
    id: text(post.id),
    author: textOrNull(post.author),
    text: text(post.text),
    label: textOrNull(post.label),
    polarity: polarity(post.polarity),
    confidence: number(post.confidence),
    language: textOrNull(post.language),
    createdMs: number(post.created_ms),
    scoredMs: number(post.scored_ms),
    topics: [...new Set(list(post.topics).map(text).filter((t) => t !== ""))],
  };
}

function decodeDeadLetter(value: unknown): DeadLetter {
  const letter = object(value);
  return {
    offset: count(letter.offset),
    stage: text(letter.stage),
    reason: text(letter.reason),
    preview: text(letter.preview),
    atMs: number(letter.at_ms),
  };
}

/** Decodes the live view; null if `value` is not an object or lacks the time that everything else is relative to. */
export function decodeOverview(value: unknown): Overview | null {
  const root = object(value);
  const nowMs = number(root.now_ms);
  if (nowMs === null) return null;
  const [model, rate, totals, dead] = [object(root.model), object(root.rate), object(root.totals), object(root.dead)];
  return {
    nowMs,
    startedMs: number(root.started_ms),
    model: { name: text(model.name), revision: text(model.revision), precision: text(model.precision) },
    rate: {
      postsPerSecond: count(rate.posts_per_second),
      history: list(rate.history).flatMap((point): [number, number][] => {
        const [second, posts] = list(point);
        const at = number(second);
        return at === null ? [] : [[at, count(posts)]];
      }),
    },
    totals: {
      events: count(totals.events),
      scored: count(totals.scored),
      dead: count(totals.dead),
      negative: count(totals.negative),
      neutral: count(totals.neutral),
      positive: count(totals.positive),
    },
    lag: uniqueBy(list(root.lag).map(decodeLag), (lag) => lag.stage),
    topics: decodeTopics(root.topics),
    // Keys of lists on the page are unique; of a post that comes twice, edited, the newest stands first.
    latest: uniqueBy(list(root.latest).map(decodePost), (post) => post.uid),
    dead: { total: count(dead.total), latest: list(dead.latest).map(decodeDeadLetter) },
  };
}

function uniqueBy<T>(items: T[], key: (item: T) => string): T[] {
  const seen = new Set<string>();
  return items.filter((item) => !seen.has(key(item)) && seen.add(key(item)));
}

/** The label as one of the three that have a colour and a shape, or null for any other. */
export function knownLabel(label: string | null): Label | null {
  return LABELS.find((l) => l === label) ?? null;
}

/** One count for each of the last `seconds` whole seconds before `nowMs`, oldest first; seconds not named count 0. */
export function perSecond(history: [number, number][], nowMs: number, seconds: number): number[] {
  const now = Math.floor(nowMs / 1000);
  const out = new Array<number>(seconds).fill(0);
  for (const [second, posts] of history) {
    const at = Math.floor(second) - (now - seconds);
    if (at >= 0 && at < seconds) out[at] = posts;
  }
  return out;
}
