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
    eprintln!("lockstep: {}", sentence(error));
    ExitCode::from(if error.chain().any(|cause| cause.is::<WrongCall>()) { 2 } else { 1 })
}

/// The error and its causes, outermost first. Some of our errors name their cause in their own text: it is said once.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said {
        said if said.is_empty() => cause,
        said if said.ends_with(&cause) => said,
        said => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_cause_is_said_once_also_where_the_error_above_it_names_it() {
        let missing = || io::Error::other("no such file");
        let named = io::Error::other(format!("a/b: {}", missing()));
        assert_eq!(
            sentence(&anyhow::Error::from(missing()).context("a/b").context("no node")),
            "no node: a/b: no such file"
        );
        assert_eq!(sentence(&anyhow::Error::from(missing()).context(named)), "a/b: no such file");
    }

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
