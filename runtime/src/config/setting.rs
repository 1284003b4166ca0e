//! One value of the configuration: how it is read from a file or a line of text, and written as TOML.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use libp2p::Multiaddr;
use lockstep_replication::{NodeId, Span};

/// A value as it was given, before anybody knows what it should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Text: a TOML string, a variable of the environment, a flag.
    Text(String),
    /// A TOML integer.
    Number(i128),
    /// A TOML boolean.
    Truth(bool),
    /// A TOML array, or a flag that may be given several times.
    List(Vec<Raw>),
    /// Something that no setting is: what.
    Other(&'static str),
}

/// A value of the configuration.
pub trait Setting {
    /// Takes the value, or says what it should have been: "an address such as …".
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str>;

    /// The value in TOML; none if there is none.
    fn show(&self) -> Option<String>;

    /// Whether it is zero or empty.
    fn is_nothing(&self) -> bool {
        false
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Number(number) => write!(f, "{number}"),
            Raw::Truth(truth) => write!(f, "{truth}"),
            Raw::List(_) => write!(f, "a list"),
            Raw::Other(what) => write!(f, "{what}"),
        }
    }
}

/// TOML's form of a text.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn parsed<T: FromStr>(raw: &Raw, expected: &'static str) -> Result<T, &'static str> {
    match raw {
        Raw::Text(text) => text.trim().parse().map_err(|_| expected),
        Raw::Number(_) | Raw::Truth(_) | Raw::List(_) | Raw::Other(_) => Err(expected),
    }
}

/// The members of a list: an array, or a text with commas between.
fn members<T>(raw: &Raw, read: impl Fn(&Raw) -> Result<T, &'static str>) -> Result<Vec<T>, &'static str> {
    match raw {
        Raw::List(list) => list.iter().map(read).collect(),
        Raw::Text(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| read(&Raw::Text(part.into())))
            .collect(),
        Raw::Number(_) | Raw::Truth(_) | Raw::Other(_) => read(raw).map(|one| vec![one]),
    }
}

fn shown_list(members: impl Iterator<Item = String>) -> Option<String> {
    Some(format!("[{}]", members.map(|member| quoted(&member)).collect::<Vec<_>>().join(", ")))
}

impl Setting for String {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        *self = parsed(raw, "text")?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for bool {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        *self = match raw {
            Raw::Truth(truth) => *truth,
            Raw::Text(text) if text == "1" => true,
            Raw::Text(text) if text == "0" => false,
            Raw::Text(_) | Raw::Number(_) | Raw::List(_) | Raw::Other(_) => parsed(raw, "true or false")?,
        };
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

macro_rules! whole_numbers {
    ($($number:ty),+) => {$(
        impl Setting for $number {
            fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
                const EXPECTED: &str = "a whole number, not below 0 and not too large";
                *self = match raw {
                    Raw::Number(number) => <$number>::try_from(*number).map_err(|_| EXPECTED)?,
                    Raw::Text(text) => text.trim().replace('_', "").parse().map_err(|_| EXPECTED)?,
                    Raw::Truth(_) | Raw::List(_) | Raw::Other(_) => return Err(EXPECTED),
                };
                Ok(())
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn is_nothing(&self) -> bool {
                *self == 0
            }
        }
    )+};
}

whole_numbers!(u32, u64, usize);

impl Setting for Span {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        *self = parsed(raw, "a length of time with its unit, such as \"250ms\", \"5s\", \"2m\" or \"24h\"")?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.exact()))
    }

    fn is_nothing(&self) -> bool {
        self.0 == 0
    }
}

impl Setting for PathBuf {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        let text: String = parsed(raw, "a path")?;
        if text.is_empty() {
            return Err("a path, not an empty text");
        }
        *self = match text.strip_prefix("~/") {
            Some(rest) => std::env::home_dir().ok_or("a path; `~` means nothing without a home directory")?.join(rest),
            None => text.into(),
        };
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Setting for Option<PathBuf> {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        let mut path = PathBuf::new();
        path.set(raw)?;
        *self = Some(path);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Setting::show)
    }
}

impl Setting for SocketAddr {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        const EXPECTED: &str = "an address and a port, such as \"127.0.0.1:7070\"";
        let text: String = parsed(raw, EXPECTED)?;
        // Clients name the API by its URL, under the same variable of the environment: either form serves both.
        let text = text.strip_prefix("http://").unwrap_or(&text).trim_end_matches('/');
        *self = match text.strip_prefix("localhost:") {
            Some(port) => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port.parse().map_err(|_| EXPECTED)?),
            None => text.parse().map_err(|_| EXPECTED)?,
        };
        Ok(())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for Vec<Multiaddr> {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        *self = members(raw, |one| parsed(one, "addresses such as \"/ip4/192.168.1.20/tcp/7170\""))?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        shown_list(self.iter().map(ToString::to_string))
    }
}

impl Setting for Vec<String> {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        *self = members(raw, |one| parsed(one, "a list of texts"))?;
        Ok(())
    }

    fn show(&self) -> Option<String> {
        shown_list(self.iter().cloned())
    }
}

impl Setting for BTreeSet<NodeId> {
    fn set(&mut self, raw: &Raw) -> Result<(), &'static str> {
        *self =
            members(raw, |one| parsed(one, "a list of node ids, 64 hexadecimal digits each"))?.into_iter().collect();
        Ok(())
    }

    fn show(&self) -> Option<String> {
        shown_list(self.iter().map(ToString::to_string))
    }
}
