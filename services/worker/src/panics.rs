//! What a panic says and does: one line, without a trace, and the end of the process.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::time::Duration;

use engine::{Fault, RunError};

use crate::EXIT_INTERNAL;

/// How long a process whose connection to a peer broke waits to be ended by the leader, which knows which process was lost.
const PEER_LOSS_PATIENCE: Duration = Duration::from_secs(2);

/// What a failed run fails with: workers that meet a broken connection panic. The engine names the lost process instead; where it has
/// heard of none, the connection itself has broken.
pub fn cause(error: RunError) -> RunError {
    if error.fault != Fault::Internal || !error.message.contains("MergeQueue") {
        return error;
    }
    tracing::debug!("{error}");
    let lost = RunError::external(
        "process_lost",
        "a process of the run has ended unexpectedly, or the connection to it broke",
    );
    lost.hint("look for a message of that process above, and for memory that ran out")
}

/// From now on a panic prints one line, and ends the process with [`EXIT_INTERNAL`]; with three exceptions. One in [`answering`] ends
/// what is answered. A worker thread's panic is caught
/// by the engine and becomes the cause of the run's end. timely's communication panics when a peer is gone, also at the end of a
/// run that went well; the leader learns of a lost process, and says so, by itself. A further process (`taking_part`) that nobody ends
/// for it ends itself.
pub fn report_panics(taking_part: bool) {
    report_panics_with(taking_part, |_| {});
}

/// As [`report_panics`]; before the process ends, `last` gets what is said.
pub fn report_panics_with(taking_part: bool, last: impl Fn(&str) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        if ANSWERING.get() {
            return say(&message(panic));
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let communicates =
            |panic: &PanicHookInfo| panic.location().is_some_and(|at| at.file().contains("timely_communication"));
        if name.starts_with("timely:send") || name.starts_with("timely:recv") || communicates(panic) {
            tracing::debug!("{name}: {}", message(panic));
            if taking_part {
                // Should the thread not start, the leader's order or its end is still awaited.
                let _ = std::thread::Builder::new().spawn(|| {
                    std::thread::sleep(PEER_LOSS_PATIENCE);
                    say("a connection between the processes of the run broke");
                    std::process::exit(EXIT_INTERNAL.into());
                });
            }
            return;
        }
        let message = message(panic);
        say(&message);
        if !name.starts_with("timely:work") {
            last(&message);
            std::process::exit(EXIT_INTERNAL.into());
        }
    }));
}

thread_local! {
    /// The thread makes an answer for somebody who looks at the run.
    static ANSWERING: Cell<bool> = const { Cell::new(false) };
}

/// Does what an answer needs: a panic in it prints its line, and ends the answer, not the process. To be called on a thread that whoever
/// waits for the answer joins, or whose channel they see close.
pub fn answering<T>(answer: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            ANSWERING.set(false);
        }
    }
    ANSWERING.set(true);
    let _restore = Restore;
    answer()
}

fn message(panic: &PanicHookInfo) -> String {
    let text = panic.payload_as_str().unwrap_or("no reason given").replace('\n', " ");
    let text = text.strip_prefix("internal error: ").unwrap_or(&text);
    match panic.location() {
        Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
        None => text.to_string(),
    }
}

fn say(text: &str) {
    if crate::log::is_lines() {
        tracing::error!("internal error: {text}");
        return;
    }
    let mut stderr = std::io::stderr().lock();
    // Over a progress bar, if there is one.
    let clear = if stderr.is_terminal() { "\r\x1b[K" } else { "" };
    // There is nobody to tell that nobody can be told.
    let _ = writeln!(stderr, "{clear}highwater: internal error: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_an_answer_ends_the_answer_only() {
        let before = std::panic::take_hook();
        report_panics(false);
        let answered = std::thread::spawn(|| answering(|| panic!("on purpose"))).join();
        std::panic::set_hook(before);
        assert!(answered.is_err());
        assert!(!ANSWERING.get());
    }

    #[test]
    fn a_worker_that_met_a_broken_connection_is_no_bug() {
        let met = cause(RunError::internal("a worker stopped: MergeQueue poisoned."));
        assert_eq!((met.fault, met.code.as_str()), (Fault::External, "process_lost"));
        let bug = RunError::internal("a worker stopped: oh");
        assert_eq!(cause(bug.clone()), bug);
        let data = RunError::user("bad_record", "line 7");
        assert_eq!(cause(data.clone()), data);
    }
}
