//! Views: what runs now and what stays, conditions, orders, forms, versions.

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};

use super::{counts, fresh, shared, totals};

#[test]
fn rows_come_as_they_are_asked_for() {
    let server = shared();
    let (name, view) = (fresh("asked"), fresh("asked"));
    let (_, run) = server.submit(&name, &totals(&server, &view));
    server.wait_for_end(&run);
    let path = format!("/api/v1/views/{view}");
    let about = server.get(&path).expect(200).json();
    assert_eq!((&about["key"], &about["job_name"]), (&json!(["auction"]), &json!(name)));
    assert_eq!(about["columns"][1]["name"], "total");
    let listed = server.get("/api/v1/views").expect(200).json();
    assert!(listed["items"].as_array().unwrap().contains(&about));

    let rows = |query: &str| server.get(&format!("{path}/rows{query}")).expect(200).json();
    let all = rows("");
    assert_eq!((&all["durable"], &all["total_rows"]), (&json!(true), &json!(3)), "{all}");
    let row = |auction: i64, total: i64| json!({"auction": auction, "total": total});
    assert_eq!(all["rows"], json!([row(1, 60), row(2, 400), row(3, 5)]), "in the order of the key");
    assert_eq!(rows("?filter=total%20%3E%2050")["rows"], json!([row(1, 60), row(2, 400)]));
    assert_eq!(rows("?filter=total%20%3E%2050%20AND%20auction%20%3C%202")["rows"], json!([row(1, 60)]));
    assert_eq!(rows("?order_by=total%20desc&limit=2")["rows"], json!([row(2, 400), row(1, 60)]));
    assert_eq!(rows("?order_by=total&offset=1&limit=1")["rows"], json!([row(1, 60)]));
    assert_eq!(rows("?column=total")["rows"], json!([{"total": 60}, {"total": 400}, {"total": 5}]));
    assert_eq!(rows("?filter=false")["rows"], json!([]));
    assert_eq!(rows("?filter=false")["total_rows"], 3);
    assert_eq!(rows("?consistency=durable")["version"], all["version"]);
    for wrong in [
        "?column=totl",
        "?order_by=totl",
        "?filter=totl%20%3E%201",
        "?filter=total%20%3E",
        "?filter=1",
        "?filter=total%20IN%20(SELECT%201)",
        "?filter=SUM(total)%20%3E%201",
        "?consistency=eventual",
        "?limit=0",
    ] {
        let problem = server.get(&format!("{path}/rows{wrong}")).refused(422, "validation_failed");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }

    let etag = format!("\"{}\"", all["version"].as_str().unwrap());
    let same = server.get(&format!("{path}/rows")).header("if-none-match", &etag).expect(304);
    assert_eq!(same.header("etag"), Some(format!("W/{etag}").as_str()));
    server.get(&format!("{path}/rows")).header("if-none-match", "\"other\"").expect(200);

    let csv = server.get(&format!("{path}/rows?order_by=total")).header("accept", "text/csv").expect(200);
    assert_eq!(csv.text(), "auction,total\n3,5\n1,60\n2,400\n");
    assert_eq!(csv.header("highwater-durable"), Some("true"));
    let stream =
        server.get(&format!("{path}/rows")).header("accept", "application/vnd.apache.arrow.stream").expect(200);
    let reader = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(stream.body), None).unwrap();
    assert_eq!(reader.schema().field(1).name(), "total");
    let totals: Vec<i64> =
        reader.flat_map(|batch| batch.unwrap().column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(totals, [60, 400, 5]);
    server.get(&format!("{path}/rows")).header("accept", "image/png").refused(406, "not_acceptable");
    server.get(&format!("{path}/rows")).header("accept", "application/json;q=0.1, text/csv").expect(200);
}

