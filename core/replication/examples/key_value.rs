//! A map replicated by two nodes, in memory: `cargo run -p lockstep-replication --example key_value`.

use std::collections::{BTreeMap, VecDeque};

use imbl::OrdMap;
use lockstep_replication::io::{Kept, Work, Worked};
use lockstep_replication::{
    App, Boot, Config, Input, Moment, Node, NodeId, Now, Observed, Output, Place, Replica, Restored, Seed, Ticket,
    Wall, Wish,
};

/// What is replicated. A command is a key and its new value; so is the event that it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map;

impl App for Map {
    type State = OrdMap<String, String>;
    type Event = (String, String);
    type Command = (String, String);
    type Observation = ();
    type Transient = ();
    type Telemetry = ();
    type Refusal = String;
    const SCHEMA: u32 = 1;

    /// Runs on the leader alone.
    fn decide(state: &Self::State, _: &Observed<Self>, wish: Wish<Self>) -> Result<Vec<Self::Event>, String> {
        match wish {
            Wish::Command((key, _)) if state.contains_key(&key) => Err(format!("{key} is taken")),
            Wish::Command(pair) => Ok(vec![pair]),
            Wish::Observation(..) | Wish::Liveness(..) => Ok(Vec::new()),
        }
    }

    /// Runs on every node.
    fn apply(state: &mut Self::State, (key, value): &Self::Event, _: Place) {
        state.insert(key.clone(), value.clone());
    }

    fn key((): &()) -> u64 {
        0
    }
}

fn main() {
    let ids = [NodeId::example(1), NodeId::example(2)];
    let config = Config { founders: ids.len(), ..Config::default() };
    let mut nodes: BTreeMap<NodeId, Node<Map>> = BTreeMap::new();
    for (nonce, id) in (1..).zip(ids) {
        let empty = Restored::new(Boot { starts: 1, nonce }, Kept::default(), Replica::default());
        nodes.insert(id, Node::new(id, config.clone(), Seed::from_number(nonce), empty, Now::default()));
    }
    // A real driver has sockets, a disk and clocks here. This one has a queue, and a time that jumps.
    let mut inputs = VecDeque::from([(ids[0], Input::Connected(ids[1])), (ids[1], Input::Connected(ids[0]))]);
    let mut clients = vec![("colour", "green"), ("shape", "round"), ("colour", "blue")];
    let (mut time, mut replies) = (Moment(0), 0);
    while replies < 3 || nodes.values().any(|node| node.state().len() < 2) {
        // Once both have the founding, clients ask both.
        if nodes.values().all(|node| node.replica().next().0 > 0) {
            for (n, (key, value)) in (0..).zip(clients.drain(..)) {
                let command = Input::Command { ticket: Ticket(n), id: None, command: (key.into(), value.into()) };
                inputs.push_back((ids[n as usize % 2], command));
            }
        }
        let (id, input) = inputs.pop_front().unwrap_or_else(|| {
            let due = |(id, node): (&NodeId, &Node<Map>)| node.next_wake().map(|wake| (wake.at, *id));
            let (at, id) = nodes.iter().filter_map(due).min().expect("a node always wants to be woken again");
            time = time.max(at);
            (id, Input::Wake)
        });
        let mut outputs = Vec::new();
        let now = Now { at: time, wall: Wall(time.0 / 1_000_000) };
        nodes.get_mut(&id).expect("all inputs are for these two").step(now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Send { to, message } => inputs.push_back((to, Input::Message { from: id, message })),
                Output::Broadcast(message) => {
                    let others = ids.iter().filter(|other| **other != id);
                    inputs.extend(others.map(|to| (*to, Input::Message { from: id, message: message.clone() })));
                }
                // Nothing is kept: a crash would lose it all.
                Output::Work { id: work, work: Work::Keep(_) | Work::Append { .. } } => {
                    inputs.push_back((id, Input::Worked { id: work, result: Ok(Worked::Stored) }));
                }
                Output::Reply { ticket: Ticket(client), outcome } => {
                    println!("node {id:?} answers client {client}: {outcome:?}");
                    replies += 1;
                }
                Output::Role(role) => println!("node {id:?} is {role:?}"),
                Output::Applied(entry) => println!("node {id:?} applies entry {}: {:?}", entry.index, entry.body),
                // Nobody joins late, leaves or fails here.
                Output::Replaced { .. } | Output::Transient { .. } | Output::Notice(_) | Output::Work { .. } => {}
                Output::Refuse { .. } | Output::Left | Output::Stop(_) => {}
            }
        }
    }
    assert_eq!(nodes[&ids[0]].state(), nodes[&ids[1]].state());
    println!("both hold {:?}", nodes[&ids[0]].state());
}
