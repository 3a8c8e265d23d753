//! Rule 4: the final watermark is a value, and the last epoch is named. Capabilities that vanish are a failure of the run, never its end.

use std::cell::RefCell;
use std::rc::Rc;

use timely::dataflow::Scope;
use timely::scheduling::activate::Activator;
use timely::worker::Worker;
use tokio::sync::mpsc::unbounded_channel;

use super::driver::tests::{Recorder, rows};
use super::driver::{self, Context, Port};
use super::messages::{Cut, FromWorker};
use super::metrics::Metrics;
use super::time::{Time, WM_FINAL, WM_MIN};
use super::worker_state::WorkerState;
use crate::plan::Route;
use crate::sink::CommitKind;

/// Two sources moved by hand into one operator. Returns what the operator was asked (an `end` would be committed, the final watermark
/// would close all windows), and with what the run failed.
fn play(
    moves: impl Fn(&mut [Port], &WorkerState, &mut dyn FnMut()) + Send + Sync + 'static,
) -> (Vec<String>, Option<String>) {
    timely::execute_directly(move |worker: &mut Worker| {
        let (leader, mut messages) = unbounded_channel();
        let state = Rc::new(WorkerState::new(0, 1, None, 1, 0, leader));
        let asked = Rc::new(RefCell::new(Vec::new()));
        let (mut ports, mut activators): (Vec<Port>, Vec<Activator>) = (Vec::new(), Vec::new());
        let metrics = Metrics::new(1, 1).subtask(0, 0);
        worker.dataflow_core("test", None, Box::new(()), |_, scope: Scope<'_, Time>| {
            let mut edges = Vec::new();
            for _ in 0..2 {
                let (edge, _) =
                    driver::source_operator(scope, "source", false, Time::new(1, WM_MIN), |granted, activator, _| {
                        ports.push(granted.main);
                        activators.push(activator);
                        || {}
                    });
                edges.push((edge, Route::Local));
            }
            let context = Context { name: "test".into(), stage: 0, metrics, state: state.clone() };
            let (end, _) = driver::operator(scope, context, edges, false, 1, Box::new(Recorder(asked.clone())));
            driver::probe(scope, state.clone(), 1, vec![end]);
        });
        let mut step = || {
            for _ in 0..20 {
                activators.iter().for_each(Activator::activate);
                worker.step();
            }
        };
        moves(&mut ports, &state, &mut step);
        step();
        drop(ports);
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        let mut failure = None;
        while let Ok(message) = messages.try_recv() {
            match message {
                FromWorker::Failed(error) => failure = Some(error.message),
                FromWorker::Passed { epoch, .. } => asked.borrow_mut().push(format!("passed {}", epoch as i64)),
                _ => {}
            }
        }
        (asked.take(), failure)
    })
}

fn cut(state: &WorkerState, epoch: u64, last: bool) {
    state.cut(&Cut { epoch, kind: CommitKind { checkpoint: last, last }, now_us: 0, floor: 0 });
}

const CAUSE: &str = "the input ended before the leader named the last epoch";

#[test]
fn sources_that_vanish_before_any_cut_fail_the_run() {
    let (asked, failure) = play(|ports, _, step| {
        ports[0].send(rows(3));
        step();
        ports.iter_mut().for_each(Port::close);
    });
    assert_eq!(asked, [format!("3 rows at {WM_MIN}")], "no window closes and no epoch ends");
    assert_eq!(failure.as_deref(), Some(CAUSE));
}

#[test]
fn sources_that_vanish_behind_a_cut_fail_the_run_in_the_next_epoch() {
    let (asked, failure) = play(|ports, state, step| {
        ports[0].send(rows(3));
        cut(state, 1, false);
        ports[0].downgrade(Time::new(2, 10));
        ports[1].downgrade(Time::new(2, 20));
        ports[0].send(rows(3));
        ports.iter_mut().for_each(Port::close);
        step();
    });
    // The vanished sources no longer say how far their time had come: the closing watermark of epoch 1 is not known here.
    assert!(!asked.iter().any(|asked| asked == "end 2" || asked.starts_with("passed -")), "{asked:?}");
    assert_eq!(failure.as_deref(), Some(CAUSE));
}

#[test]
fn one_source_that_vanishes_leaves_the_epoch_to_the_other_and_then_fails_the_run() {
    let (asked, failure) = play(|ports, _, step| {
        ports[0].close();
        step();
        ports[1].downgrade(Time::new(1, 30));
        step();
        ports[1].close();
    });
    assert_eq!(asked, ["watermark 30"]);
    assert_eq!(failure.as_deref(), Some(CAUSE));
}

#[test]
fn sources_that_close_after_the_last_cut_end_the_run() {
    let (asked, failure) = play(|ports, state, step| {
        ports[0].send(rows(3));
        ports.iter_mut().for_each(|port| port.downgrade(Time::new(1, WM_FINAL)));
        step();
        cut(state, 1, true);
        ports.iter_mut().for_each(Port::close);
    });
    let last = format!("watermark {WM_FINAL}");
    assert_eq!(asked, [format!("3 rows at {WM_MIN}"), last, "end 1".into(), "passed -1".into()]);
    assert_eq!(failure, None);
}