#[test]
fn a_running_job_shows_its_newest_epoch_and_publishes_at_its_end() {
    let server = shared();
    let view = fresh("newest");
    let (_, run) = server.submit(&fresh("newest"), &counts(&view));
    server.wait_until_running(&run);
    let path = format!("/api/v1/views/{view}/rows");
    let sum =
        |answer: &Value| answer["rows"].as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).sum::<i64>();
    let deadline = Instant::now() + Duration::from_secs(60);
    let first = loop {
        let answer = server.get(&path).send();
        if answer.status == 200 && sum(&answer.json()) > 0 {
            break answer;
        }
        assert!(Instant::now() < deadline, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(first.json()["durable"], false, "latest is what a running job shows unless something else is asked for");
    server.get(&format!("{path}?consistency=durable")).refused(404, "no_rows_yet");
    assert_eq!(first.json()["rows"].as_array().unwrap().len() as u64, first.json()["total_rows"].as_u64().unwrap());
    assert!(first.json()["watermark"].is_string(), "{}", first.text());

    // Later epochs have more rows; the tag of the first is out of date.
    let deadline = Instant::now() + Duration::from_secs(60);
    let etag = first.header("etag").unwrap().to_string();
    let second = loop {
        let answer = server.get(&path).header("if-none-match", &etag).send();
        if answer.status == 200 {
            break answer.json();
        }
        assert_eq!(answer.status, 304);
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(sum(&second) > sum(&first.json()));
    // Filter, order and forms as of what stays.
    let top = server.get(&format!("{path}?filter=k%20%3C%203&order_by=k%20desc&column=k")).expect(200).json();
    assert_eq!(top["rows"], json!([{"k": 2}, {"k": 1}, {"k": 0}]));
    assert!(server.get(&path).header("accept", "text/csv").expect(200).text().starts_with("k,n\n"));
    server.get(&format!("{path}?filter=x")).refused(422, "validation_failed");

    server.post(&format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap()), &json!({"mode": "drain"})).expect(202);
    assert_eq!(server.wait_for_end(&run)["state"], "finished");
    let last = server.get(&format!("{path}?consistency=durable")).expect(200).json();
    assert!(last["durable"] == true && sum(&last) >= sum(&second));
}

#[test]
fn a_view_goes_with_its_job() {
    let server = shared();
    let view = fresh("gone");
    let (job, run) = server.submit(&fresh("gone"), &totals(&server, &view));
    server.wait_for_end(&run);
    assert_eq!(server.rows(&view).len(), 3);
    server.delete(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())).header("if-match", "*").expect(204);
    server.get(&format!("/api/v1/views/{view}")).refused(404, "view_not_found");
    server.get(&format!("/api/v1/views/{view}/rows")).refused(404, "view_not_found");
    assert!(!server.data().join("views").join(job["id"].as_str().unwrap()).exists());
    // Another job may have the name, and shows nothing of the old rows.
    let (_, run) = server.submit(&fresh("gone"), &totals(&server, &view));
    assert_eq!(server.wait_for_end(&run)["state"], "finished");
    assert_eq!(server.rows(&view).len(), 3);
}

#[test]
fn a_name_that_passes_to_another_job_takes_no_rows_along() {
    let server = shared();
    let (view, other) = (fresh("passed"), fresh("passed"));
    let (job, run) = server.submit(&fresh("first"), &totals(&server, &view));
    server.wait_for_end(&run);
    assert_eq!(server.rows(&view).len(), 3);
    let known = server.get(&format!("/api/v1/views/{view}/rows")).expect(200).header("etag").unwrap().to_string();

    // The first job gives the name up and a second one takes it: it has published nothing.
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    server.put(&path, &json!({"sql": totals(&server, &other)})).header("if-match", "*").expect(200);
    let second = json!({"name": fresh("second"), "sql": totals(&server, &view), "start": false});
    let second = server.post("/api/v1/jobs", &second).expect(201).json()["job"].clone();
    server.get(&format!("/api/v1/views/{view}/rows")).refused(404, "no_rows_yet");
    let query = json!({"sql": format!("SELECT * FROM `{view}`")});
    server.post("/api/v1/sql/query", &query).refused(404, "no_rows_yet");

    // Its first version is not the one that was known of the other job.
    let runs = format!("/api/v1/jobs/{}/runs", second["id"].as_str().unwrap());
    let run = server.post(&runs, &json!({})).expect(202).json();
    server.wait_for_end(&run);
    server.get(&format!("/api/v1/views/{view}/rows")).header("if-none-match", &known).expect(200);
}

