/** Posts that a store has found: the answers of /v1/query/search and /v1/query/similar, and their highlights without markup. */

import { count, instant, list, number, object, polarityOrNull, text, textOrNull } from "./json.ts";

export interface StoredPost {
  uid: string;
  source: string;
  author: string | null;
  url: string | null;
  text: string;
  language: string | null;
  label: string | null;
  polarity: number | null;
  createdMs: number | null;
  tags: string[];
}

/** A stretch of text, and whether it is what was looked for. */
export interface Piece {
  text: string;
  found: boolean;
}

export interface Found {
  post: StoredPost;
  /** Stretches of the text around what was found; empty if the whole text is shown. */
  highlights: Piece[][];
  /** The cosine of the embeddings, where posts are found by it. */
  similarity: number | null;
}

export interface Results {
  store: string;
  /** How many there are, where the store counts them; it stops at 10,000. */
  total: number | null;
  found: Found[];
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function unescape(escaped: string): string {
  return escaped.replace(/&(#x[0-9a-f]+|#[0-9]+|[a-z]+);/gi, (whole, name: string) => {
    if (!name.startsWith("#")) return ENTITIES[name.toLowerCase()] ?? whole;
    const code = name[1]?.toLowerCase() === "x" ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

/**
 * A highlight as text. The gateway sends escaped HTML with `<em>` around what was found; it is taken apart here instead of
 * being set as HTML, so that nothing a post holds can become markup whatever the store did.
 */
export function pieces(highlight: string): Piece[] {
  const out: Piece[] = [];
  let found = false;
  for (const part of highlight.split(/(<\/?em>)/)) {
    if (part === "<em>") found = true;
    else if (part === "</em>") found = false;
    else if (part !== "") out.push({ text: unescape(part), found });
  }
  return out;
}

function decodePost(value: unknown, index: number): StoredPost {
  const post = object(value);
  const url = textOrNull(post.url);
  return {
    uid: textOrNull(post.uid) ?? `#${index}`,
    source: text(post.source),
    author: textOrNull(post.author),
    // Posts are untrusted: only what opens a page, never javascript: or data:.
    url: url !== null && /^https?:\/\//i.test(url) ? url : null,
    text: text(post.text),
    language: textOrNull(post.language),
    label: textOrNull(post.label),
    polarity: polarityOrNull(post.polarity),
    createdMs: instant(post.created_at),
    tags: [...new Set(list(post.tags).map(text).filter((tag) => tag !== ""))],
  };
}

/** The answer of either query; null if it is neither. */
export function decodeResults(body: unknown): Results | null {
  const root = object(body);
  const each = Array.isArray(root.hits) ? root.hits : root.neighbours;
  if (!Array.isArray(each)) return null;
  const seen = new Set<string>();
  const found = each.map((value, index): Found => {
    const hit = object(value);
    return {
      post: decodePost(hit.post, index),
      highlights: list(hit.highlights).map(text).map(pieces).filter((line) => line.length > 0),
      similarity: number(hit.similarity),
    };
  });
  return {
    store: text(root.store),
    total: Array.isArray(root.hits) ? count(root.total) : null,
    found: found.filter(({ post }) => !seen.has(post.uid) && seen.add(post.uid)),
  };
}
