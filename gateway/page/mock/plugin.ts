/**
 * A gateway for `npm run dev`: the routes that the page calls, over synthetic data.
 *
 * GET /mock/scenario?name=busy|quiet|empty|waiting|down changes what the stream does, for every open page.
 */

import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connect, Plugin } from "vite";
import { METRICS, models, series, tags } from "./stored.ts";
import { mockScore, SCENARIOS, World } from "./world.ts";

export function mockGateway(): Plugin {
  const use = (middlewares: Connect.Server) => middlewares.use(gateway(new World()));
  return {
    name: "undertone-mock-gateway",
    configureServer: ({ middlewares }) => void use(middlewares),
    // `vite preview` shows the built files; it gets the same routes, and the headers that the real gateway sends.
    configurePreviewServer: ({ middlewares }) => {
      middlewares.use((_request, response, next) => {
        response.setHeader("content-security-policy", "default-src 'self'; base-uri 'none'; frame-ancestors 'none'");
        response.setHeader("x-content-type-options", "nosniff");
        next();
      });
      use(middlewares);
    },
  };
}

function gateway(world: World): Connect.NextHandleFunction {
  return (request, response, next) => {
    const url = new URL(request.url ?? "/", "http://localhost");
    const known = SCENARIOS.find((name) => name === url.searchParams.get("name"));
    if (url.pathname === "/mock/scenario" && known) {
      world.scenario = known;
      return json(response, 200, { scenario: known });
    }
    if (url.pathname === "/docs") {
      request.url = "/docs/";
      return next();
    }
    if (world.scenario === "down" && url.pathname.startsWith("/v1/")) {
      return problem(response, 503, "Unavailable", "the mock is down");
    }
    switch (url.pathname) {
      case "/v1/overview":
        return json(response, 200, world.overview());
      case "/v1/live":
        return live(world, request, response);
      case "/v1/score":
        return void score(request, response);
      case "/v1/dead/replay":
        return json(response, 200, { events: 12, refused: 1, dry_run: true });
      case "/v1/models":
        return json(response, 200, models());
      case "/v1/query/series":
        return json(response, 200, series(url.searchParams));
      case "/v1/query/tags":
        return json(response, 200, tags());
      case "/v1/query/search":
      case "/v1/query/similar":
        return problem(response, 404, "this server has no store for this", "the mock has none", "/problems/store-not-configured");
      case "/metrics":
        response.writeHead(200, { "content-type": "text/plain" });
        return void response.end(METRICS);
      case "/openapi.json":
        return json(response, 200, JSON.parse(readFileSync(new URL("./openapi.json", import.meta.url), "utf8")));
      default:
        return next();
    }
  };
}

function live(world: World, request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const send = () => {
    if (world.scenario === "down") response.destroy();
    else response.write(`event: overview\ndata: ${JSON.stringify(world.overview())}\n\n`);
  };
  send();
  const timer = setInterval(send, 1000);
  request.on("close", () => clearInterval(timer));
}

async function score(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = "";
  for await (const chunk of request) body += String(chunk);
  const { text } = JSON.parse(body) as { text?: unknown };
  if (typeof text !== "string" || text.trim() === "") {
    return problem(response, 422, "Text is empty", "text must hold at least one character that is not white space");
  }
  if (text.length > 20_000) {
    return problem(response, 413, "Text is too long", `text has ${text.length} characters; at most 20000 are taken`);
  }
  if (text === "busy") {
    response.setHeader("retry-after", "2");
    return problem(response, 429, "Queue is full", "every worker is busy and the queue holds no more texts");
  }
  setTimeout(() => json(response, 200, mockScore(text)), 20);
}

function json(response: ServerResponse, status: number, body: unknown, type = "application/json"): void {
  response.writeHead(status, { "content-type": type, "cache-control": "no-store" });
  response.end(JSON.stringify(body));
}

function problem(response: ServerResponse, status: number, title: string, detail: string, type = "about:blank"): void {
  json(response, status, { type, title, status, detail }, "application/problem+json");
}
