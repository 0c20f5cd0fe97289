/**
 * Mood over the time that the stores know: what is asked of /v1/query/series, and its answer as lines on one axis.
 *
 * A window without posts stays null, and a mean weighs every post alike, whichever label it has.
 */

import { clamp, count, instant, list, object, polarityOrNull, text, textOrNull } from "./json.ts";
import type { Axis, Series } from "./overview.ts";

export type Span = "hour" | "day" | "week";
export type Window = "1m" | "1h";

export const SPANS: readonly { span: Span; name: string; hours: number; windows: readonly Window[] }[] = [
  { span: "hour", name: "Hour", hours: 1, windows: ["1m"] },
  { span: "day", name: "Day", hours: 24, windows: ["1h", "1m"] },
  { span: "week", name: "Week", hours: 168, windows: ["1h"] },
];
export const WINDOW_NAMES: Record<Window, string> = { "1m": "Minutes", "1h": "Hours" };

export const KINDS = ["all", "tag", "source", "language"] as const;
export type Kind = (typeof KINDS)[number];
export const KIND_NAMES: Record<Kind, string> = { all: "All posts", tag: "Tag", source: "Source", language: "Language" };

/** What is looked at: every post, or those of one tag, source or language. */
export interface Selection {
  kind: Kind;
  value: string;
}

export interface Choice {
  span: Span;
  window: Window;
  first: Selection;
  /** What it is compared with. */
  second: Selection | null;
}

/** The ends of the chosen time, which ends now. */
export function ends(choice: Choice, nowMs: number): { from: string; to: string } {
  const hours = SPANS.find((s) => s.span === choice.span)?.hours ?? 1;
  return { from: new Date(nowMs - hours * 3_600_000).toISOString(), to: new Date(nowMs).toISOString() };
}

/** The parameters of one selection's series. */
export function seriesParams(choice: Choice, selection: Selection, nowMs: number): Record<string, string> {
  return {
    window: choice.window,
    ...ends(choice, nowMs),
    ...(selection.kind === "all" ? {} : { [selection.kind]: selection.value }),
  };
}

/** How a selection is called. */
export function selectionName(selection: Selection): string {
  if (selection.kind === "all") return "All posts";
  return selection.kind === "tag" ? `#${selection.value}` : `${selection.value} (${selection.kind})`;
}

/** A choice as the address keeps it. Everything usual is left out. */
export function writeChoice(choice: Choice): Record<string, string> {
  const pair = (selection: Selection | null) =>
    selection === null ? "" : selection.kind === "all" ? "all" : `${selection.kind}:${selection.value}`;
  const first = pair(choice.first);
  return {
    span: choice.span === "hour" ? "" : choice.span,
    window: choice.span === "day" && choice.window === "1m" ? "1m" : "",
    a: first === "all" ? "" : first,
    b: pair(choice.second),
  };
}

/** The choice that an address holds; what is missing or makes no sense becomes the usual. */
export function readChoice(params: URLSearchParams): Choice {
  const found = SPANS.find((s) => s.span === params.get("span")) ?? SPANS[0]!;
  const window = found.windows.find((w) => w === params.get("window")) ?? found.windows[0]!;
  return { span: found.span, window, first: readSelection(params.get("a")) ?? { kind: "all", value: "" }, second: readSelection(params.get("b")) };
}

function readSelection(words: string | null): Selection | null {
  if (words === null || words === "") return null;
  const at = words.indexOf(":");
  const kind = KINDS.find((k) => k === (at < 0 ? words : words.slice(0, at))) ?? "all";
  const value = at < 0 ? "" : words.slice(at + 1).trim();
  return kind === "all" || value === "" ? { kind: "all", value: "" } : { kind, value };
}

/** One selection's answer. `labels` counts the posts of each label over all windows. */
export interface Trend extends Axis {
  store: string;
  series: Series;
  labels: Record<string, number>;
}

const MAX_BUCKETS = 1500;

/** The answer of /v1/query/series, on an axis with every window that it spans; null if it is none. */
export function decodeTrend(body: unknown, name: string): Trend | null {
  const root = object(body);
  const [from, to] = [instant(root.from), instant(root.to)];
  if (from === null || to === null || to <= from || !Array.isArray(root.points)) return null;
  const bucketSeconds = root.window === "1h" ? 3600 : 60;
  const buckets = clamp(Math.round((to - from) / 1000 / bucketSeconds), 1, MAX_BUCKETS);
  const posts = new Array<number>(buckets).fill(0);
  const sums = new Array<number>(buckets).fill(0);
  const weights = new Array<number>(buckets).fill(0);
  const labels: Record<string, number> = {};
  for (const each of list(root.points)) {
    const point = object(each);
    const start = instant(point.start);
    const i = start === null ? -1 : Math.floor((start - from) / 1000 / bucketSeconds);
    if (i < 0 || i >= buckets) continue;
    const n = count(point.posts);
    const label = textOrNull(point.label) ?? "none";
    posts[i]! += n;
    labels[label] = (labels[label] ?? 0) + n;
    const mean = polarityOrNull(point.mean_polarity);
    if (mean === null) continue;
    sums[i]! += mean * n;
    weights[i]! += n;
  }
  const polarity = weights.map((weight, i) => (weight > 0 ? sums[i]! / weight : null));
  return { store: text(root.store), startS: from / 1000, bucketSeconds, buckets, series: { topic: name, count: posts, polarity }, labels };
}

/** A share of the posts, 0 to 1; null without posts. */
export function labelShare(trend: Trend, label: string): number | null {
  const all = Object.values(trend.labels).reduce((a, b) => a + b, 0);
  return all === 0 ? null : (trend.labels[label] ?? 0) / all;
}

/** A tag that can be chosen. */
export interface Tag {
  tag: string;
  posts: number;
  meanPolarity: number | null;
}

/** The answer of /v1/query/tags. */
export function decodeTags(body: unknown): Tag[] | null {
  if (!Array.isArray(object(body).tags)) return null;
  const seen = new Set<string>();
  return list(object(body).tags)
    .map(object)
    .map((each) => ({ tag: text(each.tag), posts: count(each.posts), meanPolarity: polarityOrNull(each.mean_polarity) }))
    .filter(({ tag }) => tag !== "" && !seen.has(tag) && seen.add(tag));
}
