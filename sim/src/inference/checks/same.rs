//! Whoever joined by a snapshot ends with the same as one that saw every event: custom cards on disk, runners, streams.

use std::collections::BTreeMap;

use lockstep_inference::gateway::GatewayView;
use lockstep_inference::id::ModelId;
use lockstep_inference::state::{ModelCard, State};
use lockstep_inference::worker::WorkerView;
use lockstep_replication::NodeId;

/// How a machine ended.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    /// Which.
    pub node: NodeId,
    /// What its node knows.
    pub state: &'a State,
    /// The copies on its disk.
    pub cards: &'a BTreeMap<ModelId, ModelCard>,
    /// Its worker.
    pub worker: WorkerView,
    /// Its gateway.
    pub gateway: GatewayView,
}

/// What differs from what its state says, if anything does.
pub fn differs(ended: &Ended<'_>) -> Option<String> {
    let Ended { state, cards, worker, gateway, node } = ended;
    let custom: BTreeMap<&ModelId, &ModelCard> =
        state.cards.iter().filter(|(_, card)| card.custom).map(|(model, card)| (model, &**card)).collect();
    if !cards.iter().eq(custom) {
        return Some(format!("its disk has copies of {:?}, the state has other custom cards", cards.keys()));
    }
    let its = state.runners.iter().filter(|(_, runner)| runner.node == *node).map(|(id, _)| *id);
    if !worker.runners.iter().map(|runner| runner.runner).eq(its) {
        return Some("its worker has other runners than the state".into());
    }
    if let Some(runner) =
        worker.runners.iter().find(|it| state.runners.get(&it.runner).map(|its| &its.status) != Some(&it.status))
    {
        return Some(format!("its worker says that {} is {:?}, the state does not", runner.runner, runner.status));
    }
    if worker.tasks > 0 || worker.wishes > 0 || worker.input_bytes > 0 {
        let (tasks, wishes, bytes) = (worker.tasks, worker.wishes, worker.input_bytes);
        return Some(format!("its worker has {tasks} tasks, {wishes} wishes, {bytes} bytes of input left"));
    }
    if gateway.streams > 0 || gateway.calling_off > 0 || gateway.input_bytes > 0 {
        let (streams, off, bytes) = (gateway.streams, gateway.calling_off, gateway.input_bytes);
        return Some(format!("its gateway has {streams} streams, {off} to call off, {bytes} bytes of input left"));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockstep_inference::id::{InstanceId, RunnerId};
    use lockstep_inference::state::{Runner, RunnerStatus};
    use lockstep_replication::Index;

    use super::*;

    fn gateway() -> GatewayView {
        GatewayView { next: Index(0), streams: 0, input_bytes: 0, calling_off: 0, counts: Default::default() }
    }

    #[test]
    fn what_is_left_over_or_lacks_is_found() {
        let node = NodeId::example(1);
        let (mut state, none) = (State::default(), BTreeMap::new());
        let card = ModelCard {
            name: "c".into(),
            weights_bytes: 1,
            layers: 1,
            context_tokens: 1,
            custom: true,
            runner: "echo".into(),
            settings: BTreeMap::new(),
        };
        let cards = BTreeMap::from([(ModelId::new("c"), card.clone())]);
        let differs =
            |state: &State, cards: &BTreeMap<ModelId, ModelCard>, worker: WorkerView, gateway: GatewayView| {
                differs(&Ended { node, state, cards, worker, gateway }).is_some()
            };
        assert!(!differs(&state, &none, WorkerView::default(), gateway()));
        assert!(differs(&state, &cards, WorkerView::default(), gateway()));
        assert!(differs(&state, &none, WorkerView { tasks: 1, ..WorkerView::default() }, gateway()));
        assert!(differs(&state, &none, WorkerView::default(), GatewayView { streams: 1, ..gateway() }));
        state.cards.insert(ModelId::new("c"), Arc::new(card));
        assert!(differs(&state, &none, WorkerView::default(), gateway()));
        assert!(!differs(&state, &cards, WorkerView::default(), gateway()));
        let runner = Runner { instance: InstanceId([1; 16]), node, status: RunnerStatus::Ready };
        state.runners.insert(RunnerId([1; 16]), Arc::new(runner));
        assert!(differs(&state, &cards, WorkerView::default(), gateway()));
    }
}
