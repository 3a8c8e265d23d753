//! Checkpoints on an object store: [`ObjectFiles`].
//!
//! An object has its name at once and whole, or not at all. Of several that create the same name one does, by a put on condition that the name is
//! free. An answer that is lost is never believed either way: the object is read. Stores that ignore the condition are found out by
//! [`probe`], when a server starts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt, PutMode, RetryConfig, WriteMultipart,
};

use crate::files::{Creation, FileError, Files, Listed, LocalFiles, Result};

/// A server that does not answer is reported within seconds; one that answers late is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Larger objects are written and read in parts of this size, some at once.
const PART_BYTES: usize = 16 << 20;
const PARTS_AT_ONCE: usize = 4;
/// How often a change is asked for that the store was too busy for (409); and the first pause between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Names of the options of a place, as tables of files have them.
pub const OPTIONS: [&str; 4] = ["s3.endpoint", "s3.region", "s3.access-key", "s3.secret-key"];

/// The place that a directory of this machine, or `s3://bucket/prefix`, names; `options` are [`OPTIONS`]. Nothing is touched.
///
/// # Errors
/// What is wrong with the place or an option.
pub fn open(place: &str, options: &BTreeMap<String, String>) -> std::result::Result<Arc<dyn Files>, String> {
    let Some(rest) = place.strip_prefix("s3://") else {
        return match place.split_once("://") {
            Some((scheme, _)) => {
                Err(format!("there is no storage {scheme}://; write a directory or s3://bucket/prefix"))
            }
            None if place.is_empty() => Err("it is empty; write a directory or s3://bucket/prefix".to_string()),
            None => Ok(Arc::new(LocalFiles::new(place))),
        };
    };
    if let Some(unknown) = options.keys().find(|name| !OPTIONS.contains(&name.as_str())) {
        return Err(format!("there is no option {unknown:?}; there is {}", OPTIONS.join(", ")));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err("it names no bucket; write s3://bucket/prefix".to_string());
    }
    // It would be another text for the same place.
    if prefix.starts_with('/') {
        return Err("its prefix begins with a slash; write s3://bucket/prefix".to_string());
    }
    let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|error| error.to_string())?;
    let objects = s3(bucket, options).map_err(|error| reason(&error))?;
    Ok(Arc::new(ObjectFiles { objects, prefix, shown: place.trim_end_matches('/').to_string() }))
}

fn s3(bucket: &str, options: &BTreeMap<String, String>) -> object_store::Result<Arc<dyn ObjectStore>> {
    let given = |name: &str| options.get(name).cloned();
    // With a key of its own, of the environment only the region: a session token would belong to another key.
    let builder = match (given("s3.access-key"), std::env::var("AWS_REGION")) {
        (None, _) => AmazonS3Builder::from_env(),
        (Some(_), Ok(region)) => AmazonS3Builder::new().with_region(region),
        (Some(_), Err(_)) => AmazonS3Builder::new(),
    };
    let mut builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(endpoint) = given("s3.endpoint") {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(region) = given("s3.region") {
        builder = builder.with_region(region);
    }
    if let (Some(access), Some(secret)) = (given("s3.access-key"), given("s3.secret-key")) {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret);
    }
    let client = ClientOptions::new().with_allow_http(true).with_connect_timeout(CONNECT_TIMEOUT).with_timeout(TIMEOUT);
    let retry =
        RetryConfig { backoff: BackoffConfig::default(), max_retries: 4, retry_timeout: Duration::from_secs(30) };
    Ok(Arc::new(builder.with_client_options(client).with_retry(retry).build()?))
}

/// Objects below a prefix.
#[derive(Clone, Debug)]
pub struct ObjectFiles {
    objects: Arc<dyn ObjectStore>,
    prefix: Key,
    shown: String,
}

