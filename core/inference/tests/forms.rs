//! The forms that outlive a process: stored and sent bytes, and the JSON of the API.
//!
//! What changes here changes what is on people's disks. If that is meant, raise `SCHEMA`, see that older forms are
//! still read, look at the difference, and accept it with `INSTA_UPDATE=always cargo test -p lockstep-inference`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lockstep_inference::command::Command;
use lockstep_inference::event::Event;
use lockstep_inference::id::{InstanceId, ModelId, RunnerId, TaskId};
use lockstep_inference::observation::Observation;
use lockstep_inference::placement::Measured;
use lockstep_inference::refusal::Refusal;
use lockstep_inference::state::{
    InputName, ModelCard, NodeInfo, Rank, RunnerStatus, State, TaskKind, TaskOutcome, TaskStatus,
};
use lockstep_inference::workload::Workload;
use lockstep_inference::{Inference, apply::apply, decide::decide};
use lockstep_replication::{App, Hash, Index, Liveness, NodeId, Place, Wall, Wish};
use serde::{Serialize, de::DeserializeOwned};

const NODE: NodeId = NodeId::example(1);
const INSTANCE: InstanceId = InstanceId([0xa1; 16]);
const RUNNER: RunnerId = RunnerId::of(INSTANCE, 1);
const TASK: TaskId = TaskId([0xb2; 16]);
const INPUT: InputName = InputName { hash: Hash([0xc3; 32]), bytes: 1234 };

fn model() -> ModelId {
    ModelId::new("acme/small-8b")
}

fn card() -> ModelCard {
    ModelCard {
        name: "Small".into(),
        weights_bytes: 8 << 30,
        layers: 32,
        context_tokens: 8192,
        custom: true,
        runner: "openai".into(),
        settings: [("url".to_owned(), "http://127.0.0.1:8080/v1".to_owned())].into(),
    }
}

fn info() -> NodeInfo {
    NodeInfo { name: "studio".into(), addresses: vec!["10.0.0.1:7000".into()], memory_bytes: 64 << 30 }
}

fn failure() -> TaskOutcome {
    TaskOutcome::Failed { reason: "out of memory".into() }
}

fn commands() -> Vec<Command> {
    let (node, task, input) = (NODE, TASK, INPUT);
    vec![
        Command::SetNodeInfo { node, info: info() },
        Command::EvictNode { node },
        Command::AddCard { model: model(), card: card() },
        Command::DeleteCard { model: model() },
        Command::CreateInstance { instance: Some(INSTANCE), model: model(), nodes: vec![NODE, NodeId::example(2)] },
        Command::DeleteInstance { instance: INSTANCE },
        Command::CreateTask {
            task: Some(TASK),
            model: model(),
            kind: TaskKind::Chat { max_tokens: 256 },
            input,
            gateway: Some(NODE),
        },
        Command::CreateTask { task: None, model: model(), kind: TaskKind::Embedding, input, gateway: None },
        Command::StartTask { task },
        Command::FinishTask { task, outcome: TaskOutcome::Done { tokens: 300 } },
        Command::FinishTask { task, outcome: failure() },
        Command::CancelTask { task },
        Command::DeleteTask { task },
        Command::PlaceInstance { instance: Some(INSTANCE), model: model(), ranks: Some(2) },
        Command::PlaceInstance { instance: None, model: model(), ranks: None },
    ]
}

fn runner_statuses() -> Vec<RunnerStatus> {
    vec![
        RunnerStatus::Idle,
        RunnerStatus::Connecting,
        RunnerStatus::Connected,
        RunnerStatus::Loading { percent: 42 },
        RunnerStatus::Loaded,
        RunnerStatus::WarmingUp,
        RunnerStatus::Ready,
        RunnerStatus::Running,
        RunnerStatus::ShuttingDown,
        RunnerStatus::ShutDown,
        RunnerStatus::Failed { reason: "out of memory".into() },
    ]
}

