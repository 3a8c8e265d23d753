//! ETags and `if-match`: who changes something says which version was read.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::problem::{ApiError, ApiResult};

/// The ETag of a revision.
pub fn etag(revision: i64) -> String {
    format!("\"r{revision}\"")
}

/// What `if-match` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing.
    Absent,
    /// `*`: whatever is there.
    Any,
    Revision(i64),
    /// A tag that was never given out.
    Unknown,
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<IfMatch> {
        Ok(IfMatch::of(parts.headers.get(header::IF_MATCH)))
    }
}

impl IfMatch {
    fn of(value: Option<&HeaderValue>) -> IfMatch {
        let Some(value) = value else { return IfMatch::Absent };
        match value.to_str().map(str::trim) {
            Ok("*") => IfMatch::Any,
            Ok(tag) => tag
                .strip_prefix("\"r")
                .and_then(|rest| rest.strip_suffix('"')?.parse().ok())
                .map_or(IfMatch::Unknown, IfMatch::Revision),
            Err(_) => IfMatch::Unknown,
        }
    }

    /// Whether something at `current` may be changed.
    pub fn check(self, what: &str, current: i64) -> ApiResult<()> {
        match self {
            IfMatch::Absent => {
                let detail = format!("{what} can only be changed by who says which version was read");
                Err(ApiError::new("precondition_required", detail).hint(format!("send if-match: {}", etag(current))))
            }
            IfMatch::Any => Ok(()),
            IfMatch::Revision(revision) if revision == current => Ok(()),
            IfMatch::Revision(_) | IfMatch::Unknown => {
                Err(ApiError::new("precondition_failed", format!("{what} is at {} now", etag(current))))
            }
        }
    }
}

/// Whether `if-none-match` names this tag.
pub fn none_match(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(header::IF_NONE_MATCH);
    given.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.trim_start_matches("W/") == tag.trim_start_matches("W/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_needs_the_version_that_was_read() {
        let of = |text: &'static str| IfMatch::of(Some(&HeaderValue::from_static(text)));
        let code = |given: IfMatch| given.check("job 'a'", 3).map_err(|error| error.code().to_string());
        assert_eq!(code(IfMatch::of(None)), Err("precondition_required".into()));
        assert_eq!(code(of("\"r2\"")), Err("precondition_failed".into()));
        assert_eq!(code(of("r3")), Err("precondition_failed".into()));
        assert_eq!(code(of("\"r3\"")), Ok(()));
        assert_eq!(code(of("*")), Ok(()));
    }
}
