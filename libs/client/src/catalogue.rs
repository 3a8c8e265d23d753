//! Connectors, connections and tables.

use api::{
    Connection, ConnectionTest, Connections, Connector, Connectors, CreateConnection, CreateTable, ReplaceConnection,
    Table, Tables,
};
use reqwest::Method;

use crate::send::Repeat;
use crate::{Client, Result};

impl Client {
    pub async fn connectors(&self) -> Result<Vec<Connector>> {
        Ok(self.json::<Connectors>(self.get(&["connectors"])).await?.items)
    }

    pub async fn connections(&self) -> Result<Vec<Connection>> {
        Ok(self.json::<Connections>(self.get(&["connections"])).await?.items)
    }

    pub async fn connection(&self, name: &str) -> Result<Connection> {
        self.json(self.get(&["connections", name])).await
    }

    pub async fn create_connection(&self, connection: &CreateConnection) -> Result<Connection> {
        self.json(self.create(&["connections"]).body(connection)).await
    }

    /// All options and secrets, whatever they are now.
    pub async fn replace_connection(&self, name: &str, connection: &ReplaceConnection) -> Result<Connection> {
        self.json(self.change(Method::PUT, &["connections", name]).if_match("*").body(connection)).await
    }

    pub async fn delete_connection(&self, name: &str) -> Result<()> {
        self.done(self.change(Method::DELETE, &["connections", name]).if_match("*")).await
    }

    /// How far a connection leads, step by step.
    pub async fn test_connection(&self, name: &str) -> Result<ConnectionTest> {
        self.json(self.change(Method::POST, &["connections", name, "test"]).repeat(Repeat::Safe)).await
    }

    pub async fn tables(&self) -> Result<Vec<Table>> {
        Ok(self.json::<Tables>(self.get(&["tables"])).await?.items)
    }

    pub async fn table(&self, name: &str) -> Result<Table> {
        self.json(self.get(&["tables", name])).await
    }

    /// From one `CREATE TABLE` statement.
    pub async fn create_table(&self, sql: &str) -> Result<Table> {
        self.json(self.create(&["tables"]).body(&CreateTable { sql: sql.to_string() })).await
    }

    pub async fn delete_table(&self, name: &str) -> Result<()> {
        self.done(self.change(Method::DELETE, &["tables", name]).if_match("*")).await
    }
}
