//! Money moves between accounts and none comes or goes: the balances of all accounts have the sum 0 at every read of a view and after every
//! commit in a topic, while the processes of the run and its server are killed. A view or a commit that mixes two cuts of the input, or
//! shows half of a transfer, shows another sum.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use integration_tests::rest::{Highwater, PATIENCE, is_active};
use serde_json::Value;
use test_support::kafka;
use test_support::process::send;

use super::chaos::{Random, number};

const ACCOUNTS: u64 = 20;
const TRANSFERS: u64 = 8_000;
/// Transfers of a second.
const RATE: u64 = 2_000;

/// More are waited for longer and longer.
const KILLS: u64 = 8;

struct Transfer {
    from: u64,
    to: u64,
    amount: i64,
}

fn transfers(random: &mut Random) -> Vec<Transfer> {
    let transfer = |_| {
        let from = random.below(ACCOUNTS);
        let to = (from + 1 + random.below(ACCOUNTS - 1)) % ACCOUNTS;
        Transfer { from, to, amount: random.below(1_000) as i64 }
    };
    (0..TRANSFERS).map(transfer).collect()
}

fn input(transfers: &[Transfer]) -> String {
    let line = |(n, Transfer { from, to, amount }): (usize, &Transfer)| {
        let ms = n as u64 * 1_000 / RATE;
        let time = format!("2020-09-13 12:00:{:02}.{:03}", ms / 1000, ms % 1000);
        format!("{{\"from\":{from},\"to\":{to},\"amount\":{amount},\"ts\":\"{time}\"}}\n")
    };
    transfers.iter().enumerate().map(line).collect()
}

fn script(path: &str, topic: &str) -> String {
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '150ms'; SET 'restart.delay' = '10ms';
         SET 'restart.attempts' = '50'; SET 'process.heartbeat-timeout' = '2s'; SET 'parallelism' = '2';
         CREATE TABLE transfers (`from` BIGINT, `to` BIGINT, amount BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'replay', 'path' = '{path}', 'format' = 'json', 'replay.speed' = '1', 'replay.splits' = '2');
         CREATE TABLE balances (account BIGINT, balance BIGINT, PRIMARY KEY (account) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE topic (account BIGINT, balance BIGINT, PRIMARY KEY (account) NOT ENFORCED)
           WITH ('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'delivery' = 'exactly_once',
                 'properties.bootstrap.servers' = '{}');
         CREATE VIEW moves AS
           SELECT `from` AS account, 0 - amount AS change FROM transfers UNION ALL SELECT `to`, amount FROM transfers;
         INSERT INTO balances SELECT account, SUM(change) FROM moves GROUP BY account;
         INSERT INTO topic SELECT account, SUM(change) FROM moves GROUP BY account;",
        kafka::shared().servers()
    )
}

type Balances = BTreeMap<u64, i64>;

fn balances(rows: &[Value]) -> Balances {
    let one = |row: &Value| Some((row["account"].as_u64()?, row["balance"].as_i64()?));
    rows.iter().map(|row| one(row).unwrap_or_else(|| panic!("no balance: {row}"))).collect()
}

/// Fails unless no money has come or gone.
fn none_is_lost(balances: &Balances, what: &str) {
    assert_eq!(balances.values().sum::<i64>(), 0, "{what}: {balances:?}");
}

/// Reads a view as it is now, and as it is for good; false if nobody could be asked.
fn read(server: &Highwater, what: &str) -> bool {
    ["latest", "durable"].iter().all(|consistency| {
        let path = format!("/api/v1/views/balances/rows?limit=1000&consistency={consistency}");
        let Ok(answer) = server.get(&path).try_send() else { return false };
        if answer.status != 200 {
            // There is none yet, or its process is gone.
            return false;
        }
        let answer = answer.json();
        none_is_lost(&balances(answer["rows"].as_array().unwrap()), &format!("{what}, {consistency}: {answer}"));
        true
    })
}

#[test]
fn no_money_comes_or_goes() {
    let seed = number("HIGHWATER_CHAOS_SEED", 1);
    let mut random = Random(seed);
    let topic = kafka::shared().topic("balances", 1);
    let transfers = transfers(&mut random);
    let mut server = Highwater::start();
    let path = server.file("transfers.jsonl", input(&transfers));
    let (_, run) = server.submit("bank", &script(&path, &topic));
    let path = format!("/api/v1/runs/{}", run["id"].as_str().unwrap());
    let (deadline, mut reads, mut kills) = (Instant::now() + PATIENCE, 0, 0);
    let mut next = Instant::now() + Duration::from_millis(900);
    let what = format!("seed {seed}");
    loop {
        assert!(Instant::now() < deadline, "{what}: the run does not end: {}", server.log());
        reads += u64::from(read(&server, &what));
        let run = server.get(&path).expect(200).json();
        if !is_active(&run) {
            assert_eq!(run["state"], "finished", "{what}: {run}");
            break;
        }
        if kills < KILLS
            && Instant::now() > next
            && let Some(process) = server.process_of_any(&run)
        {
            next = Instant::now() + Duration::from_millis(200 + random.below(900));
            kills += 1;
            match random.below(4) {
                0 => {
                    server.kill();
                    server.begin();
                }
                _ => send(process, 9),
            }
        }
    }
    let what = format!("{what}, {kills} kills, {reads} reads");
    assert!(reads > 20 && kills > 2, "{what}");
    let mut expected: Balances = (0..ACCOUNTS).map(|account| (account, 0)).collect();
    for Transfer { from, to, amount } in &transfers {
        *expected.entry(*from).or_default() -= amount;
        *expected.entry(*to).or_default() += amount;
    }
    assert_eq!(balances(&server.rows("balances")), expected, "{what}: the view");
    // The end of a transaction takes an offset: behind each gap and at the end all transactions before are whole.
    let (mut last, mut commits) = (Balances::new(), 0);
    let records = kafka::shared().records(&topic);
    for (at, record) in records.iter().enumerate() {
        let row: Value = serde_json::from_str(record.value.as_ref().unwrap()).unwrap();
        last.extend(balances(&[row]));
        if records.get(at + 1).is_none_or(|next| next.offset > record.offset + 1) {
            commits += 1;
            none_is_lost(&last, &format!("{what}: the topic at offset {}", record.offset));
        }
    }
    assert!(commits > 5, "{what}: {commits} commits");
    assert_eq!(last, expected, "{what}: the topic");
    eprintln!("{what}, {commits} commits: the sum was 0");
}
