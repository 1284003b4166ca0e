//! L13: when faults stop, all nodes reach one session, one index, one state. If not, each node says why.

use lockstep_replication::{NodeId, Role, Session, View};

/// Why these nodes do not agree yet; none if they do.
pub(crate) fn disagreement(views: &[(NodeId, Option<View>)]) -> Option<String> {
    let mut first: Option<(&View, Session)> = None;
    for (node, view) in views {
        let Some(view) = view else { return Some(format!("{node:?} is down")) };
        let session = match view.role {
            Role::Seeking => return Some(format!("{node:?} seeks a leader")),
            Role::Following(session) | Role::Leading(session) => session,
        };
        if view.confirmed != Some(session) && !view.damaged {
            return Some(format!("{node:?} is in session {session} and did not confirm it"));
        }
        if !view.ready {
            return Some(format!("{node:?} is not ready: {}", view.not_ready.as_deref().unwrap_or("no reason given")));
        }
        if view.damaged && may_heal(view, views) {
            return Some(format!("{node:?} is damaged"));
        }
        let (first, first_session) = *first.get_or_insert((view, session));
        if session != first_session {
            return Some(format!("{node:?} is in session {session}, {:?} in {first_session}", first.me));
        }
        if view.next != first.next || view.synced != view.next {
            return Some(format!(
                "{node:?} is at {} ({} synced), {:?} at {}",
                view.next, view.synced, first.me, first.next
            ));
        }
        if view.outbox > 0 {
            return Some(format!("{node:?} has {} proposals in its outbox", view.outbox));
        }
    }
    None
}

/// Whether enough known nodes are whole for a damaged one to become whole: more than half, without it. Else the operator
/// must decide.
fn may_heal(damaged: &View, views: &[(NodeId, Option<View>)]) -> bool {
    let known = damaged.nodes.iter().filter(|(_, seen)| seen.known);
    let is_whole =
        |node: &NodeId| views.iter().any(|(id, view)| id == node && view.as_ref().is_some_and(|view| !view.damaged));
    known.clone().filter(|(node, _)| is_whole(node)).count() * 2 > known.count()
}

/// Whether nobody who holds a log is whole: then nothing happens until the operator decides.
pub(crate) fn waits_for_operator(views: &[(NodeId, Option<View>)]) -> bool {
    let mut holders =
        views.iter().filter_map(|(_, view)| view.as_ref()).filter(|view| view.founding.is_some()).peekable();
    holders.peek().is_some() && holders.all(|view| view.damaged)
}

/// What each node says of itself, a line each.
pub(crate) fn reasons(views: &[(NodeId, Option<View>)]) -> String {
    let line = |(node, view): &(NodeId, Option<View>)| match view {
        None => format!("  {node:?}: down\n"),
        Some(view) => format!(
            "  {node:?}: {:?}, confirmed {}, backed {}, next {}, synced {}, log from {}, head {}, done {:?}, ready {} ({}), \
             catch-up {:?}, founding {:?}, outbox {}, damaged {}\n      hears {}\n",
            view.role,
            view.confirmed.map_or("nothing".to_owned(), |session| session.to_string()),
            view.backed,
            view.next,
            view.synced,
            view.log_first,
            view.head_next,
            view.done.map(|done| (done.index.0, done.held, done.of)),
            view.ready,
            view.not_ready.as_deref().unwrap_or("-"),
            view.catch_up,
            view.founding,
            view.outbox,
            view.damaged,
            view.nodes
                .iter()
                .map(|(node, seen)| format!(
                    "{node:?}{}{}{}",
                    if seen.known { " known" } else { "" },
                    if seen.connected { " connected" } else { "" },
                    seen.stored.map_or(String::new(), |stored| format!(" stored {stored}")),
                ))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    };
    views.iter().map(line).collect()
}