fn events() -> Vec<Event> {
    let (node, instance, task, input) = (NODE, INSTANCE, TASK, INPUT);
    let ranks =
        vec![Rank { node, runner: RunnerId::of(instance, 0) }, Rank { node: NodeId::example(2), runner: RUNNER }];
    let mut events = vec![
        Event::NodeJoined { node },
        Event::NodeInfoChanged { node, info: info() },
        Event::NodeTimedOut { node },
        Event::NodeReturned { node },
        Event::NodeEvicted { node },
        Event::LinksChanged { node, reaches: [NodeId::example(2), NodeId::example(3)].into() },
        Event::CardAdded { model: model(), card: card() },
        Event::CardDeleted { model: model() },
        Event::InstanceCreated { instance, model: model(), ranks },
        Event::InstanceDeleted { instance },
        Event::TaskCreated { task, instance, kind: TaskKind::Chat { max_tokens: 256 }, input, gateway: Some(NODE) },
        Event::TaskCreated { task, instance, kind: TaskKind::Embedding, input, gateway: None },
        Event::TaskCreated { task, instance, kind: TaskKind::Image { steps: 30 }, input, gateway: None },
        Event::TaskStatusChanged { task, status: TaskStatus::Pending },
        Event::TaskStatusChanged { task, status: TaskStatus::Running },
        Event::TaskCancelled { task },
        Event::TaskFinished { task, outcome: TaskOutcome::Done { tokens: 300 } },
        Event::TaskFinished { task, outcome: failure() },
        Event::TaskDeleted { task },
    ];
    let changed = |status| Event::RunnerStatusChanged { runner: RUNNER, status };
    events.extend(runner_statuses().into_iter().map(changed));
    events
}

/// The number that logs hold for each event. Never change one; give a new event the next.
fn number(event: &Event) -> u8 {
    match event {
        Event::NodeJoined { .. } => 0,
        Event::NodeInfoChanged { .. } => 1,
        Event::NodeTimedOut { .. } => 2,
        Event::NodeReturned { .. } => 3,
        Event::NodeEvicted { .. } => 4,
        Event::LinksChanged { .. } => 5,
        Event::CardAdded { .. } => 6,
        Event::CardDeleted { .. } => 7,
        Event::InstanceCreated { .. } => 8,
        Event::InstanceDeleted { .. } => 9,
        Event::RunnerStatusChanged { .. } => 10,
        Event::TaskCreated { .. } => 11,
        Event::TaskStatusChanged { .. } => 12,
        Event::TaskCancelled { .. } => 13,
        Event::TaskFinished { .. } => 14,
        Event::TaskDeleted { .. } => 15,
    }
}

/// The same for commands.
fn command_number(command: &Command) -> u8 {
    match command {
        Command::SetNodeInfo { .. } => 0,
        Command::EvictNode { .. } => 1,
        Command::AddCard { .. } => 2,
        Command::DeleteCard { .. } => 3,
        Command::CreateInstance { .. } => 4,
        Command::DeleteInstance { .. } => 5,
        Command::CreateTask { .. } => 6,
        Command::StartTask { .. } => 7,
        Command::FinishTask { .. } => 8,
        Command::CancelTask { .. } => 9,
        Command::DeleteTask { .. } => 10,
        Command::PlaceInstance { .. } => 11,
    }
}

/// Both forms of each, a line each; and that both are read back as what was written.
fn both_forms<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(values: &[T]) -> String {
    let mut lines = String::new();
    for value in values {
        let bytes = postcard::to_stdvec(value).unwrap();
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), *value);
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(lines, "{json}\n    {hex}").unwrap();
    }
    lines
}

#[test]
fn each_event_is_written_as_it_always_was() {
    let events = events();
    for event in &events {
        assert_eq!(postcard::to_stdvec(event).unwrap()[0], number(event), "{event:?}");
    }
    assert_eq!(events.iter().map(number).collect::<BTreeSet<_>>(), (0..16).collect(), "an event has no example here");
    insta::assert_snapshot!(both_forms(&events));
}

#[test]
fn each_command_is_written_as_it_always_was() {
    let commands = commands();
    for command in &commands {
        assert_eq!(postcard::to_stdvec(command).unwrap()[0], command_number(command), "{command:?}");
    }
    let numbers: BTreeSet<u8> = commands.iter().map(command_number).collect();
    assert_eq!(numbers, (0..12).collect(), "a command has no example here");
    insta::assert_snapshot!(both_forms(&commands));
}

