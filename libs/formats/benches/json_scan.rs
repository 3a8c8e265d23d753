//! How many JSON records does the scanner decode per CPU-second? (Bids of a Nexmark-like stream as JSON lines, one thread, batches of
//! 8,192 rows, input in memory; user + system time.)
//!
//! `cargo bench -p formats` measures; run in any other way (as a test), it only checks the row counts on a tiny input.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fmt::Write;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use formats::csv::{self, CsvOptions};
use formats::json::{JsonOptions, Scanner, Writer};
use formats::{RecordDecoder, RecordEncoder};

const BATCH_ROWS: usize = 8192;

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a `rusage`, of which all bit patterns are valid; the call fills it in.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    [usage.ru_utime, usage.ru_stime].iter().map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6).sum()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
    channel: String,
    url: String,
    time: String,
    extra: String,
}

fn bid(random: &mut Random, number: u64) -> Bid {
    let millis = number / 10;
    let channel = ["Google", "Apple", "Facebook", "Baidu", "channel-4711"][random.below(5) as usize];
    Bid {
        auction: 1000 + random.below(100_000),
        bidder: 1000 + random.below(1_000_000),
        price: 100 + random.below(100_000_000),
        channel: channel.into(),
        url: format!(
            "https://www.nexmark.com/{}/item.htm?query=1&channel_id={}",
            channel.to_lowercase(),
            random.below(10_000_000)
        ),
        time: format!(
            "2023-11-14 {:02}:{:02}:{:02}.{:03}",
            millis / 3_600_000 % 24,
            millis / 60_000 % 60,
            millis / 1000 % 60,
            millis % 1000
        ),
        extra: "lorem ipsum dolor sit amet consectetur"[..20 + random.below(18) as usize].into(),
    }
}

fn body(bid: &Bid) -> String {
    let Bid { auction, bidder, price, channel, url, time, extra } = bid;
    format!(
        r#""auction":{auction},"bidder":{bidder},"price":{price},"channel":"{channel}","url":"{url}","dateTime":"{time}","extra":"{extra}""#
    )
}

fn bids(count: u64) -> String {
    let mut random = Random(1);
    (0..count).fold(String::new(), |mut lines, number| {
        writeln!(lines, "{{{}}}", body(&bid(&mut random, number))).unwrap();
        lines
    })
}

