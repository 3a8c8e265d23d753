//! Connections between the processes of an attempt: the control connection, and the rendezvous for the data connections.
//!
//! Every process listens and dials the lower indexes. Both sides show (run, generation, index, token) and hang up on a mismatch, so a
//! process of an earlier attempt, or a stranger, never gets in. Only then the sockets are handed to timely.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::error::{Result, RunError};

/// Who a process says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub run_id: String,
    pub generation: u64,
    pub index: usize,
    /// A secret of the attempt, given to its processes when they are started.
    pub token: String,
}

impl Identity {
    /// Whether both belong to the same attempt.
    pub fn same_attempt(&self, other: &Identity) -> bool {
        self.run_id == other.run_id && self.generation == other.generation && self.token == other.token
    }
}

const LINE_BYTES_MAX: usize = 4096;

/// Connects this process with all others; blocking. `addresses` are those of all processes by index. Returns a socket per other process.
/// Gives up after `patience`, and soon after `halt` was set.
pub fn rendezvous(
    me: &Identity,
    listener: &TcpListener,
    addresses: &[SocketAddr],
    patience: Duration,
    halt: &AtomicBool,
) -> Result<Vec<Option<TcpStream>>> {
    let deadline = Instant::now() + patience;
    let mut sockets: Vec<Option<TcpStream>> = addresses.iter().map(|_| None).collect();
    for (index, address) in addresses.iter().enumerate().take(me.index) {
        sockets[index] = Some(dial(me, index, *address, deadline)?);
    }
    listener.set_nonblocking(true).map_err(|error| failed("listen for peers", &error))?;
    while sockets.iter().skip(me.index + 1).any(Option::is_none) {
        match listener.accept() {
            Ok((socket, _)) => {
                // A stranger is not answered and does not end the wait.
                if let Some((index, socket)) = welcome(me, socket, addresses.len())
                    && index > me.index
                    && sockets[index].is_none()
                {
                    sockets[index] = Some(socket);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline || halt.load(Relaxed) {
                    let missing =
                        sockets.iter().skip(me.index + 1).position(Option::is_none).map_or(0, |at| at + me.index + 1);
                    return Err(RunError::external(
                        "process_lost",
                        format!("process {missing} did not connect within {patience:?}"),
                    ));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(failed("accept a peer", &error)),
        }
    }
    Ok(sockets)
}

fn dial(me: &Identity, index: usize, address: SocketAddr, deadline: Instant) -> Result<TcpStream> {
    let patience = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let attempt = || -> std::io::Result<TcpStream> {
        let mut socket = TcpStream::connect_timeout(&address, patience)?;
        prepare(&socket, Some(patience))?;
        socket.write_all(&line(me))?;
        let answer: Identity = read_line(&mut socket)?;
        if !answer.same_attempt(me) || answer.index != index {
            return Err(std::io::Error::other("it belongs to another attempt"));
        }
        prepare(&socket, None)?;
        Ok(socket)
    };
    attempt().map_err(|error| failed(&format!("connect to process {index}"), &error))
}

/// Checks who has connected; `None` closes the connection.
fn welcome(me: &Identity, mut socket: TcpStream, processes: usize) -> Option<(usize, TcpStream)> {
    socket.set_nonblocking(false).ok()?;
    prepare(&socket, Some(Duration::from_secs(2))).ok()?;
    let peer: Identity = read_line(&mut socket).ok()?;
    if !peer.same_attempt(me) || peer.index >= processes {
        tracing::warn!(index = peer.index, "refused a connection of another attempt");
        return None;
    }
    socket.write_all(&line(me)).ok()?;
    prepare(&socket, None).ok()?;
    Some((peer.index, socket))
}

fn prepare(socket: &TcpStream, timeout: Option<Duration>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(timeout)?;
    socket.set_write_timeout(timeout)
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("messages have only text keys");
    bytes.push(b'\n');
    bytes
}

/// Byte by byte: what follows the line belongs to timely.
fn read_line<T: DeserializeOwned>(socket: &mut TcpStream) -> std::io::Result<T> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        socket.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return serde_json::from_slice(&bytes).map_err(std::io::Error::other);
        }
        bytes.push(byte[0]);
        if bytes.len() > LINE_BYTES_MAX {
            return Err(std::io::Error::other("the greeting is too long"));
        }
    }
}

