//! `highwater run`: a script or graph from its first row to its exit code.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use connectors::{OnPrint, PrintedRows};
use engine::runtime::{Outcome, Progress, RunRequest, Verb};
use engine::{Fault, RunError};
use miette::Severity;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::arguments::{Answer, RunArguments};
use crate::output::{answer, say, unwritable};
use crate::printing::{PrintError, Printer, printed};
use crate::progress::Bar;
use crate::roots::Roots;
use crate::script::{Refused, Script};
use crate::summary::{State, Summary, cpu_time};
use crate::{Exit, answers, output, problems};

pub fn run(arguments: &RunArguments, verbose: u8) -> Exit {
    let script = match Script::read(&arguments.script) {
        Ok(script) => script,
        Err(refused) => {
            refused.show();
            return if matches!(refused, Refused::Nothing { .. }) { Exit::Done } else { Exit::Invalid };
        }
    };
    if !arguments.quiet {
        problems::show(&script.warnings(), Severity::Warning, &script.source);
    }
    if script.explain {
        return answer(answers::explanation(&script).as_bytes());
    }
    let roots = match Roots::of(&arguments.roots).and_then(|roots| script.check(&roots).map(|()| roots)) {
        Ok(roots) => roots,
        Err(refused) => {
            refused.show();
            return Exit::Invalid;
        }
    };
    if !arguments.quiet {
        roots.warn();
    }
    let bar = Arc::new(Bar::new(&script.plan, !arguments.quiet && !arguments.no_progress));
    let write = {
        let bar = bar.clone();
        Box::new(move |bytes: &[u8]| bar.without(|| output::write(bytes)))
    };
    let printer = match Printer::new(printed(&script.plan), arguments.output, script.plan.bounded, write) {
        Ok(printer) => Arc::new(printer),
        Err(error) => {
            say(&format!("error: {error}\n"));
            return Exit::Invalid;
        }
    };
    let runtime = match worker::io_runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("error: cannot start threads: {error}\n"));
            return Exit::Failed;
        }
    };
    let running = Running { script: &script, arguments, verbose, bar, printer };
    let exit = runtime.block_on(running.to_its_end(roots.directories));
    // What is still there waits for something that no longer matters.
    runtime.shutdown_background();
    exit
}

struct Running<'a> {
    script: &'a Script,
    arguments: &'a RunArguments,
    verbose: u8,
    bar: Arc<Bar>,
    printer: Arc<Printer>,
}

