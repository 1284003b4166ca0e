//! How much of anything the state may hold, and the checks that hold clients to it.
//!
//! Part of the decisions, so not a matter of configuration. An entry of the log may have 32 KiB; no command that stays
//! within these limits comes near that.

use lockstep_replication::NodeId;

use crate::id::ModelId;
use crate::refusal::Refusal;
use crate::state::{ModelCard, NodeInfo};

/// The most nodes: as many as the replication admits.
pub const NODES: usize = 1024;
/// The most model cards.
pub const CARDS: usize = 1024;
/// The most instances.
pub const INSTANCES: usize = 1024;
/// The most tasks at one time: a few megabytes of state, minutes of work for any cluster.
pub const TASKS: usize = 50_000;
/// The most ranks of one instance.
pub const RANKS: usize = 64;
/// The most neighbours recorded for a node; a mesh needs far fewer to stay whole.
pub const NEIGHBOURS: usize = 256;
/// The most addresses of a node.
pub const ADDRESSES: usize = 16;
/// The longest name of a node or model card, in characters.
pub const NAME_CHARS: usize = 100;
/// The longest model id, in characters.
pub const MODEL_CHARS: usize = 200;
/// The longest address, in characters.
pub const ADDRESS_CHARS: usize = 200;
/// The most settings of a model card.
pub const SETTINGS: usize = 16;
/// The longest value of a setting, in characters. Its name has at most half as many.
pub const SETTING_CHARS: usize = 150;
/// The most runners that a node names with each beat; those that come first in order.
pub const RUNNERS: usize = 32;
/// The longest reason of a failure, in characters.
pub const REASON_CHARS: usize = 500;

/// Refuses text that is empty, longer than `limit` characters, or holds control characters.
pub(crate) fn check_text(what: &str, text: &str, limit: usize) -> Result<(), Refusal> {
    let found = text.chars().count();
    if found == 0 {
        return Err(Refusal::Empty { what: what.into() });
    }
    if found > limit {
        return Err(Refusal::TooLong { what: what.into(), found: found as u64, limit: limit as u64 });
    }
    // A terminal would obey them.
    if text.chars().any(char::is_control) {
        return Err(Refusal::ControlCharacter { what: what.into() });
    }
    Ok(())
}

/// Refuses ids that no card can have, before they come back in another refusal.
pub(crate) fn check_model(model: &ModelId) -> Result<(), Refusal> {
    check_text("the model id", &model.0, MODEL_CHARS)
}

