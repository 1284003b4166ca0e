//! L13: when faults stop, all connected nodes reach one session, one index, one state. If they do not, each node says why.

use lockstep_replication::{NodeId, Role, Session, View};

/// Why these nodes do not agree yet; none if they do. Each is named by its machine's number, and is down without a view.
pub fn disagreement(nodes: &[(u16, Option<View>)]) -> Option<String> {
    let mut first: Option<(u16, &View, Session)> = None;
    for (number, view) in nodes {
        let Some(view) = view else { return Some(format!("node {number} is down")) };
        let session = match view.role {
            Role::Seeking => return Some(format!("node {number} seeks a leader")),
            Role::Following(session) | Role::Leading(session) => session,
        };
        if view.confirmed != Some(session) && !view.damaged {
            return Some(format!("node {number} is in session {session} and did not confirm it"));
        }
        if !view.ready {
            let why = view.not_ready.as_deref().unwrap_or("it does not say why");
            return Some(format!("node {number} is not ready: {why}"));
        }
        if view.damaged && may_heal(view, nodes) {
            return Some(format!("node {number} is damaged, and enough others are whole"));
        }
        let (other, view_there, session_there) = *first.get_or_insert((*number, view, session));
        if session != session_there {
            return Some(format!("node {number} is in session {session}, node {other} in {session_there}"));
        }
        if view.next != view_there.next || view.synced != view.next {
            return Some(format!(
                "node {number} stands before {} ({} on disk), node {other} before {}",
                view.next, view.synced, view_there.next
            ));
        }
        let apart = nodes.iter().find(|(_, other)| {
            other.as_ref().is_some_and(|other| {
                other.me != view.me && !view.nodes.get(&other.me).is_some_and(|seen| seen.connected)
            })
        });
        if let Some((apart, _)) = apart {
            return Some(format!("node {number} is not connected to node {apart}"));
        }
        if view.outbox > 0 {
            return Some(format!("node {number} has {} proposals in its outbox", view.outbox));
        }
    }
    None
}

/// Whether a damaged node can become whole: if more than half of the known nodes are, without it. Else the operator decides.
fn may_heal(damaged: &View, nodes: &[(u16, Option<View>)]) -> bool {
    let whole = |node: &NodeId| {
        nodes.iter().filter_map(|(_, view)| view.as_ref()).any(|view| view.me == *node && !view.damaged)
    };
    let known: Vec<&NodeId> = damaged.nodes.iter().filter(|(_, seen)| seen.known).map(|(node, _)| node).collect();
    known.iter().filter(|node| whole(node)).count() * 2 > known.len()
}

/// Whether something is only done when the operator decides: a founding of which no whole known node is left ranks above all
/// that have a leader.
pub fn waits_for_operator(nodes: &[(u16, Option<View>)]) -> bool {
    let holders = || nodes.iter().filter_map(|(_, view)| view.as_ref()).filter(|view| view.founding.is_some());
    let id = |view: &View| view.founding.map(|founding| founding.id);
    let rank = |view: &View| view.founding.map(|founding| (founding.widest, founding.anew, view.position, founding.id));
    holders().any(|of| {
        let members = || holders().filter(|view| id(view) == id(of));
        let is_known = |node: &NodeId| {
            let best = members().max_by_key(|view| (!view.damaged, view.position));
            best.is_some_and(|best| best.nodes.get(node).is_some_and(|seen| seen.known))
        };
        let leads_above =
            |view: &View| matches!(view.role, Role::Leading(_)) && id(view) != id(of) && rank(view) > rank(of);
        !members().any(|view| is_known(&view.me) && !view.damaged) && !holders().any(leads_above)
    })
}

/// What each node says of itself, a line or two each.
pub fn reasons(nodes: &[(u16, Option<View>)]) -> String {
    nodes
        .iter()
        .map(|(number, view)| view.as_ref().map_or(format!("  node {number}: down\n"), |view| reason(*number, view)))
        .collect()
}

fn reason(number: u16, view: &View) -> String {
    let leader = view.leader.and_then(|leader| view.nodes.get(&leader));
    let leader = match leader {
        None => "no leader".to_owned(),
        Some(seen) => format!("leader {}", if seen.connected { "connected" } else { "gone" }),
    };
    let gap = if view.head_next > view.next {
        format!(", {} behind the head at {}", view.head_next.since(view.next), view.head_next)
    } else {
        String::new()
    };
    let catch_up = view.catch_up.as_ref().map_or(String::new(), |catch_up| {
        format!(", catching up by {:?} ({} of {} bytes)", catch_up.path, catch_up.bytes, catch_up.bytes_of)
    });
    let seen = view.nodes.iter().map(|(node, seen)| {
        let number = u16::from_be_bytes([node.0[0], node.0[1]]);
        let marks = [(seen.known, "known"), (seen.connected, "connected"), (seen.lost, "lost")];
        let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        format!(
            "{number} {}{}",
            marks.join("+"),
            seen.stored.map_or(String::new(), |stored| format!(" stored {stored}"))
        )
    });
    format!(
        "  node {number}: {:?}, {leader}, confirmed {}, next {} (log from {}, {} on disk){gap}{catch_up}, done {}, {} in the \
         outbox{}, founding {:?}, {}\n      hears {}\n",
        view.role,
        view.confirmed.map_or("nothing".to_owned(), |session| session.to_string()),
        view.next,
        view.log_first,
        view.synced,
        view.done.map_or("nothing".to_owned(), |done| format!("{} held by {} of {}", done.index, done.held, done.of)),
        view.outbox,
        if view.damaged { ", damaged" } else { "" },
        view.founding,
        view.not_ready.as_deref().unwrap_or("ready"),
        seen.collect::<Vec<_>>().join(", "),
    )
}
