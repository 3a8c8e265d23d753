//! API keys as resources: made, listed and revoked in one way, over REST and by the command line beside the store.

use api::{ApiKey, CreateKey, CreatedKey, IdKind, Role};
use chrono::{DateTime, Utc};
use metadata::MetadataStore;
use serde_json::json;
use tokio::sync::Mutex;
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

/// Refuses a key from now on, for someone who came with a key: not the last one that can make others, without which nobody gets in again
/// from outside of the machine.
///
/// # Errors
/// `invalid_id`, `key_not_found`, `last_admin_key`.
pub async fn revoke_another_than_last(store: &dyn MetadataStore, caller: &Caller, key: &str) -> ApiResult<ApiKey> {
    // Of two admins that revoke each other's key, the second finds what the first has left.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _alone = ONE_AT_A_TIME.lock().await;
    let key_id = crate::rest::parse_id(IdKind::Key, key)?;
    let (keys, at) = (store.keys().await?, now());
    if is_last_admin(&keys, key_id, at) {
        return Err(
            ApiError::new("last_admin_key", format!("{key} is the last key with the role admin")).hint(LAST_HINT)
        );
    }
    revoke(store, caller, key).await
}

const LAST_HINT: &str = "create another admin key first; on the machine of the server, `highwater keys revoke KEY --data DIR` \
                         revokes any key while the server is stopped";

/// Whether a key is the only one that an admin can come with at this time.
fn is_last_admin(keys: &[metadata::ApiKey], key_id: Uuid, at: DateTime<Utc>) -> bool {
    let counts = |key: &&metadata::ApiKey| {
        key.role == role_name(Role::Admin)
            && key.revoked_at.is_none()
            && key.expires_at.is_none_or(|expires_at| expires_at > at)
    };
    let mut admins = keys.iter().filter(counts);
    matches!((admins.next(), admins.next()), (Some(only), None) if only.key_id == key_id)
}

/// # Errors
/// `invalid_id`, `key_not_found`.
pub async fn revoke(store: &dyn MetadataStore, caller: &Caller, key: &str) -> ApiResult<ApiKey> {
    let key_id = crate::rest::parse_id(IdKind::Key, key)?;
    let change = caller.change("key.revoke", key, json!({}));
    Ok(shown(&store.revoke_key(key_id, now(), &change).await?))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_last_admin_key_is_the_only_one_that_is_still_good() {
        let at = now();
        let key = |role: Role, expires_at: Option<DateTime<Utc>>, revoked_at: Option<DateTime<Utc>>| metadata::ApiKey {
            key_id: Uuid::now_v7(),
            name: "k".into(),
            role: role_name(role).into(),
            hash: Vec::new(),
            created_at: at,
            expires_at,
            revoked_at,
        };
        let (soon, before) = (at + TimeDelta::hours(1), at - TimeDelta::hours(1));
        let admin = key(Role::Admin, None, None);
        let is_last = |others: Vec<metadata::ApiKey>| {
            let keys: Vec<_> = others.into_iter().chain([admin.clone()]).collect();
            is_last_admin(&keys, admin.key_id, at)
        };
        assert!(is_last(vec![]) && is_last(vec![key(Role::Operator, None, None), key(Role::Viewer, None, None)]));
        assert!(is_last(vec![key(Role::Admin, Some(before), None), key(Role::Admin, None, Some(before))]));
        assert!(!is_last(vec![key(Role::Admin, Some(soon), None)]));
        // A key that does not count any more is not the last one, whoever is.
        let expired = key(Role::Admin, Some(before), None);
        assert!(!is_last_admin(&[expired.clone(), admin.clone()], expired.key_id, at));
    }
}
