//! What the connectors of an attempt may touch, and how they reach it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use connectors::{AllowedRoots, Registry};
use control::attempt::Egress;
use serde::{Deserialize, Serialize};

/// Holds the secrets of connections: it travels through pipes only.
#[derive(Clone, Serialize, Deserialize)]
pub struct Access {
    /// Local directories that tables may use.
    pub allowed_roots: Vec<PathBuf>,
    /// Options of connections by name.
    pub connections: BTreeMap<String, BTreeMap<String, String>>,
    pub egress: Egress,
    /// For other people's jobs: options that name files, commands or URLs of this machine are refused.
    pub restricted: bool,
}

impl Access {
    /// As for a user's own command line: these directories, and everywhere on the network.
    pub fn own(allowed_roots: Vec<PathBuf>) -> Access {
        let egress = Egress { loopback: true, anywhere: true, allowed: Vec::new() };
        Access { allowed_roots, connections: BTreeMap::new(), egress, restricted: false }
    }

    pub fn registry(&self) -> Registry {
        let registry = Registry::new(AllowedRoots::new(&self.allowed_roots))
            .with_connections(self.connections.clone())
            .with_egress(egress(&self.egress));
        if self.restricted { registry.restricted() } else { registry }
    }
}

/// The same in the words of the connectors.
pub fn egress(egress: &Egress) -> connectors::Egress {
    connectors::Egress { loopback: egress.loopback, anywhere: egress.anywhere, allowed: egress.allowed.clone() }
}
