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
