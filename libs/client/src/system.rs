//! The server itself.

use api::{Health, Version};
use reqwest::Method;

use crate::{Client, Result};

impl Client {
    pub async fn livez(&self) -> Result<Health> {
        self.json(self.request(Method::GET, &["livez"])).await
    }

    pub async fn readyz(&self) -> Result<Health> {
        self.json(self.request(Method::GET, &["readyz"])).await
    }

    pub async fn version(&self) -> Result<Version> {
        self.json(self.request(Method::GET, &["version"])).await
    }
}
