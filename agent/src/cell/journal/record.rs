//! What the journal says: the last word about each instance counts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::format::Damage;
use crate::cell::instance::Machine;
use crate::cell::network::{Attached, Grant};

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A spec, by its digest; instances that share it name it.
    Spec {
        /// sha-256 of the message, in hexadecimal.
        digest: String,
        /// The message `celda.cell.v1.Spec`, encoded, in base64.
        message: Message,
    },
    /// An instance as it is from now on.
    Instance(Box<Kept>),
    /// An instance that is forgotten.
    Gone {
        /// Its id.
        id: String,
    },
    /// Whether the cell takes no more work.
    Draining(bool),
}

/// Bytes, in base64 where they are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(pub Vec<u8>);

impl Serialize for Message {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What is kept of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// The app that it belongs to.
    pub app: String,
    /// Which of the app's instances it is.
    pub index: u32,
    /// The digest of its spec.
    pub spec: String,
    /// The id of its reservation in the ledger.
    pub reservation: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub created_ms: u64,
    /// It is forgotten as soon as it has ended.
    pub removing: bool,
    /// Its container has come up, as its checks say.
    #[serde(default)]
    pub was_up: bool,
    /// Ports of the host that lead to it, until its last end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Grant>,
    /// What its container has of the cell's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Attached>,
    /// Where it is.
    pub machine: Machine,
}

/// Everything that a journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Specs by digest.
    pub specs: BTreeMap<String, Vec<u8>>,
    /// Instances by id.
    pub instances: BTreeMap<String, Kept>,
    /// Whether the cell takes no more work.
    pub draining: bool,
}

impl Known {
    /// Takes the records of one frame's payload.
    ///
    /// # Errors
    /// [`Damage::Record`] for a line that is none: the checksum holds, so a newer version wrote it.
    pub fn replay(&mut self, payload: &[u8]) -> Result<(), Damage> {
        for line in payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = serde_json::from_slice(line).map_err(|error| Damage::Record(error.to_string()))?;
            self.take(record)?;
        }
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), Damage> {
        match record {
            Record::Spec { digest, message } => drop(self.specs.insert(digest, message.0)),
            Record::Instance(kept) => {
                if !self.specs.contains_key(&kept.spec) {
                    return Err(Damage::Record(format!("instance {} without its spec", kept.id)));
                }
                self.instances.insert(kept.id.clone(), *kept);
            }
            Record::Gone { id } => drop(self.instances.remove(&id)),
            Record::Draining(draining) => self.draining = draining,
        }
        Ok(())
    }

    /// The fewest records that say the same, less specs that nobody uses.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let used = |digest: &String| self.instances.values().any(|kept| kept.spec == *digest);
        let specs = self.specs.iter().filter(move |(digest, _)| used(digest));
        let specs = specs.map(|(digest, message)| Record::Spec {
            digest: digest.clone(),
            message: Message(message.clone()),
        });
        let instances = self.instances.values().map(|kept| Record::Instance(Box::new(kept.clone())));
        std::iter::once(Record::Draining(self.draining)).chain(specs).chain(instances)
    }
}

/// All that a journal's bytes say, and how many of them are whole.
///
/// # Errors
/// [`Damage`].
pub fn parse(bytes: &[u8]) -> Result<(Known, usize), Damage> {
    let contents = super::format::read(bytes)?;
    let mut known = Known::default();
    for payload in contents.payloads {
        known.replay(payload)?;
    }
    Ok((known, contents.whole_bytes))
}
