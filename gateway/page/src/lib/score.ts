/** POST /v1/score for one text: the request, and its answer decoded with defensive defaults. */

export interface Head {
  name: string;
  label: string | null;
  /** In the model's order. */
  probabilities: [label: string, probability: number][];
}

export interface Score {
  heads: Head[];
  polarity: number | null;
  confidence: number | null;
  language: string | null;
  /** False if the text is in a language that the model does not know. */
  inDomain: boolean | null;
  tokens: number | null;
  truncated: boolean;
  model: string;
}

/** An answer that is not a score, as the reader is told it. */
export interface Problem {
  title: string;
  detail: string | null;
  status: number | null;
}

export type Outcome = { ok: true; score: Score } | { ok: false; problem: Problem };

type Json = Record<string, unknown>;
const object = (value: unknown): Json | null =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
const string = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
const number = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);

/** Every member that holds `probabilities` is a head; sentiment first, the others in the order they came. */
function decodeHeads(item: Json): Head[] {
  const heads: Head[] = [];
  for (const [name, value] of Object.entries(item)) {
    const probabilities = object(object(value)?.probabilities);
    if (!probabilities) continue;
    heads.push({
      name,
      label: string(object(value)?.label),
      probabilities: Object.entries(probabilities).flatMap(([label, p]): [string, number][] => {
        const probability = number(p);
        return probability === null ? [] : [[label, Math.min(1, Math.max(0, probability))]];
      }),
    });
  }
  return heads.sort((a, b) => Number(b.name === "sentiment") - Number(a.name === "sentiment"));
}

/** Decodes a score, alone or as the only member of a list of results; null if it is neither. */
export function decodeScore(body: unknown): Outcome | null {
  const root = object(body);
  const results = root?.results;
  const item = Array.isArray(results) ? object(results[0]) : root;
  if (!item) return null;
  if (item.error !== undefined) return { ok: false, problem: decodeProblem(item.error, null) };
  const heads = decodeHeads(item);
  if (heads.length === 0) return null;
  const model = object(item.model) ?? object(root?.model) ?? {};
  return {
    ok: true,
    score: {
      heads,
      polarity: number(item.polarity),
      confidence: number(item.confidence),
      language: string(item.language),
      inDomain: typeof item.in_domain === "boolean" ? item.in_domain : null,
      tokens: number(item.tokens),
      truncated: item.truncated === true,
      model: [string(model.name), string(model.precision)].filter((part) => part !== null).join(" · "),
    },
  };
}

/** Decodes application/problem+json (RFC 9457), with a fitting title when the body is something else. */
export function decodeProblem(body: unknown, status: number | null, retryAfter: string | null = null): Problem {
  const problem = object(body);
  const wait = retryAfter && /^\d+$/.test(retryAfter) ? `try again in ${retryAfter} s` : null;
  const detail = [string(problem?.detail), string(problem?.help), wait].filter((part) => part !== null).join("; ");
  return {
    title: string(problem?.title) ?? (typeof body === "string" && body !== "" ? body : "The text could not be scored"),
    detail: detail === "" ? null : detail,
    status: number(problem?.status) ?? status,
  };
}

/** Scores one text. Never rejects, except when `signal` is aborted by the caller. */
export async function scoreText(text: string, signal: AbortSignal): Promise<Outcome> {
  let response: Response;
  try {
    response = await fetch("/v1/score", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json, application/problem+json" },
      body: JSON.stringify({ text }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(30_000)]),
    });
  } catch (error) {
    if (signal.aborted) throw error;
    const late = error instanceof DOMException && error.name === "TimeoutError";
    return {
      ok: false,
      problem: {
        title: late ? "No answer within 30 s" : "The gateway could not be reached",
        detail: late ? "It may be busy; try again." : "Is undertone still running?",
        status: null,
      },
    };
  }
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    return { ok: false, problem: decodeProblem(body, response.status, response.headers.get("retry-after")) };
  }
  return (
    decodeScore(body) ?? {
      ok: false,
      problem: { title: "The answer is not a score", detail: "Page and gateway may be of different versions.", status: response.status },
    }
  );
}
