//! The process group that a runner leads: a runner is killed with all that it started.

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// The process group that a runner leads. Dropped, it is killed, so that nothing remains where a whole runtime goes.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(child: &Child) -> Group {
        Group(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw))
    }

    pub(super) fn kill(&self) {
        if let Some(leader) = self.0 {
            // No process may be left of it, which is as good.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    /// From now on its number may be another's.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
