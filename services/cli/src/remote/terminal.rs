//! What needs a terminal: questions, secrets that are not shown, single keys.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::fd::AsRawFd;

use super::failure::Failure;
use crate::output::{self, say};

/// Whether someone can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks on stderr; `None` at the end of the input.
pub fn ask(question: &str) -> Option<String> {
    say(question);
    let _ = std::io::stderr().flush();
    line().ok().flatten()
}

/// A line of stdin without its end.
pub fn line() -> std::io::Result<Option<String>> {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_string()))
}

/// Asks for something that is not to be seen; without a terminal the next line of stdin. `None` at its end.
///
/// # Errors
/// [`Failure::Interrupted`] after Ctrl-C, and [`Failure::Wrong`] if stdin cannot be read.
pub fn secret(question: &str) -> Result<Option<String>, Failure> {
    let unreadable = |error: std::io::Error| Failure::Wrong(format!("cannot read stdin: {error}"));
    // Where the question goes does not matter: what is typed would be echoed all the same.
    if !std::io::stdin().is_terminal() {
        return line().map_err(unreadable);
    }
    say(question);
    // Signals would end or stop the program before the terminal echoes again.
    let quiet = Mode::of_stdin(libc::ECHO | libc::ISIG);
    let mut typed = Vec::new();
    let mut last = None;
    for byte in std::io::stdin().lock().bytes() {
        let byte = byte.map_err(unreadable)?;
        last = Some(byte);
        match byte {
            b'\n' | INTERRUPT => break,
            byte => typed.push(byte),
        }
    }
    drop(quiet);
    say("\n");
    match last {
        Some(INTERRUPT) => Err(Failure::Interrupted),
        Some(_) => Ok(Some(String::from_utf8_lossy(&typed).into_owned())),
        None => Ok(None),
    }
}

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// A terminal mode that lasts until this is dropped.
pub struct Mode {
    before: libc::termios,
}

impl Mode {
    /// Stdin without some of its local flags; `None` if that is no terminal.
    pub fn of_stdin(without: libc::tcflag_t) -> Option<Mode> {
        let descriptor = std::io::stdin().as_raw_fd();
        // SAFETY: termios is plain data, and the call fills all of it or fails.
        let mut mode: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open as long as the program runs, the pointer is of a local value.
        if unsafe { libc::tcgetattr(descriptor, &raw mut mode) } != 0 {
            return None;
        }
        let before = mode;
        mode.c_lflag &= !without;
        if without & libc::ISIG != 0 {
            // Whoever reads lines gets it at once, and not with the next Enter.
            mode.c_cc[libc::VEOL] = INTERRUPT;
        }
        // SAFETY: as above; the value was filled by tcgetattr.
        (unsafe { libc::tcsetattr(descriptor, libc::TCSANOW, &raw const mode) } == 0).then_some(Mode { before })
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // SAFETY: the value is what tcgetattr has given. If it fails, the terminal is gone.
        unsafe { libc::tcsetattr(std::io::stdin().as_raw_fd(), libc::TCSANOW, &raw const self.before) };
    }
}

/// Gives the terminal at stdout the size that it is taken to have, if it has none: the line editor asks for it by itself.
pub fn have_size() {
    let (Some((0, _) | (_, 0)), Some((columns, lines))) = (output::own_size(), output::terminal_size()) else { return };
    let size = libc::winsize { ws_row: lines as u16, ws_col: columns as u16, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is of a local value of the type that the request wants. If it fails, lines look worse.
    unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCSWINSZ, &raw const size) };
}
