//! A Kafka broker for a demonstration: `broker TOPIC PARTITIONS` makes the topic, prints `host:port`, and runs until SIGTERM or SIGINT.
#![allow(clippy::print_stdout)]

use std::io::Write;
use std::process::ExitCode;

use test_support::kafka::Kafka;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (topic, partitions) = match arguments.as_slice() {
        [topic, partitions] => match partitions.parse() {
            Ok(partitions) => (topic.clone(), partitions),
            Err(error) => {
                eprintln!("{partitions:?} is no number of partitions: {error}");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("usage: broker TOPIC PARTITIONS");
            return ExitCode::from(2);
        }
    };
    let started = tokio::task::spawn_blocking(move || {
        let kafka = Kafka::start();
        kafka.create(&topic, partitions, &[]);
        kafka
    });
    let Ok(kafka) = started.await else {
        return ExitCode::FAILURE;
    };
    println!("{}", kafka.servers());
    if std::io::stdout().flush().is_err() {
        return ExitCode::FAILURE;
    }
    let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match signal {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => eprintln!("cannot listen for signals: {error}"),
    }
    kafka.stop();
    ExitCode::SUCCESS
}