/// Refuses a list with more than `limit` items.
pub(crate) fn check_list(what: &str, found: usize, limit: usize) -> Result<(), Refusal> {
    if found > limit {
        return Err(Refusal::TooMany { what: what.into(), found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Refuses to add one more to what has reached its limit.
pub(crate) fn check_room(what: &str, present: usize, limit: usize) -> Result<(), Refusal> {
    if present >= limit {
        return Err(Refusal::Full { what: what.into(), limit: limit as u64 });
    }
    Ok(())
}

pub(crate) fn check_info(info: &NodeInfo) -> Result<(), Refusal> {
    check_text("the node's name", &info.name, NAME_CHARS)?;
    check_list("addresses", info.addresses.len(), ADDRESSES)?;
    info.addresses.iter().try_for_each(|address| check_text("an address", address, ADDRESS_CHARS))
}

pub(crate) fn check_card(card: &ModelCard) -> Result<(), Refusal> {
    check_text("the model's name", &card.name, NAME_CHARS)?;
    check_text("the runner's name", &card.runner, NAME_CHARS)?;
    check_list("settings", card.settings.len(), SETTINGS)?;
    for (name, value) in &card.settings {
        check_text("a setting's name", name, SETTING_CHARS / 2)?;
        check_text("a setting's value", value, SETTING_CHARS)?;
    }
    let numbers = [
        ("weights_bytes", card.weights_bytes),
        ("layers", card.layers.into()),
        ("context_tokens", card.context_tokens.into()),
    ];
    match numbers.into_iter().find(|(_, number)| *number == 0) {
        Some((what, _)) => Err(Refusal::Zero { what: what.into() }),
        None => Ok(()),
    }
}

/// What a node says of itself, cut to the limits: nobody would read a refusal of it.
pub(crate) fn cut_info(mut info: NodeInfo) -> NodeInfo {
    info.name = cut_text(&info.name, NAME_CHARS);
    info.addresses.truncate(ADDRESSES);
    info.addresses.iter_mut().for_each(|address| *address = cut_text(address, ADDRESS_CHARS));
    info
}

/// Text without control characters, cut to `limit` characters.
pub(crate) fn cut_text(text: &str, limit: usize) -> String {
    text.chars().filter(|char| !char.is_control()).take(limit).collect()
}

/// The first node that is listed a second time.
pub(crate) fn listed_twice(nodes: &[NodeId]) -> Option<NodeId> {
    nodes.iter().enumerate().find(|(at, node)| nodes[..*at].contains(node)).map(|(_, node)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::id::{InstanceId, RunnerId};
    use crate::state::{Rank, RunnerStatus};

    #[test]
    fn text_is_held_to_its_limit_in_characters() {
        assert_eq!(check_text("it", "äöü", 3), Ok(()));
        let said = |text| check_text("the name", text, 3).unwrap_err().to_string();
        assert_eq!(said(""), "the name is empty: give it at least one character");
        assert_eq!(said("äöüß"), "the name has 4 characters: shorten it to at most 3");
        assert_eq!(said("a\n"), "the name holds a control character: leave line breaks and escapes out");
    }

    #[test]
    fn what_nodes_say_is_cut_to_what_commands_may_say() {
        let long = "x\u{1b}".repeat(1000);
        let info = cut_info(NodeInfo { name: long.clone(), addresses: vec![long; 100], memory_bytes: 1 });
        assert_eq!(check_info(&info), Ok(()));
        assert_eq!((info.name.len(), info.addresses.len()), (NAME_CHARS, ADDRESSES));
    }

    #[test]
    fn the_longest_events_fit_into_an_entry_with_room_to_spare() {
        let wide = |chars| "\u{10ffff}".repeat(chars);
        let info =
            NodeInfo { name: wide(NAME_CHARS), addresses: vec![wide(ADDRESS_CHARS); ADDRESSES], memory_bytes: 0 };
        assert_eq!(check_info(&info), Ok(()));
        let instance = InstanceId([0; 16]);
        let rank = Rank { node: NodeId::example(0), runner: RunnerId::of(instance, 0) };
        let (node, model, runner) = (rank.node, ModelId::new(&wide(MODEL_CHARS)), rank.runner);
        let reaches = (0..=u8::MAX).map(NodeId::example).take(NEIGHBOURS).collect();
        let settings =
            (0..SETTINGS).map(|n| (wide(SETTING_CHARS / 2 - 2) + &format!("{n:02}"), wide(SETTING_CHARS))).collect();
        let card = ModelCard { name: wide(NAME_CHARS), runner: wide(NAME_CHARS), settings, ..crate::testing::card(1) };
        assert_eq!(check_card(&card), Ok(()));
        let entries = [
            vec![Event::CardAdded { model: model.clone(), card }],
            vec![Event::NodeJoined { node }, Event::NodeInfoChanged { node, info }],
            vec![Event::LinksChanged { node, reaches }],
            vec![Event::InstanceCreated { instance, model, ranks: vec![rank; RANKS] }],
            vec![Event::InstanceDeleted { instance }; INSTANCES],
            vec![Event::RunnerStatusChanged { runner, status: RunnerStatus::Failed { reason: wide(REASON_CHARS) } }],
        ];
        for events in entries {
            let bytes = postcard::to_stdvec(&events).unwrap().len();
            assert!(bytes < 20 << 10, "{bytes} bytes of {:?}", events[0]);
        }
    }

    #[test]
    fn a_node_listed_twice_is_found() {
        let [a, b] = [NodeId::example(1), NodeId::example(2)];
        assert_eq!(listed_twice(&[a, b]), None);
        assert_eq!(listed_twice(&[a, b, a]), Some(a));
    }
}
