//! The standard streams: what may go there, and what it means when it does not arrive.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};

use crate::Exit;

/// Writes to stdout, all of it.
///
/// # Errors
/// Also where the program was started without a stdout: the runtime then opens /dev/null in its place, and every row would be lost in
/// silence.
pub fn write(bytes: &[u8]) -> io::Result<()> {
    if started::without_stdout() && !bytes.is_empty() {
        return Err(io::Error::other("it is closed"));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes the answer of a command, and ends it.
pub fn answer(bytes: &[u8]) -> Exit {
    match write(bytes) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => unwritable(&error),
    }
}

/// Looks at stdout before the runtime of the language does, which replaces it if it is closed.
#[cfg(target_os = "linux")]
mod started {
    use std::sync::atomic::{AtomicBool, Ordering};

    static CLOSED: AtomicBool = AtomicBool::new(false);

    // SAFETY: the functions of this section are called once each before main, without arguments that matter.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static LOOK: extern "C" fn() = look;

    extern "C" fn look() {
        // SAFETY: asks for the flags of a descriptor, which may be one that is not open.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        CLOSED.store(flags == -1, Ordering::Relaxed);
    }

    pub fn without_stdout() -> bool {
        CLOSED.load(Ordering::Relaxed)
    }
}

#[cfg(not(target_os = "linux"))]
mod started {
    pub fn without_stdout() -> bool {
        false
    }
}

/// Says that stdout does not take what it is given.
pub fn unwritable(error: &io::Error) -> Exit {
    say(&format!("error[output_failed]: cannot write to stdout: {error}\n"));
    Exit::Failed
}

/// Says something on stderr. If that is impossible, the exit code has to do.
pub fn say(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Columns and lines of the terminal at stdout. One that says 0 was never told its size, and is taken to be as terminals once were.
pub fn terminal_size() -> Option<(usize, usize)> {
    let or = |given: u16, otherwise: usize| if given == 0 { otherwise } else { given.into() };
    own_size().map(|(columns, lines)| (or(columns, 80), or(lines, 24)))
}

/// Columns and lines as the terminal at stdout says them.
pub fn own_size() -> Option<(u16, u16)> {
    // SAFETY: winsize is plain data, and the call fills all of it or fails.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is of a local value of the type that the request wants.
    let got = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (got == 0).then_some((size.ws_col, size.ws_row))
}

/// An empty table; `terminal`: it is to fit into the width of the terminal at stdout.
pub fn table(terminal: bool) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    let arrangement = if terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    if let (true, Some((columns, _))) = (terminal, terminal_size()) {
        table.set_width(u16::try_from(columns).unwrap_or(u16::MAX));
    }
    table
}

/// Whether stderr shows colours.
pub fn colours() -> bool {
    io::stderr().is_terminal() && !colourless()
}

/// Whether the user wants no colours.
pub fn colourless() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// One column per character, and nothing that moves the cursor, changes colours or the reading direction: texts from data and scripts
/// must not write to the terminal on their own.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_active(c) => shown.push('\u{fffd}'),
            c => shown.push(c),
        }
    }
    shown
}

/// Whether a character does something rather than show something.
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_move_the_cursor() {
        assert_eq!(visible("a\tb\nc\x1b[2Jd\u{202e}e é 漢"), "a\\tb\\nc\u{fffd}[2Jd\u{fffd}e é 漢");
    }
}
