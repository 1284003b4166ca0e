//! What L12 leans on: the known nodes change one at a time. A leader orders a change only when the one before it is done.

use lockstep_replication::message::DoneMark;

use super::Broken;

/// A leader ordered a change of the known nodes: `before` is where the last one stands, `done` how far its promises go.
pub(super) fn ordered(index: u64, before: Option<u64>, done: Option<DoneMark>) -> Result<(), Broken> {
    let Some(before) = before else { return Ok(()) };
    if done.is_some_and(|done| done.index.0 >= before) {
        return Ok(());
    }
    let done = done.map_or("nothing".to_owned(), |done| format!("all up to {}", done.index));
    let reason =
        format!("L12: entry {index} changes the known nodes, as entry {before} did before, and {done} is done");
    Err(Broken::new("known_one_by_one", reason))
}

#[cfg(test)]
mod tests {
    use lockstep_replication::{Boot, Index, Session};

    use super::*;
    use crate::plan::node_id;

    #[test]
    fn a_change_before_the_last_one_is_done_breaks_l12() {
        let session = Session { clock: 1, leader: node_id(1), boot: Boot::default() };
        let done = |index| Some(DoneMark { session, index: Index(index), held: 2, of: 3 });
        assert_eq!(ordered(9, None, None), Ok(()));
        assert_eq!(ordered(9, Some(5), done(5)), Ok(()));
        assert_eq!(ordered(9, Some(5), done(4)).map_err(|broken| broken.check), Err("known_one_by_one"));
        assert_eq!(ordered(9, Some(5), None).map_err(|broken| broken.check), Err("known_one_by_one"));
    }
}
