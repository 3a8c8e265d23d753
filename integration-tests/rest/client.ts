// A client generated from the document, as a stranger would use it: submits a bounded job, waits for its end, reads its view, meets errors.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Problem = components["schemas"]["Problem"];
type Run = components["schemas"]["Run"];

declare const process: { argv: string[] };

const [, , baseUrl, sql, name, view] = process.argv as [string, string, string, string, string, string];
const client = createClient<paths>({ baseUrl });

function check(holds: boolean, message: string): asserts holds {
  if (!holds) throw new Error(message);
}

function good<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.data === undefined) throw new Error(`${answer.error?.code}: ${answer.error?.detail}`);
  return answer.data;
}

const created = good(await client.POST("/api/v1/jobs", {
  params: { header: { "idempotency-key": name } },
  body: { name, sql, start: true, labels: { by: "typescript" } },
}));
check(created.run !== undefined && created.run !== null, "a run was started");
let run: Run = created.run;
while (run.state !== "finished") {
  check(!["failed", "cancelled", "stopped"].includes(run.state), `the run is ${run.state}: ${run.failure?.code}`);
  run = good(await client.GET("/api/v1/runs/{run}", { params: { path: { run: run.id }, query: { wait: "10s" } } }));
}
const rows = good(await client.GET("/api/v1/views/{view}/rows", {
  params: { path: { view }, query: { order_by: ["total desc"], limit: 2 } },
}));
check(typeof rows === "object", "JSON is what is given unless something else is asked for");
check(JSON.stringify(rows.rows) === '[{"auction":2,"total":400},{"auction":1,"total":60}]', JSON.stringify(rows.rows));

// The graph is typed: variants are told apart by their tag.
for (const node of created.job.definition.graph.nodes) {
  if (node.type === "source") {
    const table: string = node.table;
    check(table === "bids", table);
    if (node.connector.type === "filesystem") check(node.connector.path.endsWith(".jsonl"), node.connector.path);
  }
}

const taken = await client.POST("/api/v1/jobs", { body: { name, sql, start: false } });
check(taken.error !== undefined && taken.response.status === 409, "the name is taken");
const problem: Problem = taken.error;
check(problem.code === "name_taken", problem.code);

const wrong = await client.POST("/api/v1/jobs", { body: { name: `${name}-2`, sql: "SELEC", start: true } });
check(wrong.error !== undefined, "it is no SQL");
check(wrong.error.errors?.[0]?.line === 1, JSON.stringify(wrong.error));
console.log("ok");
