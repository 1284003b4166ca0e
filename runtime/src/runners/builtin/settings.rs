//! A card's settings, as a runner reads them: each is taken by its name, and none may be left over.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::config::near_miss::nearest;

/// What is left to be read.
#[derive(Debug, Default)]
pub(super) struct Settings(pub(super) BTreeMap<String, String>);

impl Settings {
    /// The value under this name, if one is given; `expected` says what it should be.
    pub(super) fn take<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, String> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| format!("the card's setting `{name}` must be {expected}, this is {text:?}"))
    }

    /// Refuses what nobody took; `known` are all that could have been.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), String> {
        let Some(name) = self.0.keys().next() else { return Ok(()) };
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        Err(format!("this runner has no setting `{name}`; {hint}"))
    }
}
