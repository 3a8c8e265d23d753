//! What the environment asks for, and how it is done.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::Injected;

pub static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    // A test that asks for what there is not would test nothing.
    let faults = parse(&text("HIGHWATER_FAULTS")).unwrap_or_else(|why| panic!("HIGHWATER_FAULTS: {why}"));
    let directory = std::env::var_os("HIGHWATER_FAULTS_DIR").map(PathBuf::from);
    let broken = text("HIGHWATER_BROKEN").split(',').map(|name| name.trim().to_owned()).collect();
    Plan { faults, directory, broken }
});

/// What happens at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `kill`: SIGKILL for this process.
    Kill,
    /// `stop`: SIGSTOP for this process, until somebody continues it.
    Stop,
    /// `error`: the step fails and was not done.
    Error,
    /// `lost_reply`: the step is done, and whoever asked for it does not hear of that.
    LostReply,
    /// `delay:500`: milliseconds.
    Delay(Duration),
}

pub struct Plan {
    faults: Vec<Fault>,
    /// Where faults leave a file, to happen once.
    directory: Option<PathBuf>,
    broken: Vec<String>,
}

#[derive(Debug)]
struct Fault {
    /// As it was asked for.
    text: String,
    point: String,
    action: Action,
    occurrence: u64,
    seen: AtomicU64,
}

impl Plan {
    /// What happens at this point, this time.
    pub fn meet(&self, point: &str) -> Option<Action> {
        let mut action = None;
        for fault in self.faults.iter().filter(|fault| fault.point == point) {
            let is_it = fault.seen.fetch_add(1, Ordering::Relaxed) + 1 == fault.occurrence;
            if is_it && self.is_first(&fault.text) {
                action = Some(fault.action.clone());
            }
        }
        action
    }

    pub fn is_broken(&self, what: &str) -> bool {
        self.broken.iter().any(|broken| broken == what)
    }

    fn is_first(&self, fault: &str) -> bool {
        let Some(directory) = &self.directory else { return true };
        let path = directory.join(fault);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                let noted = write!(file, "{}", std::process::id());
                noted.unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
                true
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => panic!("{} cannot be made: {error}", path.display()),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Fault>, String> {
    let faults = text.split(';').map(str::trim).filter(|fault| !fault.is_empty());
    faults.map(|fault| parse_one(fault).ok_or_else(|| format!("'{fault}' is not point=action@occurrence"))).collect()
}

fn parse_one(text: &str) -> Option<Fault> {
    let (point, rest) = text.split_once('=')?;
    let (action, occurrence) = rest.split_once('@')?;
    let action = match action.split_once(':') {
        Some(("delay", ms)) => Action::Delay(Duration::from_millis(ms.parse().ok()?)),
        Some(_) => return None,
        None => match action {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "error" => Action::Error,
            "lost_reply" => Action::LostReply,
            _ => return None,
        },
    };
    let occurrence = occurrence.parse().ok().filter(|occurrence| *occurrence > 0)?;
    Some(Fault { text: text.to_owned(), point: point.to_owned(), action, occurrence, seen: AtomicU64::new(0) })
}

/// What is no delay.
pub fn end(point: &'static str, action: &Action) -> Result<(), Injected> {
    let signal = match action {
        Action::Error => return Err(Injected { point, lost: false }),
        Action::LostReply => return Err(Injected { point, lost: true }),
        Action::Delay(_) => return Ok(()),
        Action::Kill => 9,
        Action::Stop => 19,
    };
    eprintln!("{point}: signal {signal}, as a test wants it");
    send(signal);
    Ok(())
}

/// Sends a signal to this process.
fn send(signal: i32) {
    unsafe extern "C" {
        fn kill(pid: i32, signal: i32) -> i32;
    }
    let pid = i32::try_from(std::process::id()).expect("the system numbers processes so");
    // SAFETY: a system call on plain numbers.
    let sent = unsafe { kill(pid, signal) };
    assert!(sent == 0, "a process may send signals to itself");
}

/// A wait that needs no runtime.
pub struct Delay {
    shared: Arc<Mutex<Waiting>>,
}

struct Waiting {
    over: bool,
    waker: Option<Waker>,
}

impl Delay {
    pub fn new(duration: Duration) -> Delay {
        let shared = Arc::new(Mutex::new(Waiting { over: false, waker: None }));
        let waited = shared.clone();
        std::thread::spawn(move || {
            std::thread::sleep(duration);
            let mut waiting = waited.lock().expect("nothing panics while it holds this");
            waiting.over = true;
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        });
        Delay { shared }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.shared.lock().expect("nothing panics while it holds this");
        if waiting.over {
            return Poll::Ready(());
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(text: &str, directory: Option<PathBuf>) -> Plan {
        Plan { faults: parse(text).unwrap(), directory, broken: vec!["a".into()] }
    }

    #[test]
    fn a_fault_happens_at_its_point_and_occurrence() {
        let plan = plan("a.b=kill@2; c=delay:50@1;c=lost_reply@3;", None);
        let met = ["a.b", "c", "a.b", "a.b", "c", "c", "d"].map(|point| plan.meet(point));
        let delay = Action::Delay(Duration::from_millis(50));
        assert_eq!(met, [None, Some(delay), Some(Action::Kill), None, None, Some(Action::LostReply), None]);
        assert!(plan.is_broken("a") && !plan.is_broken("b"));
    }

    #[test]
    fn with_a_directory_it_happens_once_over_all_processes() {
        let directory = std::env::temp_dir().join(format!("faults-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let met = || [(); 3].map(|()| plan("a=error@1", Some(directory.clone())).meet("a"));
        let (first, again) = (met(), met());
        let noted = std::fs::read_to_string(directory.join("a=error@1")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((first, again), ([Some(Action::Error), None, None], [None, None, None]));
        assert_eq!(noted, std::process::id().to_string());
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["a", "a=kill", "a=kill@0", "a=kill@x", "a=die@1", "a=delay@1", "a=delay:x@1", "a=kill:1@1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(" ; ").unwrap().is_empty());
    }

    #[test]
    fn a_delay_wakes_whoever_waits() {
        struct Thread(std::thread::Thread);
        impl std::task::Wake for Thread {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let began = std::time::Instant::now();
        let waker = Arc::new(Thread(std::thread::current())).into();
        let mut delay = Box::pin(Delay::new(Duration::from_millis(30)));
        while delay.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            std::thread::park();
        }
        assert!(began.elapsed() >= Duration::from_millis(30));
    }
}
