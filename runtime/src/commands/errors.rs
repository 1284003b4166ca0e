//! How a command ends badly: what is said, and with which exit code.

use std::io;
use std::process::ExitCode;

/// The call was wrong: exit code 2. The text is a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongCall(pub String);

/// What had to be said was said already: exit code 1, and no more words.
#[derive(Debug, thiserror::Error)]
#[error("it did not hold")]
pub struct DidNotHold;

/// Says why on standard error; the exit code that fits.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(closed) {
        // Whoever read our output has read enough, as `head` does.
        return ExitCode::SUCCESS;
    }
    if error.is::<DidNotHold>() {
        return ExitCode::from(1);
    }
    eprintln!("lockstep: {error:#}");
    ExitCode::from(if error.chain().any(|cause| cause.is::<WrongCall>()) { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn exit_codes_tell_a_wrong_call_from_a_failure() {
        let code = |error: anyhow::Error| format!("{:?}", report(&error));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(anyhow::anyhow!("no")), expected(1));
        assert_eq!(code(DidNotHold.into()), expected(1));
        assert_eq!(code(Err::<(), _>(WrongCall("so".into())).context("around").unwrap_err()), expected(2));
        assert_eq!(code(io::Error::from(io::ErrorKind::BrokenPipe).into()), expected(0));
    }
}
