//! A process between a node and a program that is not ours, so that the program ends with its node: also if the node was
//! killed, and the program does not notice that its standard input has ended.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, getpid, getppid, kill_current_process_group, kill_process};

/// How often it is looked whether the node is there: seldom enough to cost nothing, and within the time that a node needs
/// to start again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the program in this process's group and with its streams, and ends as the program does. If the parent is not, or
/// no longer, the process `node`, the whole group is killed.
pub fn mind(node: u32, program: &str, arguments: &[String]) -> anyhow::Result<()> {
    let node = i32::try_from(node).ok().and_then(Pid::from_raw);
    std::thread::Builder::new().name("minder".into()).spawn(move || {
        while getppid() == node {
            std::thread::sleep(LOOK_EVERY);
        }
        // This ends us too.
        kill_current_process_group(Signal::KILL)
    })?;
    let status = Command::new(program).args(arguments).status();
    end_as(status.with_context(|| format!("`{program}` cannot be started"))?)
}

/// Ends this process with the same code, or by the same signal.
fn end_as(status: ExitStatus) -> ! {
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        // Nothing to do if it fails: the exit code below tells.
        let _ = kill_process(getpid(), signal);
    }
    std::process::exit(status.code().unwrap_or(1))
}
