//! `highwater whoami`.

use super::arguments::WhoamiArguments;
use super::failure::Done;
use super::{connect, listing};

pub async fn whoami(arguments: &WhoamiArguments) -> Done {
    let client = connect(&arguments.server)?;
    let who = client.whoami().await?;
    let fields =
        vec![("principal", who.principal.clone()), ("role", client::name(&who.role)), ("server", client.url().into())];
    listing::print_record(fields, &who, &who.principal, arguments.form.form)
}
