import { PgSimplifyInflectionPreset } from "@graphile/simplify-inflection";
import jwt from "jsonwebtoken";
import { makePgService } from "postgraphile/adaptors/pg";
import { defaultMaskError } from "postgraphile/grafserv";
import { GraphQLError } from "postgraphile/graphql";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { PgStoragePlugin } from "./pg_storage.mjs";

const { DATABASE_URL, JWT_SECRET, ANONYMOUS_ROLE = "anonymous" } = process.env;

// Who calls: what a token says that we signed, else nobody in particular.
function pgSettings(authorization) {
  if (!authorization) return { role: ANONYMOUS_ROLE };
  const { sub, tenant_id = "", role } = verified(authorization.replace(/^Bearer /, ""));
  if (!sub || !role) throw new GraphQLError("the token is not valid");
  return { role, "jwt.claims.user_id": String(sub), "jwt.claims.tenant_id": String(tenant_id) };
}

function verified(token) {
  try {
    return jwt.verify(token, JWT_SECRET, { algorithms: ["HS256"] });
  } catch {
    throw new GraphQLError("the token is not valid");
  }
}

// Errors of pg_storage read "TOKEN: what is wrong" and are meant for the client; all others stay masked.
function maskError(error) {
  const { message, code, detail, hint } = error.originalError ?? {};
  const token = /^([A-Z][A-Z0-9_]*): /.exec(message)?.[1];
  if (!token || !code) return defaultMaskError(error);
  const { nodes, source, positions, path } = error;
  return new GraphQLError(message, { nodes, source, positions, path, extensions: { code: token, sqlstate: code, detail, hint } });
}

export default {
  extends: [PostGraphileAmberPreset, PgSimplifyInflectionPreset],
  plugins: [PgStoragePlugin],
  pgServices: [makePgService({ connectionString: DATABASE_URL, schemas: ["storage"] })],
  grafast: { context: ({ node }) => ({ pgSettings: pgSettings(node?.req.headers.authorization) }) },
  grafserv: { maskError, graphiql: false },
};
