//! L2, L3 and L4: after a step nothing is pending; the next wake-up is later than the step; one that comes too early
//! changes nothing. That lateness only delays is what all other checks see in runs whose wake-ups come late.

use lockstep_replication::Wake;

use super::{Broken, Given, Step};

fn broken(reason: String) -> Broken {
    Broken::new("wakes", reason)
}

/// A node made a step, and wants to be woken then.
pub(crate) fn stepped(step: &Step<'_>, next: Option<Wake>) -> Result<(), Broken> {
    if let Some(wake) = next
        && wake.at <= step.now.at
    {
        return Err(broken(format!(
            "L3: it is at {:?} and wants to be woken at {:?} ({:?})",
            step.now.at, wake.at, wake.why
        )));
    }
    let Given::Unasked(before) = &step.given else { return Ok(()) };
    if let Some(output) = step.out.first() {
        return Err(broken(format!("L2, L4: at a wake-up that it did not ask for it puts out {output:?}")));
    }
    if next != *before {
        return Err(broken(format!(
            "L4: a wake-up that it did not ask for moves the next from {before:?} to {next:?}"
        )));
    }
    Ok(())
}