#[test]
fn observations_and_refusals_have_both_forms() {
    both_forms(&[
        Observation::Info(info()),
        Observation::Links([NODE].into()),
        Observation::Runner { runner: RUNNER, status: RunnerStatus::Ready },
    ]);
    both_forms(&[
        Refusal::TooLong { what: "the model id".into(), found: 201, limit: 200 },
        Refusal::ModelInUse { model: model(), instance: INSTANCE },
        Refusal::UnknownTask { task: TASK },
        Refusal::TooFewNodes { model: model(), ranks: 3, nodes: 2, unmeasured: 1 },
        Refusal::NoRunner { model: model(), runner: "vllm".into(), needed: 1, nodes: 0, without: 3 },
        Refusal::NodeLacksRunner { node: NODE, runner: "vllm".into(), has: "echo, openai".into() },
    ]);
}

/// A state with some of everything in it.
fn grown(commands: usize) -> State {
    let mut state = State::default();
    let mut n = 0;
    let mut wish = |wish: Wish<Inference>| {
        for event in decide(&state, &Measured::new(), wish).unwrap() {
            apply(&mut state, &event, Place { index: Index(n), stamp: Wall(1_790_000_000_000 + n) });
            n += 1;
        }
    };
    for node in 1..=3 {
        wish(Wish::Liveness(NodeId::example(node), Liveness::Heard));
        let others = (1..=3).filter(|other| *other != node).map(NodeId::example).collect();
        wish(Wish::Observation(NodeId::example(node), Observation::Links(others)));
    }
    wish(Wish::Liveness(NodeId::example(3), Liveness::Lost));
    Workload::new(11).take(commands).for_each(|command| wish(Wish::Command(command)));
    for (node, status) in (1..).zip(runner_statuses()) {
        let (node, instance) = (NodeId::example(node % 2 + 1), InstanceId([node; 16]));
        let model = ModelId::new("workload-b/tern-1b");
        wish(Wish::Command(Command::CreateInstance { instance: Some(instance), model, nodes: vec![node] }));
        wish(Wish::Observation(node, Observation::Runner { runner: RunnerId::of(instance, 0), status }));
    }
    state
}

#[test]
fn a_big_state_comes_back_from_its_bytes_and_gives_the_same_bytes_again() {
    let state = grown(5000);
    assert!(state.tasks.len() > 100 && state.links.len() == 3 && state.runners.len() > 20);
    let bytes = postcard::to_stdvec(&state).unwrap();
    let back: State = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back, state);
    assert_eq!(postcard::to_stdvec(&back).unwrap(), bytes);
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
}

#[test]
fn a_state_reached_on_another_way_has_the_same_bytes() {
    // Maps that grew, shrank and were copied in between are still written in order.
    let (straight, mut detour) = (grown(2000), grown(2000));
    let kept = detour.clone();
    let extra: Vec<ModelId> = (0..500).map(|n| ModelId::new(&format!("extra-{n}"))).collect();
    let place = Place { index: Index(0), stamp: Wall(0) };
    extra.iter().for_each(|model| apply(&mut detour, &Event::CardAdded { model: model.clone(), card: card() }, place));
    extra.iter().rev().for_each(|model| apply(&mut detour, &Event::CardDeleted { model: model.clone() }, place));
    assert_eq!(postcard::to_stdvec(&detour).unwrap(), postcard::to_stdvec(&straight).unwrap());
    assert_eq!(kept, straight);
}

#[test]
fn the_state_reads_well_as_json() {
    let mut state = State::default();
    for event in events().into_iter().take(9).chain(events().into_iter().skip(10).take(1)) {
        if !matches!(event, Event::NodeEvicted { .. } | Event::CardDeleted { .. }) {
            apply(&mut state, &event, Place { index: Index(0), stamp: Wall(1_790_000_000_000) });
        }
    }
    apply(&mut state, &Event::NodeTimedOut { node: NODE }, Place { index: Index(0), stamp: Wall(1_790_000_005_000) });
    insta::assert_json_snapshot!(state);
}

#[test]
fn the_trait_names_the_right_functions() {
    let observed = lockstep_replication::Observed { telemetry: [].into(), schema: 1, wall: Wall(0) };
    let wish = Wish::<Inference>::Liveness(NODE, Liveness::Heard);
    let events = Inference::decide(&State::default(), &observed, wish).unwrap();
    assert_eq!(events, [Event::NodeJoined { node: NODE }]);
    let reached = [NodeId::example(2)].into();
    assert_eq!(Inference::links(NODE, &reached), Some(Observation::Links(reached)));
}