impl ObjectFiles {
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str, shown: &str) -> ObjectFiles {
        ObjectFiles { objects, prefix: Key::from(prefix), shown: shown.to_string() }
    }

    fn key(&self, path: &str) -> Key {
        path.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), |key, part| key.join(part))
    }

    /// An error, sorted by who must act.
    fn failed(&self, action: &'static str, path: &str, error: &object_store::Error) -> FileError {
        use object_store::Error;
        let (place, path, reason) = (self.shown.clone(), path.to_string(), reason(error));
        let says = |signs: &[&str]| signs.iter().any(|sign| reason.contains(sign));
        match error {
            Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => {
                FileError::Denied { action, place, path, reason }
            }
            // S3 answers 403 to keys that it does not know and to signatures that do not fit.
            _ if says(&[
                "status: 403",
                "403 Forbidden",
                "InvalidAccessKeyId",
                "SignatureDoesNotMatch",
                "AccessDenied",
            ]) =>
            {
                FileError::Denied { action, place, path, reason }
            }
            _ if says(&["NoSuchBucket"]) => FileError::NoPlace { place, reason },
            Error::Generic { .. } => FileError::Unreachable { action, place, path, reason },
            _ => FileError::Failed { action, place, path, reason },
        }
    }

    /// A missing bucket is no missing object.
    fn is_missing(error: &object_store::Error) -> bool {
        matches!(error, object_store::Error::NotFound { .. }) && !reason(error).contains("NoSuchBucket")
    }

    async fn read_key(&self, key: &Key) -> object_store::Result<Bytes> {
        let found = self.objects.get(key).await?;
        let (bytes, tag) = (found.meta.size, found.meta.e_tag.clone());
        if bytes <= PART_BYTES as u64 {
            return found.bytes().await;
        }
        // Large ones part by part, since an answer must come within some time.
        drop(found);
        let part = |range: Range<u64>| {
            let options = GetOptions { range: Some(range.into()), if_match: tag.clone(), ..GetOptions::default() };
            async move { self.objects.get_opts(key, options).await?.bytes().await }
        };
        let starts = (0..bytes).step_by(PART_BYTES);
        let parts = starts.map(|start| part(start..bytes.min(start + PART_BYTES as u64)));
        let mut parts = futures::stream::iter(parts).buffered(PARTS_AT_ONCE);
        let mut whole = BytesMut::with_capacity(bytes as usize);
        while let Some(part) = parts.try_next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole.freeze())
    }

    /// A change that is the same however often it is made.
    async fn insist<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        change: impl Fn() -> F,
    ) -> object_store::Result<T> {
        let mut tries = 0;
        loop {
            tries += 1;
            match change().await {
                Err(error) if tries < TRIES && may_pass(&error) => pause(tries).await,
                other => return other,
            }
        }
    }

    async fn put(&self, key: &Key, content: Bytes) -> object_store::Result<()> {
        if content.len() <= PART_BYTES {
            return self.objects.put(key, content.into()).await.map(drop);
        }
        let mut parts = WriteMultipart::new_with_chunk_size(self.objects.put_multipart(key).await?, PART_BYTES);
        for start in (0..content.len()).step_by(PART_BYTES) {
            parts.wait_for_capacity(PARTS_AT_ONCE).await?;
            parts.put(content.slice(start..content.len().min(start + PART_BYTES)));
        }
        parts.finish().await.map(drop)
    }
}

impl Files for ObjectFiles {
    fn shown(&self) -> String {
        self.shown.clone()
    }

    fn write<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let key = self.key(path);
            let put = self.insist(|| self.put(&key, content.clone())).await;
            put.map_err(|error| self.failed("writing", path, &error))
        })
    }

    fn create<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<Creation>> {
        Box::pin(async move {
            let key = self.key(path);
            let mut tries = 0;
            loop {
                tries += 1;
                let put = self.objects.put_opts(&key, content.clone().into(), PutMode::Create.into()).await;
                let Err(error) = put else { return Ok(Creation::Created) };
                // Taken, busy (409), or an answer that was lost: what is there says which. It may be our own.
                match self.read_key(&key).await {
                    Ok(there) => return Ok(Creation::Exists(there)),
                    // The name is free, so the same may be asked for again.
                    Err(missing) if Self::is_missing(&missing) && tries < TRIES && may_pass(&error) => {
                        pause(tries).await
                    }
                    Err(_) => return Err(self.failed("creating", path, &error)),
                }
            }
        })
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            match self.read_key(&self.key(path)).await {
                Ok(content) => Ok(Some(content)),
                Err(error) if Self::is_missing(&error) => Ok(None),
                Err(error) => Err(self.failed("reading", path, &error)),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(async move {
            let key = self.key(prefix);
            let below = (!key.as_ref().is_empty()).then_some(&key);
            let found = self.objects.list(below).try_collect::<Vec<_>>().await;
            let found = found.map_err(|error| self.failed("listing", prefix, &error))?;
            let listed = found.into_iter().filter_map(|object| {
                let parts = object.location.prefix_match(&self.prefix)?;
                let path = parts.map(|part| part.as_ref().to_string()).collect::<Vec<_>>().join("/");
                let modified = SystemTime::UNIX_EPOCH
                    + Duration::from_millis(object.last_modified.timestamp_millis().max(0) as u64);
                Some(Listed { path, bytes: object.size, modified })
            });
            let mut listed: Vec<Listed> = listed.collect();
            listed.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(listed)
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let key = self.key(path);
            match self.insist(|| self.objects.delete(&key)).await {
                Err(error) if !Self::is_missing(&error) => Err(self.failed("removing", path, &error)),
                _ => Ok(()),
            }
        })
    }
}

/// Whether a place keeps what checkpoints rest on: a name is given once, and what was written is read at once. `name` is of nobody else.
///
/// # Errors
/// It does not (`Refused`), cannot be reached, or may not be written to.
pub async fn probe(files: &dyn Files, name: &str) -> Result<()> {
    let tried = create_twice(files, name).await;
    if let Err(error) = files.remove(name).await {
        return tried.and(Err(error));
    }
    tried
}

