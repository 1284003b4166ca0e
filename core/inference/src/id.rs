//! The names of models, instances, runners and tasks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The name of a model, as its publisher writes it, for example `acme/small-8b-q4`.
///
/// Any text can be held; commands with an empty, too long or unprintable one are refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelId(pub Arc<str>);

/// One placement of a model on nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(pub [u8; 16]);

/// The part of an instance on one node: a child process of that node's worker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunnerId(pub [u8; 16]);

/// One piece of work for an instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(pub [u8; 16]);

/// Text that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 32 hexadecimal digits, this is {found:?}")]
pub struct NotAnId {
    what: &'static str,
    found: String,
}

impl ModelId {
    /// The model of this name.
    pub fn new(name: &str) -> ModelId {
        ModelId(name.into())
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RunnerId {
    /// The runner of this rank of an instance.
    ///
    /// It follows from the two, so that a command need not name it. Another instance whose id differs in its last two
    /// bytes alone could claim the same runner; decisions refuse such an instance.
    pub const fn of(instance: InstanceId, rank: u16) -> RunnerId {
        let [high, low] = rank.to_be_bytes();
        let mut bytes = instance.0;
        bytes[14] ^= high;
        bytes[15] ^= low;
        RunnerId(bytes)
    }
}

macro_rules! sixteen_bytes {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let wrong = || NotAnId { what: $what, found: text.chars().take(80).collect() };
                // The parser alone would take a sign as well.
                if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| wrong())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

sixteen_bytes!(InstanceId, "an instance id");
sixteen_bytes!(RunnerId, "a runner id");
sixteen_bytes!(TaskId, "a task id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        let id = TaskId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"000102030405060708090a0b0c0d0eff\"");
        assert_eq!(serde_json::from_str::<TaskId>("\"000102030405060708090A0B0C0D0EFF\"").unwrap(), id);
        assert_eq!(postcard::to_stdvec(&id).unwrap(), id.0);
    }

    #[test]
    fn other_text_is_no_id() {
        for text in ["", "00", "+00102030405060708090a0b0c0d0eff", "0g0102030405060708090a0b0c0d0eff", "ä"] {
            let error = text.parse::<InstanceId>().unwrap_err().to_string();
            assert_eq!(error, format!("an instance id must be 32 hexadecimal digits, this is {text:?}"));
        }
    }

    #[test]
    fn each_rank_has_its_own_runner() {
        let instance = InstanceId([7; 16]);
        assert_eq!(RunnerId::of(instance, 0).0, instance.0);
        assert_ne!(RunnerId::of(instance, 1), RunnerId::of(instance, 256));
    }
}
