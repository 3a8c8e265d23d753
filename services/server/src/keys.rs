//! API keys as resources: made, listed and revoked in one way, over REST and by the command line beside the store.

use api::{ApiKey, CreateKey, CreatedKey, IdKind};
use metadata::MetadataStore;
use serde_json::json;
use uuid::Uuid;

use crate::auth::{Caller, new_key, role, role_name};
use crate::problem::{ApiError, ApiResult};
use crate::time::now;

fn shown(key: &metadata::ApiKey) -> ApiKey {
    ApiKey {
        id: IdKind::Key.text(key.key_id),
        name: key.name.clone(),
        role: role(&key.role).expect("the store has known roles only"),
        created_at: key.created_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
    }
}

pub async fn list(store: &dyn MetadataStore) -> ApiResult<Vec<ApiKey>> {
    Ok(store.keys().await?.iter().map(shown).collect())
}

/// The answer is the only place where the key itself ever is.
///
/// # Errors
/// `validation_failed` for a name without 1 to 128 characters, `name_taken`.
pub async fn create(store: &dyn MetadataStore, caller: &Caller, wanted: CreateKey) -> ApiResult<CreatedKey> {
    if !(1..=128).contains(&wanted.name.chars().count()) {
        return Err(ApiError::new("validation_failed", "the name of a key has 1 to 128 characters"));
    }
    let (secret, hash) = new_key();
    let key = metadata::ApiKey {
        key_id: Uuid::now_v7(),
        name: wanted.name,
        role: role_name(wanted.role).into(),
        hash,
        created_at: now(),
        expires_at: wanted.expires_at,
        revoked_at: None,
    };
    let object = IdKind::Key.text(key.key_id);
    let change = caller.change("key.create", &object, json!({"name": key.name, "role": key.role}));
    store.create_key(&key, &change).await?;
    Ok(CreatedKey { key: shown(&key), secret })
}

/// # Errors
/// `invalid_id`, `key_not_found`.
pub async fn revoke(store: &dyn MetadataStore, caller: &Caller, key: &str) -> ApiResult<ApiKey> {
    let key_id = crate::rest::parse_id(IdKind::Key, key)?;
    let change = caller.change("key.revoke", key, json!({}));
    Ok(shown(&store.revoke_key(key_id, now(), &change).await?))
}
