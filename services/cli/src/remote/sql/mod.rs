//! `highwater sql`: bounded queries over tables and views, from an argument, a file, or a shell.

mod complete;
pub mod rows;
mod session;
mod shell;
mod statements;

use std::io::IsTerminal;
use std::path::Path;

use super::arguments::SqlArguments;
use super::failure::Done;
use super::{connect, done};
use crate::problems::Source;
use crate::script;
use session::{Session, interruptible};

pub async fn sql(arguments: &SqlArguments) -> Done {
    let client = connect(&arguments.server)?;
    let session = Session::new(client, arguments.output, arguments.timeout);
    let source = match (&arguments.execute, &arguments.file) {
        (Some(sql), _) => Source::new("-e", sql.clone()),
        (None, Some(file)) => script::read(file)?,
        (None, None) if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => {
            return shell::shell(session).await;
        }
        (None, None) => script::read(Path::new("-"))?,
    };
    interruptible(session.script(&source)).await?;
    done()
}