impl Running<'_> {
    async fn to_its_end(&self, allowed_roots: Vec<PathBuf>) -> Exit {
        let began = Instant::now();
        let (verb, obeyed) = watch::channel(Verb::Run);
        let verb = Arc::new(verb);
        let (progress, mut seen) = watch::channel(Progress::default());
        let unprintable = Arc::new(Mutex::new(None));
        let attempt = worker::Attempt {
            request: RunRequest {
                run_id: uuid::Uuid::now_v7().to_string(),
                generation: 1,
                graph: self.script.graph.clone(),
                settings: self.script.settings.clone(),
                start: Default::default(),
                restore: Vec::new(),
                first_epoch: 1,
                stop_after: None,
            },
            access: worker::Access::own(allowed_roots),
            on_print: self.on_print(verb.clone(), unprintable.clone()),
            process_arguments: process_arguments(self.verbose),
            views: None,
            children: worker::Children::default(),
            verb: obeyed,
            progress,
            checkpoints: None,
            asked: None,
        };
        let signals =
            signal(SignalKind::interrupt()).and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
        let (mut interrupt, mut terminate) = match signals {
            Ok(signals) => signals,
            Err(error) => {
                say(&format!("error: cannot listen for signals: {error}\n"));
                return Exit::Failed;
            }
        };
        let mut attempt = std::pin::pin!(worker::run_attempt(attempt));
        let mut interrupted = false;
        let result = loop {
            tokio::select! {
                result = &mut attempt => break result,
                Some(()) = interrupt.recv() => self.interrupt(&mut interrupted, &verb),
                Some(()) = terminate.recv() => self.interrupt(&mut interrupted, &verb),
                Ok(()) = seen.changed() => self.bar.show(&seen.borrow_and_update()),
            }
        };
        self.bar.clear();
        let unprintable = unprintable.lock().expect("nothing panics while it holds the error").take();
        let last = seen.borrow().clone();
        self.report(result, interrupted, unprintable, &last, began.elapsed())
    }

    /// The first time the run ends in order, the second time the program at once. Its processes then end with it.
    fn interrupt(&self, interrupted: &mut bool, verb: &watch::Sender<Verb>) {
        if std::mem::replace(interrupted, true) {
            self.bar.clear();
            std::process::exit(Exit::Interrupted as i32);
        }
        let (order, what) = match self.script.plan.bounded {
            true => (Verb::Cancel, "cancelling"),
            false => (Verb::Stop, "stopping after the current epoch"),
        };
        verb.send_replace(order);
        if !self.arguments.quiet {
            self.bar.without(|| say(&format!("{what}; once more to end at once\n")));
        }
    }

    /// Prints what is committed; the first failure ends the run.
    fn on_print(&self, verb: Arc<watch::Sender<Verb>>, unprintable: Arc<Mutex<Option<PrintError>>>) -> OnPrint {
        let printer = self.printer.clone();
        let bounded = self.script.plan.bounded;
        Arc::new(move |rows: PrintedRows| {
            // A slow reader of stdout must hold up this sink only, not the other tasks of its thread.
            if let Err(error) = tokio::task::block_in_place(|| printer.take(rows)) {
                // What other sinks have got is worth keeping when only the reader has had enough.
                verb.send_replace(if error.is_closed() && !bounded { Verb::Stop } else { Verb::Cancel });
                *unprintable.lock().expect("nothing panics while it holds the error") = Some(error);
            }
        })
    }

    fn report(
        &self,
        result: Result<Outcome, RunError>,
        interrupted: bool,
        mut unprintable: Option<PrintError>,
        last: &Progress,
        elapsed: Duration,
    ) -> Exit {
        if result.is_ok() && unprintable.is_none() {
            unprintable = self.printer.finish(std::io::stdout().is_terminal()).err();
        }
        let (state, exit) = match (&result, &unprintable) {
            (Err(error), None) if interrupted && error.code == "cancelled" => {
                self.say("interrupted: nothing was published\n");
                (State::Cancelled, Exit::Interrupted)
            }
            (Err(error), None) => {
                let place = error.operator.as_deref().and_then(|id| self.script.place(id));
                say(&self.script.source.secrets.hide(&problems::run_error(error, place.as_deref())));
                (State::Failed, if error.fault == Fault::Internal { Exit::Internal } else { Exit::Failed })
            }
            (Ok(outcome), Some(error)) if error.is_closed() => {
                (if outcome.finished { State::Finished } else { State::Stopped }, Exit::Done)
            }
            (Err(_), Some(error)) if error.is_closed() => (State::Cancelled, Exit::Done),
            (_, Some(PrintError::Output(error))) => (State::Failed, unwritable(error)),
            (_, Some(error)) => {
                say(&format!("error[output_failed]: {error}\n"));
                (State::Failed, Exit::Failed)
            }
            (Ok(outcome), None) if outcome.finished => {
                if interrupted {
                    self.say("too late to cancel: everything is published\n");
                }
                (State::Finished, Exit::Done)
            }
            (Ok(outcome), None) => {
                self.say(&format!(
                    "stopped: everything up to epoch {} is committed, open windows are not\n",
                    outcome.epoch
                ));
                (State::Stopped, if interrupted { Exit::Interrupted } else { Exit::Done })
            }
        };
        let (counts, epochs) = match &result {
            Ok(outcome) => (&outcome.counts, outcome.epoch),
            Err(_) => (&last.counts, last.committed),
        };
        let summary = Summary::new(state, &self.script.plan, counts, epochs, elapsed, cpu_time());
        match self.arguments.summary {
            Answer::Json => say(&summary.json()),
            Answer::Text if state != State::Failed => self.say(&summary.text()),
            Answer::Text => {}
        }
        exit
    }

    fn say(&self, text: &str) {
        if !self.arguments.quiet {
            say(text);
        }
    }
}

/// Arguments that make this program take part in a run.
fn process_arguments(verbose: u8) -> Vec<String> {
    let mut arguments = vec!["job-process".to_string()];
    arguments.extend((0..verbose.min(2)).map(|_| "-v".to_string()));
    arguments
}
