//! L7: sessions are ordered; a node's session never goes back; one is never reused, not even after a lost disk.

use lockstep_replication::io::Kept;
use lockstep_replication::{NodeId, Role, Session};

use super::Broken;

pub(crate) fn broken(reason: String) -> Broken {
    Broken::new("sessions_rise", format!("L7: {reason}"))
}

/// A session is opened in a log whose last one was this.
pub(crate) fn opened(before: Option<Session>, session: Session) -> Result<(), Broken> {
    match before {
        Some(before) if session <= before => Err(broken(format!("session {session} was opened after {before}"))),
        Some(_) | None => Ok(()),
    }
}

/// What one machine confirmed, over all its lives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Confirmed {
    /// On its disk.
    written: Option<Session>,
    /// Asked to be written in this life.
    asked: Option<Session>,
    clock: u64,
    /// The last one that it led in this life.
    led: Option<Session>,
}

impl Confirmed {
    /// It starts from this.
    pub(crate) fn started(&mut self, kept: &Kept) {
        *self = Confirmed { written: self.written, asked: kept.confirmed, clock: kept.clock, led: None };
    }

    /// Its disk lost what it had: nothing binds it any more.
    pub(crate) fn lost(&mut self, kept: &Kept) {
        self.written = kept.confirmed;
    }

    /// It asks for this to be kept.
    pub(crate) fn asks(&mut self, kept: &Kept) -> Result<(), Broken> {
        if kept.confirmed < self.asked || kept.clock < self.clock {
            return Err(broken(format!(
                "it keeps {:?} at clock {} after {:?} at {}",
                kept.confirmed, kept.clock, self.asked, self.clock
            )));
        }
        let same_clock = |asked: Session| kept.confirmed.is_some_and(|new| new != asked && new.clock == asked.clock);
        if self.asked.is_some_and(same_clock) {
            return Err(broken(format!(
                "it confirms {:?} after {:?}: two sessions of one clock",
                kept.confirmed, self.asked
            )));
        }
        (self.asked, self.clock) = (kept.confirmed, kept.clock);
        Ok(())
    }

    /// This is kept now.
    pub(crate) fn wrote(&mut self, kept: &Kept) -> Result<(), Broken> {
        if kept.confirmed < self.written {
            return Err(broken(format!("its disk says {:?} after {:?}", kept.confirmed, self.written)));
        }
        self.written = kept.confirmed;
        Ok(())
    }

    /// It says what its part is.
    pub(crate) fn takes(&mut self, node: NodeId, role: Role) -> Result<(), Broken> {
        let Role::Leading(session) = role else { return Ok(()) };
        if session.leader != node {
            return Err(broken(format!("it leads {session}, which is another node's")));
        }
        if self.led >= Some(session) || self.written >= Some(session) {
            return Err(broken(format!(
                "it leads {session}, and it led {:?} and confirmed {:?}",
                self.led, self.written
            )));
        }
        self.led = Some(session);
        Ok(())
    }
}
