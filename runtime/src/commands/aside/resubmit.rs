//! What a client asked for, read back from what happened: a set-aside entry holds events, a leader decides commands.

use std::collections::BTreeMap;
use std::io;

use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::event::Event;
use lockstep_inference::id::{InstanceId, ModelId};
use lockstep_inference::state::TaskStatus;
use lockstep_replication::Hash;
use lockstep_replication::entry::{Body, Entry, Record};
use serde_json::{Value, json};

/// Which model each instance is made of: a task's event names its instance, a command its model.
#[derive(Debug, Default)]
pub struct Models(BTreeMap<InstanceId, ModelId>);

/// A command to order again, under a name that is the same wherever its entry was set aside.
#[derive(Debug)]
pub struct Wished {
    name: String,
    command: Command,
}

impl Wished {
    /// The command of this entry.
    pub fn new(record: &Record, command: Command) -> Wished {
        Wished { name: format!("aside-{}", Hash::of(&record.bytes)), command }
    }

    /// As a line for the API.
    pub fn line(&self) -> io::Result<String> {
        Ok(format!("{}\n", json!({"id": self.name, "command": serde_json::to_value(&self.command)?})))
    }
}

impl Models {
    /// Those that a state, in JSON, knows.
    pub fn of(state: Option<&Value>) -> Models {
        let instances = state.and_then(|state| state["instances"].as_object());
        let known = instances.into_iter().flatten().filter_map(|(instance, facts)| {
            let instance = serde_json::from_value(Value::String(instance.clone())).ok()?;
            Some((instance, serde_json::from_value(facts["model"].clone()).ok()?))
        });
        Models(known.collect())
    }

    /// The command that led to this entry; none if no client asked for it, or it cannot be done again.
    pub fn command(&mut self, entry: &Entry<Inference>) -> Option<Command> {
        let decided = match &entry.body {
            Body::Decided(decided) => decided,
            Body::Opened(_) | Body::Backed | Body::Generation { .. } | Body::Known(_) => return None,
        };
        // The leader's own liveness proposes nothing; its findings are made anew by whoever leads.
        decided.proposal.as_ref()?;
        for event in &decided.events {
            if let Event::InstanceCreated { instance, model, .. } = event {
                self.0.insert(*instance, model.clone());
            }
        }
        // Giving up a node deletes its instances by events before its own: what comes last is what was asked for.
        self.of_event(decided.events.last()?)
    }

    fn of_event(&self, event: &Event) -> Option<Command> {
        Some(match event.clone() {
            Event::NodeEvicted { node } => Command::EvictNode { node },
            Event::CardAdded { model, card } => Command::AddCard { model, card },
            Event::CardDeleted { model } => Command::DeleteCard { model },
            Event::InstanceCreated { instance, model, ranks } => {
                let nodes = ranks.into_iter().map(|rank| rank.node).collect();
                Command::CreateInstance { instance: Some(instance), model, nodes }
            }
            Event::InstanceDeleted { instance } => Command::DeleteInstance { instance },
            Event::TaskCreated { task, instance, kind, input, gateway } => {
                Command::CreateTask { task: Some(task), model: self.0.get(&instance)?.clone(), kind, input, gateway }
            }
            Event::TaskStatusChanged { task, status } => match status {
                TaskStatus::Running => Command::StartTask { task },
                TaskStatus::Pending => return None,
            },
            Event::TaskCancelled { task } => Command::CancelTask { task },
            Event::TaskFinished { task, outcome } => Command::FinishTask { task, outcome },
            Event::TaskDeleted { task } => Command::DeleteTask { task },
            // Nodes tell these of themselves, and by now perhaps others.
            Event::NodeJoined { .. }
            | Event::NodeInfoChanged { .. }
            | Event::NodeTimedOut { .. }
            | Event::NodeReturned { .. }
            | Event::LinksChanged { .. }
            | Event::RunnerStatusChanged { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use lockstep_inference::workload::Workload;
    use lockstep_replication::entry::Decided;
    use lockstep_replication::id::ProposalId;
    use lockstep_replication::{App as _, Index, NodeId, Observed, Place, Wall, Wish};

    use super::*;

    fn entry(index: u64, events: Vec<Event>) -> Entry<Inference> {
        let proposal = Some(ProposalId { node: NodeId::example(1), generation: 1, n: index + 1 });
        let body = Body::Decided(Decided { proposal, command: None, events });
        Entry { index: Index(index), stamp: Wall(0), body }
    }

    #[test]
    fn the_commands_of_a_workload_are_read_back_from_its_events() {
        let mut state = Default::default();
        let mut models = Models::default();
        let observed = Observed { telemetry: BTreeMap::new(), schema: 1, wall: Wall(0) };
        for (index, command) in Workload::new(5).take(3000).enumerate() {
            let events = Inference::decide(&state, &observed, Wish::Command(command.clone())).unwrap();
            let place = Place { index: Index(index as u64), stamp: Wall(0) };
            events.iter().for_each(|event| Inference::apply(&mut state, event, place));
            let again = models.command(&entry(index as u64, events));
            if matches!(command, Command::SetNodeInfo { .. }) {
                assert_eq!(again, None);
            } else {
                assert_eq!(again, Some(command));
            }
        }
    }

    #[test]
    fn what_the_leader_found_by_itself_is_not_submitted_again() {
        let mut found = entry(0, vec![Event::NodeEvicted { node: NodeId::example(2) }]);
        assert!(Models::default().command(&found).is_some());
        let Body::Decided(decided) = &mut found.body else { panic!("decided") };
        decided.proposal = None;
        assert_eq!(Models::default().command(&found), None);
    }

    #[test]
    fn the_models_of_instances_are_read_from_a_state() {
        let instance = InstanceId([1; 16]);
        let name = serde_json::to_value(instance).unwrap();
        let state = json!({"instances": {name.as_str().unwrap(): {"model": "m"}}});
        assert_eq!(Models::of(Some(&state)).0.get(&instance), Some(&ModelId::new("m")));
    }
}
