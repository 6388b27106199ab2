// A site for the tests: the GraphQL API of graphile.config.mjs at /graphql, and its pages, all on one origin.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { postgraphile } from "postgraphile";
import { grafserv } from "postgraphile/grafserv/node";
import preset from "./graphile.config.mjs";

const types = {
  "/": ["page.html", "text/html"],
  "/form": ["ways.html", "text/html"],
  "/parts": ["ways.html", "text/html"],
  "/page.js": ["page.js", "text/javascript"],
  "/ways.js": ["ways.js", "text/javascript"],
};
const api = postgraphile(preset).createServ(grafserv).createHandler();

const server = createServer((request, response) =>
  api(request, response, () => {
    const [file, type] = types[request.url] ?? [];
    response.writeHead(file ? 200 : 404, { "content-type": `${type ?? "text/plain"}; charset=utf-8` });
    response.end(file && readFileSync(new URL(file, import.meta.url)));
  }),
);
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
