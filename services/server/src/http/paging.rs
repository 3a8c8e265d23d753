//! Pages: newest first, by a token that names the last item and the filters it belongs to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use metadata::Page;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::problem::{ApiError, ApiResult};
use crate::sealing::Sealing;

pub const PAGE_SIZE: i64 = 100;

/// What a token is made of: the id, and a tag over it and the filters.
const TAG_BYTES: usize = 16;

/// The page that a request asks for: `filters` are everything else that it asks for, so that a token is good for one list only.
pub fn page(sealing: &Sealing, token: Option<&str>, size: Option<i64>, filters: &str) -> ApiResult<Page> {
    let limit = size.unwrap_or(PAGE_SIZE);
    let Some(token) = token else { return Ok(Page { after: None, limit: limit + 1 }) };
    let wrong =
        || ApiError::new("invalid_cursor", "page_token is not one that was given for this list and these filters");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let (id, given) = bytes.split_at_checked(16).ok_or_else(wrong)?;
    let id = Uuid::from_slice(id).map_err(|_| wrong())?;
    if given != tag(sealing, id, filters) {
        return Err(wrong());
    }
    Ok(Page { after: Some(id), limit: limit + 1 })
}

/// Takes the item too many that was asked for, and gives the token for what follows it.
pub fn next<T>(
    sealing: &Sealing,
    items: &mut Vec<T>,
    page: Page,
    filters: &str,
    id: impl Fn(&T) -> Uuid,
) -> Option<String> {
    if (items.len() as i64) < page.limit {
        return None;
    }
    items.pop();
    let last = id(items.last()?);
    let mut bytes = last.as_bytes().to_vec();
    bytes.extend(tag(sealing, last, filters));
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn tag(sealing: &Sealing, id: Uuid, filters: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(sealing.paging_key());
    hash.update(id.as_bytes());
    hash.update(filters.as_bytes());
    hash.finalize()[..TAG_BYTES].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_list_only() {
        let sealing = Sealing::from_key([7; 32]);
        let first = page(&sealing, None, Some(2), "state=running").expect("no token");
        let mut items: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();
        let token = next(&sealing, &mut items, first, "state=running", |id| *id).expect("there is more");
        assert_eq!(items.len(), 2);
        let second = page(&sealing, Some(&token), Some(2), "state=running").expect("the same list");
        assert_eq!(second.after, Some(Uuid::from_u128(2)));
        for (token, filters) in
            [(token.as_str(), "state=failed"), ("AAAA", "state=running"), (&token[1..], "state=running")]
        {
            assert_eq!(page(&sealing, Some(token), None, filters).expect_err("tampered").code(), "invalid_cursor");
        }
        let mut rest = vec![Uuid::from_u128(3)];
        assert_eq!(next(&sealing, &mut rest, second, "state=running", |id| *id), None);
    }
}
