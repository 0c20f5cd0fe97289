/** The model that is served (GET /v1/models), and what was measured of the one that ships (models/report.json). */

import { count, list, number, object, text } from "./json.ts";

export interface ServedHead {
  name: string;
  labels: string[];
}

export interface Served {
  name: string;
  revision: string;
  precision: string;
  device: string;
  kernels: string;
  heads: ServedHead[];
  dimensions: number;
  maxTokens: number;
  normalizer: string;
  languages: string[];
  parameters: number | null;
}

/** The first model of the answer; null if there is none. */
export function decodeServed(body: unknown): Served | null {
  const first = list(object(body).models)[0];
  if (first === undefined) return null;
  const model = object(first);
  return {
    name: text(model.name),
    revision: text(model.revision),
    precision: text(model.precision),
    device: text(model.device),
    kernels: text(model.kernels),
    heads: list(model.heads)
      .map(object)
      .map((head) => ({ name: text(head.name), labels: list(head.labels).map(text) })),
    dimensions: count(model.dimensions),
    maxTokens: count(model.max_tokens),
    normalizer: text(model.normalizer),
    languages: list(model.languages).map(text),
    parameters: number(model.parameters),
  };
}

/** Posts whose most probable label had about this probability, and how often it was right. */
export interface Bin {
  posts: number;
  confidence: number;
  accuracy: number;
}

export interface MeasuredHead {
  name: string;
  metric: string;
  posts: number;
  value: number;
  /** 95 %, bootstrapped over posts. */
  interval: [low: number, high: number];
  accuracy: number;
  /** Expected calibration error: without a temperature, as shipped, and cross-fitted. */
  ece: { none: number; shipped: number; cross_fitted: number };
  bins: Bin[];
  classes: { label: string; posts: number; precision: number; recall: number }[];
  /** The metric in other precisions than the one that all else is measured in. */
  precisions: Record<string, number>;
}

export interface Capability {
  name: string;
  cases: number;
  passed: number;
}

/** What is taken from models/report.json when the page is built. */
export interface Measured {
  revision: string;
  precision: string;
  heads: MeasuredHead[];
  capabilities: Capability[];
}

type Report = {
  model: { revision: string; precision: string };
  heads: Record<string, Omit<MeasuredHead, "name" | "classes" | "precisions" | "ece" | "bins"> & {
    classes: Record<string, { posts: number; precision: number; recall: number }>;
    calibration: { ece: MeasuredHead["ece"]; bins: Bin[] };
  }>;
  precisions: Record<string, { heads: Record<string, { value: number }> }>;
  suite: { capabilities: Record<string, { cases: number; passed: number }> };
};

/** The part of the report that the page shows. Runs when the page is built: a report of another shape ends the build. */
export function measuredOf(report: Report): Measured {
  return {
    revision: report.model.revision,
    precision: report.model.precision,
    heads: Object.entries(report.heads).map(([name, head]) => ({
      name,
      metric: head.metric,
      posts: head.posts,
      value: head.value,
      interval: head.interval,
      accuracy: head.accuracy,
      ece: head.calibration.ece,
      bins: head.calibration.bins.map(({ posts, confidence, accuracy }) => ({ posts, confidence, accuracy })),
      classes: Object.entries(head.classes).map(([label, { posts, precision, recall }]) => ({ label, posts, precision, recall })),
      precisions: Object.fromEntries(Object.entries(report.precisions).map(([precision, of]) => [precision, of.heads[name]!.value])),
    })),
    capabilities: Object.entries(report.suite.capabilities).map(([name, { cases, passed }]) => ({ name, cases, passed })),
  };
}

/** What was measured of this very model: figures of another revision say nothing of it. */
export const measuredFor = (served: Served, measured: Measured): Measured | null =>
  served.revision !== "" && served.revision === measured.revision ? measured : null;

/** Heads whose labels are too unsure to act upon, by the model's card. */
export const isExperimental = (head: string): boolean => head === "hate";