async fn create_twice(files: &dyn Files, name: &str) -> Result<()> {
    let refused = |reason: &str| FileError::Refused { place: files.shown(), reason: reason.to_string() };
    let first = Bytes::from_static(b"first");
    files.create(name, first.clone()).await?;
    let again = files.create(name, Bytes::from_static(b"second")).await?;
    let read = files.read(name).await?;
    if again != Creation::Exists(first.clone()) {
        return Err(refused(
            "it overwrites an object where it was told to create one only if the name is free (it ignores If-None-Match)",
        ));
    }
    match read == Some(first) {
        true => Ok(()),
        false => Err(refused("it does not show at once what was written")),
    }
}

/// Whether another try may meet something else: a name that is being worked on, a condition that came too late. Where nobody answers, or the
/// server says that it is busy with 5xx, the client itself has tried again.
fn may_pass(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

async fn pause(tries: u32) {
    tokio::time::sleep(PAUSE * 2u32.pow(tries)).await;
}

/// An error with its causes, each said once.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::conformance::check_files;
    use object_store::memory::InMemory;

    fn in_memory(prefix: &str) -> ObjectFiles {
        ObjectFiles::new(Arc::new(InMemory::new()), prefix, "memory:")
    }

    #[tokio::test]
    async fn objects_keep_the_promises_of_files() {
        for prefix in ["", "a/deep prefix"] {
            let files = in_memory(prefix);
            check_files(&files).await;
            probe(&files, "probe").await.unwrap();
            assert_eq!(files.read("probe").await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn large_objects_go_in_parts() {
        let files = in_memory("p");
        for bytes in [PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES + 7] {
            let content: Bytes = (0..bytes).map(|at| (at / 1000) as u8).collect::<Vec<_>>().into();
            files.write("it", content.clone()).await.unwrap();
            assert!(files.read("it").await.unwrap().unwrap() == content, "{bytes}");
        }
    }

    /// A server that answers one request after the other as it is told, each on a connection of its own; an empty answer is none.
    fn answering(answers: Vec<&'static str>) -> Arc<dyn Files> {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                let (mut request, mut bytes) = (String::new(), [0; 4096]);
                // What is sent in here is short.
                while !request.contains("\r\n\r\n") || (request.starts_with("PUT") && !request.ends_with("mine")) {
                    let read = client.read(&mut bytes).unwrap();
                    request.push_str(&String::from_utf8_lossy(&bytes[..read]));
                }
                let (method, status) = answer.split_once(' ').unwrap();
                assert!(request.starts_with(method), "{method}: {request}");
                if status != "lost" {
                    let (status, body) = status.split_once(':').unwrap_or((status, ""));
                    let head =
                        format!("HTTP/1.1 {status}\r\nETag: \"e\"\r\nLast-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n");
                    write!(client, "{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
                }
            }
        });
        let options = [("s3.endpoint", endpoint.as_str()), ("s3.access-key", "k"), ("s3.secret-key", "s")];
        open("s3://b/p", &options.map(|(name, value)| (name.to_string(), value.to_string())).into()).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_or_too_busy_is_believed_neither_way() {
        let mine = Bytes::from_static(b"mine");
        for (answers, expected) in [
            (vec!["PUT 200 OK"], Creation::Created),
            (vec!["PUT 412 Precondition Failed", "GET 200 OK:other"], Creation::Exists("other".into())),
            // It was done, and nobody heard of it: the client asks again, and is told that the name is taken.
            (vec!["PUT lost", "PUT 412 Precondition Failed", "GET 200 OK:mine"], Creation::Exists(mine.clone())),
            (vec!["PUT 409 Conflict", "GET 404 Not Found", "PUT 200 OK"], Creation::Created),
            (vec!["PUT 409 Conflict", "GET 200 OK:other"], Creation::Exists("other".into())),
        ] {
            let files = answering(answers.clone());
            assert_eq!(files.create("it", mine.clone()).await.unwrap(), expected, "{answers:?}");
        }
        let files = answering(vec![
            "PUT 409 Conflict",
            "PUT 200 OK",
            "PUT 403 Forbidden",
            "PUT 403 Forbidden",
            "GET 403 Forbidden",
        ]);
        files.write("it", mine.clone()).await.unwrap();
        let denied = files.write("it", mine.clone()).await.unwrap_err();
        assert!(matches!(denied, FileError::Denied { .. }), "{denied:?}");
        let denied = files.create("it", mine).await.unwrap_err();
        assert!(matches!(denied, FileError::Denied { .. }) && !denied.is_damage(), "{denied:?}");
    }

    #[test]
    fn a_place_is_a_directory_or_a_bucket() {
        let option = |name: &str| BTreeMap::from([(name.to_string(), "x".to_string())]);
        let none = BTreeMap::new();
        assert_eq!(open("s3://b/p/", &option("s3.region")).unwrap().shown(), "s3://b/p");
        assert_eq!(open("/var/lib", &none).unwrap().shown(), "/var/lib");
        for (place, options, why) in [
            ("s3://", &none, "no bucket"),
            ("gs://b", &none, "no storage gs://"),
            ("", &none, "empty"),
            ("s3://b", &option("s3.acess-key"), "no option"),
        ] {
            let wrong = open(place, options).err().unwrap();
            assert!(wrong.contains(why), "{place}: {wrong}");
        }
    }
}