#[test]
fn what_a_view_without_a_key_removes_is_told_before_and_after() {
    let server = shared();
    let (name, view) = (fresh("removes"), fresh("removes"));
    let script = |rows: u64, options: &str| {
        format!(
            "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '{rows}', 'fields.n.kind' = 'sequence');
             CREATE TABLE {view} (n BIGINT) WITH ('connector' = 'view'{options});
             INSERT INTO {view} SELECT n FROM s;"
        )
    };
    let warnings = |sql: String| {
        let found = server.post("/api/v1/graphs/validate", &json!({"sql": sql})).expect(200).json();
        assert_eq!(found["valid"], true, "{found}");
        found["warnings"].clone()
    };
    for (rows, options) in [(100_000, ""), (200_000, ", 'retention.rows' = '200000'")] {
        assert_eq!(warnings(script(rows, options)), json!([]), "{rows}{options}");
    }
    let warned = warnings(script(100_500, ""));
    assert_eq!((&warned[0]["code"], &warned[0]["line"]), (&json!("view_keeps_last_rows"), &json!(3)), "{warned}");
    assert!(warned[0]["message"].as_str().unwrap().contains("keeps the last 100000 rows"), "{warned}");

    let created = server.post("/api/v1/jobs", &json!({"name": name, "sql": script(100_500, "")})).expect(201).json();
    assert_eq!(created["warnings"], warned);
    let run = server.wait_for_end(&created["run"]);
    assert_eq!(run["state"], "finished", "{run}");
    let said = &run["warnings"][0];
    assert_eq!(
        (&said["code"], &said["view"], &said["count"], run["warnings"].as_array().unwrap().len()),
        (&json!("view_rows_removed"), &json!(view), &json!(500), 1),
        "{run}"
    );
    let path = format!("/api/v1/views/{view}/rows?limit=1");
    let rows = server.get(&path).expect(200);
    assert_eq!((&rows.json()["removed_rows"], &rows.json()["total_rows"]), (&json!(500), &json!(100_000)));
    assert_eq!(rows.header("highwater-removed-rows"), Some("500"));

    // A job with all of its rows has nothing to tell.
    let (_, run) = server
        .submit(&fresh("removes"), &script(100_500, ", 'retention.rows' = '200000'").replace(&view, &fresh("all")));
    assert_eq!(server.wait_for_end(&run)["warnings"], json!([]));
}

#[test]
fn a_running_job_tells_what_its_view_has_removed() {
    let (server, view) = (shared(), fresh("newest"));
    let script = format!(
        "SET 'epoch.interval' = '100ms';
         CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'fields.n.kind' = 'sequence');
         CREATE TABLE {view} (n BIGINT) WITH ('connector' = 'view', 'retention.rows' = '10');
         INSERT INTO {view} SELECT n FROM s;"
    );
    let created = server.post("/api/v1/jobs", &json!({"name": fresh("newest"), "sql": script})).expect(201).json();
    assert_eq!(created["warnings"], json!([]), "a stream is not expected to be kept whole");
    let run =
        server.wait_for_run(&created["run"], "rows are removed", |run| run["warnings"][0]["count"].as_u64() > Some(0));
    assert_eq!((&run["state"], &run["warnings"][0]["view"]), (&json!("running"), &json!(view)), "{run}");
    let rows = server.get(&format!("/api/v1/views/{view}/rows")).expect(200).json();
    assert!(rows["removed_rows"].as_u64() > Some(0) && rows["durable"] == false, "{rows}");
    server.post(&format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap()), &json!({"mode": "now"})).expect(202);
    // Also of a run that was broken off it is known.
    let ended = server.wait_for_end(&run);
    assert!(ended["state"] == "cancelled" && ended["warnings"][0]["count"].as_u64() > Some(0), "{ended}");
}
