//! How the tests run the program.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration_tests::program::{self, Finished};

/// A run of a test takes milliseconds; this is for machines that are busy with something else.
pub const LIMIT: Duration = Duration::from_secs(120);

/// `highwater ARGUMENTS` in `folder`, which is also the only place whose files it may read (next to temporary ones).
pub fn highwater<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
    program::finish(command(folder).args(arguments), LIMIT)
}

pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(program::path());
    command.current_dir(folder).env_remove("HIGHWATER_ALLOWED_ROOTS").env("NO_COLOR", "1");
    command
}
