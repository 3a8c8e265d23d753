//! `highwater tables`: tables that every script may use.

use super::arguments::{SureArguments, TablesArguments, TablesVerb};
use super::failure::{Done, Failure};
use super::listing::{Listing, Row, left, print_record, time};
use super::{connect, done, sure};
use crate::output::say;
use crate::script;

pub async fn tables(arguments: &TablesArguments) -> Done {
    let client = connect(&arguments.server)?;
    let form = arguments.form.form;
    match &arguments.verb {
        None | Some(TablesVerb::List) => list(&client).await?.print(form),
        Some(TablesVerb::Get { name }) => {
            let table = client.table(name).await?;
            let fields = vec![
                (left("name"), table.name.clone()),
                (left("connector"), table.connector.clone()),
                (left("columns"), columns(&table.columns)),
                (left("created"), time(table.created_at)),
                (left("sql"), table.sql.clone()),
            ];
            print_record(fields, &table, &table.name, form)
        }
        Some(TablesVerb::Create { file }) => {
            let source = script::read(file)?;
            let table = client.create_table(&source.text).await.map_err(|error| Failure::about(error, &source))?;
            let fields = vec![(left("name"), table.name.clone()), (left("columns"), columns(&table.columns))];
            print_record(fields, &table, &table.name, form)
        }
        Some(TablesVerb::Delete { name, sure: SureArguments { yes } }) => {
            sure(*yes, &format!("deleting table '{name}'"))?;
            client.delete_table(name).await?;
            say(&format!("deleted table '{name}'\n"));
            done()
        }
    }
}

/// A column per line, as SQL writes it.
pub fn columns(columns: &[api::ColumnFacts]) -> String {
    let column = |column: &api::ColumnFacts| {
        format!("{} {}{}", column.name, column.data_type, if column.nullable { "" } else { " NOT NULL" })
    };
    columns.iter().map(column).collect::<Vec<_>>().join("\n")
}

pub async fn list(client: &client::Client) -> Result<Listing, Failure> {
    let tables = client.tables().await?;
    let row = |table: &api::Table| {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        Row::new(vec![table.name.clone(), table.connector.clone(), columns.join(", ")], table, &table.name)
    };
    Ok(Listing::new([left("name"), left("connector"), left("columns")], tables.iter().map(row)))
}