fn failed(what: &str, error: &std::io::Error) -> RunError {
    RunError::external("process_lost", format!("could not {what}: {error}"))
}

/// The sending half of a control connection: one JSON document per line.
pub struct ControlWriter {
    pub socket: OwnedWriteHalf,
}

impl ControlWriter {
    pub async fn send<T: Serialize>(&mut self, message: &T) -> std::io::Result<()> {
        self.socket.write_all(&line(message)).await
    }
}

/// The receiving half of a control connection.
pub struct ControlReader {
    socket: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl ControlReader {
    pub fn new(socket: OwnedReadHalf) -> ControlReader {
        ControlReader { socket: BufReader::new(socket), line: Vec::new() }
    }

    /// The next message; `None` when the other side has closed or speaks nonsense. Safe to drop while it waits.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        // What was read of a line before a wait was given up is kept.
        match self.socket.read_until(b'\n', &mut self.line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                let message = serde_json::from_slice(&self.line).ok();
                self.line.clear();
                message
            }
        }
    }

    /// The next message, if it comes within `patience`.
    pub async fn next_within<T: DeserializeOwned>(&mut self, patience: Duration) -> Heard<T> {
        // Who listens may have been stopped: what was said meanwhile is there to be read, but the clock has run out already.
        for patience in [patience, 2 * HEARTBEAT] {
            match tokio::time::timeout(patience, self.next()).await {
                Ok(Some(message)) => return Heard::Message(message),
                Ok(None) => return Heard::Closed,
                Err(_) => {}
            }
        }
        Heard::Silence
    }
}

/// How often both sides of a control connection say that they are there.
pub const HEARTBEAT: Duration = Duration::from_millis(200);

/// What came of listening for a while.
pub enum Heard<T> {
    Message(T),
    /// The other side has closed or speaks nonsense.
    Closed,
    Silence,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(index: usize, generation: u64) -> Identity {
        Identity { run_id: "run".into(), generation, index, token: "secret".into() }
    }

    #[test]
    fn processes_of_one_attempt_meet_and_others_are_refused() {
        let listeners: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let addresses: Vec<SocketAddr> = listeners.iter().map(|l| l.local_addr().expect("bound")).collect();
        let patience = Duration::from_secs(5);
        let zombie = dial(&identity(2, 6), 0, addresses[0], Instant::now() + Duration::from_millis(10));
        assert!(zombie.is_err(), "nobody accepts yet, and an old generation is never answered");
        let threads: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(index, listener)| {
                let addresses = addresses.clone();
                std::thread::spawn(move || {
                    rendezvous(&identity(index, 7), &listener, &addresses, patience, &AtomicBool::new(false))
                })
            })
            .collect();
        for (index, thread) in threads.into_iter().enumerate() {
            let sockets = thread.join().expect("no panic").expect("connected");
            let connected: Vec<bool> = sockets.iter().map(Option::is_some).collect();
            assert_eq!(connected, (0..3).map(|other| other != index).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_missing_process_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let meet = |patience, halt| rendezvous(&identity(0, 1), &listener, &[address, address], patience, &halt);
        let error = meet(Duration::from_millis(50), AtomicBool::new(false)).expect_err("alone");
        assert!(error.message.contains("process 1 did not connect"), "{error}");
        let began = Instant::now();
        meet(Duration::from_secs(60), AtomicBool::new(true)).expect_err("halted");
        assert!(began.elapsed() < Duration::from_secs(10), "a halt ends the wait");
    }
}
