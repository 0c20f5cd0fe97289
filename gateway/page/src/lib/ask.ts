/**
 * One call of the gateway's API, and what came of it: a value, a store that is not there, or a problem in words.
 *
 * A store that is not configured is a choice of whoever runs the server, not an error, so it is an outcome of its own.
 */

import { object, text } from "./json.ts";
import { decodeProblem, type Problem } from "./score.ts";

export type Answer<T> =
  | { kind: "value"; value: T }
  /** `mend`: what the gateway says to set. */
  | { kind: "no-store"; mend: string }
  | { kind: "problem"; problem: Problem };

const TIMEOUT_MS = 30_000;
const ACCEPT = "application/json, application/problem+json";

/** The outcome of an answer that has come. */
export function outcome<T>(status: number, body: unknown, retryAfter: string | null, decode: (body: unknown) => T | null): Answer<T> {
  if (status === 404 && text(object(body).type).endsWith("/store-not-configured")) {
    return { kind: "no-store", mend: text(object(body).detail) };
  }
  if (status < 200 || status > 299) return { kind: "problem", problem: decodeProblem(body, status, retryAfter) };
  const value = decode(body);
  if (value !== null) return { kind: "value", value };
  const detail = "Page and gateway may be of different versions.";
  return { kind: "problem", problem: { title: "The answer cannot be read", detail, status } };
}

/** `path` with those parameters that are not empty. */
export function address(path: string, params: Record<string, string>): string {
  const kept = Object.entries(params).filter(([, value]) => value !== "");
  return kept.length === 0 ? path : `${path}?${new URLSearchParams(kept).toString()}`;
}

/** Asks once. Never rejects, except when `signal` is aborted by the caller. */
export function ask<T>(
  path: string,
  params: Record<string, string>,
  decode: (body: unknown) => T | null,
  signal: AbortSignal,
  as: "json" | "text" = "json",
): Promise<Answer<T>> {
  const headers = { accept: as === "json" ? ACCEPT : "text/plain, application/problem+json" };
  return call(address(path, params), { headers }, decode, signal, as, TIMEOUT_MS);
}

/** Has something done, once, which may take `timeoutMs`. Never rejects, except when `signal` is aborted by the caller. */
export function order<T>(path: string, body: unknown, decode: (body: unknown) => T | null, signal: AbortSignal, timeoutMs: number): Promise<Answer<T>> {
  const headers = { accept: ACCEPT, "content-type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body) }, decode, signal, "json", timeoutMs);
}

async function call<T>(
  url: string,
  init: RequestInit,
  decode: (body: unknown) => T | null,
  signal: AbortSignal,
  as: "json" | "text",
  timeoutMs: number,
): Promise<Answer<T>> {
  try {
    const response = await fetch(url, {
      ...init,
      cache: "no-store",
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    });
    const plain = as === "text" && response.ok;
    const body: unknown = await (plain ? response.text() : response.json()).catch(() => null);
    return outcome(response.status, body, response.headers.get("retry-after"), decode);
  } catch (error) {
    if (signal.aborted) throw error;
    const late = error instanceof DOMException && error.name === "TimeoutError";
    const title = late ? `No answer within ${Math.round(timeoutMs / 1000)} s` : "The gateway could not be reached";
    const detail = late ? "It may be busy; try again." : "Is undertone still running?";
    return { kind: "problem", problem: { title, detail, status: null } };
  }
}
