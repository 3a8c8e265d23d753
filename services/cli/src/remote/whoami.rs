//! `highwater whoami`.

use super::arguments::WhoamiArguments;
use super::connect;
use super::failure::Done;
use super::listing::{left, print_record};

pub async fn whoami(arguments: &WhoamiArguments) -> Done {
    let client = connect(&arguments.server)?;
    let who = client.whoami().await?;
    let fields = vec![
        (left("principal"), who.principal.clone()),
        (left("role"), client::name(&who.role)),
        (left("server"), client.url().into()),
    ];
    print_record(fields, &who, &who.principal, arguments.form.form)
}