fn events(count: u64) -> String {
    let mut random = Random(1);
    (0..count).fold(String::new(), |mut lines, number| {
        let bid = body(&bid(&mut random, number));
        let line = match number % 50 {
            0 => format!(r#"{{"event_type":0,"person":{{"id":{number},"name":"some name","city":"some city"}},"auction":null,"bid":null}}"#),
            1..4 => format!(r#"{{"event_type":1,"person":null,"auction":{{"id":{number},"item":"an item","tags":["a","b"]}},"bid":null}}"#),
            _ => format!(r#"{{"event_type":2,"person":null,"auction":null,"bid":{{{bid}}}}}"#),
        };
        writeln!(lines, "{line}").unwrap();
        lines
    })
}

fn csv_bids(count: u64) -> String {
    let mut random = Random(1);
    (0..count).fold(String::new(), |mut lines, number| {
        let Bid { auction, bidder, price, channel, url, time, extra } = bid(&mut random, number);
        writeln!(lines, "{auction},{bidder},{price},{channel},{url},{time},\"{extra}\"").unwrap();
        lines
    })
}

fn decode(decoder: &mut dyn RecordDecoder, text: &str) -> usize {
    let (mut position, mut rows) = (0, 0);
    decoder.begin_file();
    while position < text.len() {
        let progress = decoder.decode(&text.as_bytes()[position..], true, BATCH_ROWS).unwrap();
        assert!(progress.bad.is_empty(), "{:?}", progress.bad);
        position += progress.consumed;
        rows += black_box(decoder.flush()).batch.num_rows();
    }
    rows
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn main() {
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (count, runs) = if measured { (1_000_000, 5) } else { (1000, 1) };
    let time = || DataType::Timestamp(TimeUnit::Millisecond, None);
    let q0 = vec![
        field("auction", DataType::Int64),
        field("bidder", DataType::Int64),
        field("price", DataType::Int64),
        field("dateTime", time()),
        field("url", DataType::Utf8),
    ];
    let q2 = vec![field("auction", DataType::Int64), field("price", DataType::Int64)];
    let hop = vec![field("auction", DataType::Int64), field("dateTime", time())];
    let nested = vec![field("event_type", DataType::Int32), field("bid", DataType::Struct(Fields::from(q2.clone())))];
    let doubles = vec![field("auction", DataType::Int64), field("price", DataType::Float64)];
    let (bids, events, csv_bids) = (bids(count), events(count), csv_bids(count));
    let cases = [
        ("JSON: count (no column)", &bids, vec![]),
        ("JSON: q0 (5 columns, a long text)", &bids, q0.clone()),
        ("JSON: q2 (auction, price)", &bids, q2.clone()),
        ("JSON: hop (auction, dateTime)", &bids, hop),
        ("JSON: price as DOUBLE", &bids, doubles),
        ("JSON: nested (event_type, bid ROW)", &events, nested),
        ("CSV: q0", &csv_bids, q0.clone()),
        ("CSV: q2", &csv_bids, q2.clone()),
    ];
    // `cargo bench -p formats -- NAME` measures only what contains NAME.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for (name, text, fields) in cases {
        if !name.contains(&wanted) {
            continue;
        }
        let schema = Arc::new(Schema::new(fields));
        let mut decoder: Box<dyn RecordDecoder> = if name.starts_with("CSV") {
            let columns =
                ["auction", "bidder", "price", "channel", "url", "dateTime", "extra"].map(String::from).into();
            Box::new(csv::Reader::new(schema, CsvOptions { columns, ..CsvOptions::default() }).unwrap())
        } else {
            Box::new(Scanner::new(schema, JsonOptions::default()).unwrap())
        };
        let seconds = median_seconds(runs, || assert_eq!(decode(decoder.as_mut(), text), count as usize));
        report(measured, name, count, text.len(), seconds);
    }
    // How fast this machine is today: the same work by arrow-json, which knows its bad records only by batch.
    let schema = Arc::new(Schema::new(q2));
    let seconds = median_seconds(runs, || {
        let batches = ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS).build(bids.as_bytes()).unwrap();
        assert_eq!(batches.map(|batch| black_box(batch.unwrap()).num_rows()).sum::<usize>(), count as usize);
    });
    report(measured, "for comparison, arrow-json: q2", count, bids.len(), seconds);
    let schema = Arc::new(Schema::new(q0));
    let mut scanner = Scanner::new(schema.clone(), JsonOptions::default()).unwrap();
    scanner.decode(bids.as_bytes(), true, BATCH_ROWS).unwrap();
    let batch = scanner.flush().batch;
    let mut writer = Writer::new(schema, JsonOptions::default()).unwrap();
    let (mut out, mut written) = (Vec::new(), 0);
    let times = (count as usize / batch.num_rows()).max(1);
    let seconds = median_seconds(runs, || {
        written = 0;
        for _ in 0..times {
            out.clear();
            writer.encode(&batch, &mut out).unwrap();
            written += black_box(&out).len();
        }
    });
    report(measured, "JSON writer: q0", (times * batch.num_rows()) as u64, written, seconds);
}

fn median_seconds(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..runs)
        .map(|_| {
            let before = cpu_seconds();
            run();
            cpu_seconds() - before
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[runs / 2]
}

fn report(measured: bool, name: &str, records: u64, bytes: usize, seconds: f64) {
    if measured {
        println!(
            "{name}: {:.1} M records per CPU-second ({:.0} bytes each, {:.2} GB/s, {:.0} ns a record)",
            records as f64 / seconds / 1e6,
            bytes as f64 / records as f64,
            bytes as f64 / seconds / 1e9,
            seconds / records as f64 * 1e9
        );
    }
}
