//! Keys and the audit log.

use api::{ApiKey, ApiKeys, AuditPage, CreateKey, CreatedKey, Whoami};
use reqwest::Method;

use crate::send::Repeat;
use crate::{Client, Result};

impl Client {
    pub async fn whoami(&self) -> Result<Whoami> {
        self.json(self.get(&["whoami"])).await
    }

    pub async fn keys(&self) -> Result<Vec<ApiKey>> {
        Ok(self.json::<ApiKeys>(self.get(&["keys"])).await?.items)
    }

    /// The answer is the only one that shows the key. Sent once: if the answer is lost, the key may be there; revoke it and make another.
    pub async fn create_key(&self, key: &CreateKey) -> Result<CreatedKey> {
        self.json(self.change(Method::POST, &["keys"]).repeat(Repeat::Never).body(key)).await
    }

    pub async fn revoke_key(&self, key: &str) -> Result<ApiKey> {
        self.json(self.change(Method::DELETE, &["keys", key]).repeat(Repeat::Safe)).await
    }

    /// Changes and denials, oldest first, page by page.
    pub async fn audit_page(&self, size: u32, token: Option<&str>) -> Result<AuditPage> {
        let request = self.get(&["audit"]).parameter("page_size", size.to_string());
        self.json(request.optional("page_token", token)).await
    }
}
