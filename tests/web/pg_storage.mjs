// Shows pg_storage to PostGraphile, which leaves out whatever belongs to an extension and has no switch for it.
// Every other extension stays hidden.
import { TYPES, withPgClientFromPgService } from "postgraphile/@dataplan/pg";
import { makeIntrospectionQuery, parseIntrospectionResults } from "postgraphile/graphile-build-pg/pg-introspection";

export const PgStoragePlugin = {
  name: "PgStoragePlugin",
  version: "0.2.0",
  gather: {
    hooks: {
      async pgIntrospection_introspection(info, { introspection, serviceName }) {
        const service = info.resolvedPreset.pgServices.find(({ name }) => name === serviceName);
        const query = { text: makeIntrospectionQuery() };
        const { rows } = await withPgClientFromPgService(service, null, (client) => client.query(query));
        const catalog = JSON.parse(rows[0].introspection);
        const ours = catalog.extensions.find(({ extname }) => extname === "pg_storage")?._id;
        catalog.depends = catalog.depends.filter(({ deptype, refobjid }) => deptype !== "e" || refobjid !== ours);
        // In place, because PostGraphile has taken the lists out already.
        for (const [name, found] of Object.entries(parseIntrospectionResults(JSON.stringify(catalog)))) {
          if (Array.isArray(found)) introspection[name].splice(0, Infinity, ...found);
          else introspection[name] = found;
        }
      },
      // A column of the queue of deletions has this type, which PostGraphile does not know and would warn of.
      pgCodecs_findPgCodec(_info, event) {
        if (event.pgType.typname === "xid8") event.pgCodec ??= TYPES.text;
      },
    },
  },
};
