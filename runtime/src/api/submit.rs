//! Handing a client's command to the node and waiting for its outcome, one at a time or many in flight.

use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_replication::io::{NotTaken, Unknown};
use lockstep_replication::{CommandId, Outcome};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::errors::{ApiError, sentence};
use super::names;
use super::reply::Reply;
use super::shared::Context;

/// What a client asks for, and the name that it gave it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// From the client's key.
    pub(crate) name: Option<CommandId>,
    /// What it asks for.
    pub(crate) command: Command,
}

/// A command with its key beside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: String,
    command: Command,
}

impl Asked {
    /// Reads `{"cancel_task": …}`, or `{"id": "key", "command": {"cancel_task": …}}`.
    pub(crate) fn parse(json: &[u8]) -> Result<Asked, ApiError> {
        let malformed = |error: serde_json::Error| ApiError::bad_request("malformed_json", sentence(error));
        // Told apart by the first field, since no command has these names: a failed first try would hide where the
        // mistake is.
        if !first_field(json).is_some_and(|name| name == b"id" || name == b"command") {
            return Ok(Asked { name: None, command: serde_json::from_slice(json).map_err(malformed)? });
        }
        let Named { id, command } = serde_json::from_slice(json).map_err(malformed)?;
        let name = names::from_key(id.as_bytes()).map_err(|bad| ApiError::bad_request("bad_key", bad.to_string()))?;
        Ok(Asked { name: Some(name), command })
    }
}

/// The name of an object's first field, as written.
fn first_field(json: &[u8]) -> Option<&[u8]> {
    let inside = json.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    inside.split(|byte| *byte == b'"').next()
}

/// A command that the node has, or had.
#[derive(Debug)]
pub(crate) struct Waiting {
    id: CommandId,
    outcome: Result<oneshot::Receiver<Outcome<Inference>>, NotTaken>,
}

impl Context {
    /// Hands a command to the node. Waits only where the node takes them more slowly than they come.
    pub(crate) async fn hand_in(&self, asked: Asked) -> Waiting {
        let Asked { name, mut command } = asked;
        let id = name.unwrap_or_else(|| self.names.draw());
        // What a command creates is named after it, so that a repeated one creates the same.
        command.fill_ids(|| id.0);
        self.recent.begin(id);
        // Drawn names stay here: the log remembers a limited number, which belong to clients that gave a key.
        Waiting { id, outcome: self.node.command(name, command).await }
    }

    /// Notes what became of a command, and says it.
    fn settle(&self, id: CommandId, outcome: Outcome<Inference>) -> Reply {
        self.recent.end(id, &outcome);
        // Only some refusals speak of entries that were there before.
        let mark = matches!(outcome, Outcome::Refused(_)).then(|| self.node.now().view.done).flatten();
        Reply::of(id, outcome, mark)
    }
}

impl Waiting {
    /// Waits for the outcome. May be dropped and called again.
    pub(crate) async fn reply(&mut self, context: &Context) -> Reply {
        let outcome = match &mut self.outcome {
            Ok(outcome) => outcome.await.unwrap_or(Outcome::Unknown(Unknown::Stopped)),
            Err(reason) => Outcome::NotTaken(*reason),
        };
        context.settle(self.id, outcome)
    }

    /// The reply, if it is there already.
    pub(crate) fn reply_now(&mut self, context: &Context) -> Option<Reply> {
        let outcome = match &mut self.outcome {
            Ok(outcome) => match outcome.try_recv() {
                Ok(outcome) => outcome,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Closed) => Outcome::Unknown(Unknown::Stopped),
            },
            Err(reason) => Outcome::NotTaken(*reason),
        };
        Some(context.settle(self.id, outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANCEL: &str = r#"{"cancel_task": {"task": "000102030405060708090a0b0c0d0eff"}}"#;

    #[test]
    fn a_command_comes_bare_or_with_its_key() {
        let bare = Asked::parse(CANCEL.as_bytes()).unwrap();
        assert_eq!(bare.name, None);
        for text in
            [format!(r#" {{ "id": "key", "command": {CANCEL} }}"#), format!(r#"{{"command": {CANCEL}, "id": "key"}}"#)]
        {
            let named = Asked::parse(text.as_bytes()).unwrap();
            assert_eq!(named.name, names::from_key(b"key").ok());
            assert_eq!(named.command, bare.command);
        }
    }

    #[test]
    fn a_mistake_is_placed() {
        let says = |text: &str| Asked::parse(text.as_bytes()).unwrap_err().message().to_owned();
        assert!(says("{\"cancel_task\":\n {\"task\": 7}}").contains("line 2 column 11"));
        assert!(says(r#"{"canecl_task": {}}"#).contains("Unknown variant `canecl_task`"));
        assert!(says(&format!("{CANCEL} more")).contains("Trailing characters"));
        assert!(says(r#"{"id": "key", "command": {"cancel_task": {}}}"#).contains("Missing field `task`"));
        assert!(says(&format!(r#"{{"id": "two words", "command": {CANCEL}}}"#)).contains("visible"));
        assert!(says("").contains("EOF"));
    }
}
