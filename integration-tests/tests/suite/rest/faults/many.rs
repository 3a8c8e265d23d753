//! Many runs at once: each ends with its own rows.

use std::sync::Mutex;
use std::time::Instant;

use integration_tests::rest::Highwater;
use serde_json::{Value, json};

use super::super::{counts, totals};

const RUNS: usize = 200;
const CLIENTS: usize = 16;

#[test]
fn runs_that_many_clients_submit_at_once_all_finish_with_their_rows() {
    let server = Highwater::configured(&json!({"max-active-runs": RUNS}));
    let begun = Instant::now();
    let next = Mutex::new(0..RUNS);
    let runs: Vec<(usize, Value)> = std::thread::scope(|scope| {
        let client = || {
            let mut runs = Vec::new();
            while let Some(number) = { next.lock().expect("nothing panics while it holds the range").next() } {
                let view = format!("many_view_{number}");
                // Each has one more bid than the others', so that no rows pass for another's.
                let sql = totals(&server, &view);
                let own = format!("{}{{\"auction\":9,\"price\":{number}}}\n", super::super::BIDS);
                server.file(&format!("{view}.jsonl"), own);
                let body = json!({"name": format!("many_{number}"), "sql": sql});
                runs.push((number, server.post("/api/v1/jobs", &body).expect(201).json()["run"].clone()));
            }
            runs
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    });
    let submitted = begun.elapsed();
    assert_eq!(runs.len(), RUNS);
    for (number, run) in &runs {
        assert_eq!(server.wait_for_end(run)["state"], "finished", "{run}");
        let mut rows: Vec<(i64, i64)> = server
            .rows(&format!("many_view_{number}"))
            .iter()
            .map(|row| (row["auction"].as_i64().unwrap(), row["total"].as_i64().unwrap()))
            .collect();
        rows.sort_unstable();
        assert_eq!(rows, [(1, 60), (2, 400), (3, 5), (9, *number as i64)]);
    }
    eprintln!("{RUNS} runs: submitted after {submitted:?}, ended after {:?}", begun.elapsed());
}

/// The limit holds also for those who ask at the same moment.
#[test]
fn no_more_runs_than_the_server_allows_are_started_by_clients_that_ask_at_once() {
    let server = Highwater::configured(&json!({"max-active-runs": 4}));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let server = &server;
            move || {
                let body = json!({"name": format!("crowd_{number}"), "sql": counts(&format!("crowd_view_{number}"))});
                server.post("/api/v1/jobs", &body).send().status
            }
        };
        let clients: Vec<_> = (0..16).map(|number| scope.spawn(client(number))).collect();
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    });
    let accepted = statuses.iter().filter(|status| **status == 201).count();
    assert!(statuses.iter().all(|status| [201, 429].contains(status)), "{statuses:?}");
    assert_eq!(accepted, 4, "{statuses:?}");
    // The server's end takes along those that have said who they are.
    for run in server.get("/api/v1/runs").expect(200).json()["items"].as_array().unwrap() {
        server.wait_until_running(run);
    }
}
