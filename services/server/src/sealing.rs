//! Seals secrets before they are stored: XChaCha20-Poly1305 under a key that lies in a file of its own, not in the database.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

const NONCE_BYTES: usize = 24;

/// The key of this server.
#[derive(Clone)]
pub struct Sealing {
    key: [u8; 32],
}

/// Never shows the key.
impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealing(***)")
    }
}

impl Sealing {
    #[cfg(test)]
    pub fn from_key(key: [u8; 32]) -> Sealing {
        Sealing { key }
    }

    /// Reads the key from a file that only its owner can read, or makes one.
    pub fn open(path: &Path) -> std::io::Result<Sealing> {
        if !path.try_exists()? {
            make_key(path)?;
        }
        let mut file = File::open(path)?;
        if file.metadata()?.mode() & 0o077 != 0 {
            return Err(std::io::Error::other("others than its owner can read it: chmod 600"));
        }
        let mut key = [0; 32];
        file.read_exact(&mut key).map_err(|_| std::io::Error::other("it is shorter than 32 bytes"))?;
        Ok(Sealing { key })
    }

    /// `name` says what it is, and must be the same to open it: a value cannot be put in another's place.
    pub fn seal(&self, name: &str, secret: &str) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the system has random numbers");
        let payload = Payload { msg: secret.as_bytes(), aad: name.as_bytes() };
        let sealed = self.cipher().encrypt(XNonce::from_slice(&nonce), payload);
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed.expect("a short text can always be encrypted"));
        bytes
    }

    /// `None` if it was sealed with another key or name, or changed.
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Option<String> {
        let (nonce, text) = sealed.split_at_checked(NONCE_BYTES)?;
        let payload = Payload { msg: text, aad: name.as_bytes() };
        let bytes = self.cipher().decrypt(XNonce::from_slice(nonce), payload).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// A key of its own for the tags of page tokens.
    pub fn paging_key(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"paging").chain_update(self.key).finalize().into()
    }

    /// Stands for a text that may hold a secret: whoever reads the store alone cannot try out which text it was.
    pub fn fingerprint(&self, hash: &[u8]) -> Vec<u8> {
        let key: [u8; 32] = Sha256::new().chain_update(b"fingerprint").chain_update(self.key).finalize().into();
        Sha256::new().chain_update(key).chain_update(hash).finalize().to_vec()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&self.key).into())
    }
}

/// The file appears whole or not at all: a server that is killed meanwhile leaves no half of a key. Of two, the first one's stays.
fn make_key(path: &Path) -> std::io::Result<()> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(std::io::Error::other)?;
    let made = path.with_extension(format!("{:016x}", u64::from_le_bytes(suffix)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
    file.write_all(&key)?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&made, path);
    std::fs::remove_file(&made)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_with_its_key_and_name_only() {
        let sealing = Sealing::from_key([1; 32]);
        let sealed = sealing.seal("kafka/sasl.password", "hunter2");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(sealed, sealing.seal("kafka/sasl.password", "hunter2"));
        assert_eq!(sealing.unseal("kafka/sasl.password", &sealed).as_deref(), Some("hunter2"));
        assert_eq!(sealing.unseal("other/sasl.password", &sealed), None);
        assert_eq!(Sealing::from_key([2; 32]).unseal("kafka/sasl.password", &sealed), None);
        assert_eq!(sealing.unseal("kafka/sasl.password", &sealed[..10]), None);
        assert_eq!(format!("{sealing:?}"), "Sealing(***)");
    }

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        let first = Sealing::open(&path).expect("made");
        assert_eq!(Sealing::open(&path).expect("read").key, first.key);
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
        assert!(Sealing::open(&path).expect_err("open to all").to_string().contains("chmod 600"));
    }
}
