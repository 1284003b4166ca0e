//! How the rest of the process talks to the task that owns the node.

use std::sync::Arc;

use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::observation::Observation;
use lockstep_inference::placement::Measured;
use lockstep_inference::transient::Transient;
use lockstep_replication::io::NotTaken;
use lockstep_replication::view::NodeView;
use lockstep_replication::{CommandId, Input, NodeId, Operator, Outcome, Replica, Span, View};
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

/// What the node task publishes after each round of steps. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Published {
    /// The state as applied, and the index it stands at.
    pub replica: Replica<Inference>,
    /// The node's facts.
    pub view: View,
    /// How many of the known nodes it reaches now.
    pub reach: Reach,
    /// What the nodes said last of themselves: where an instance would be placed now follows from it.
    pub measured: Measured,
}

/// How many of the known nodes a node reaches now, itself included: so many can hold what is ordered now. Whether the
/// session is backed says of the past only that most of them confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Nodes that count for majorities.
    pub known: usize,
    /// Those of them that are connected and not silent.
    pub reached: usize,
}

impl Reach {
    /// As a node sees it for which another is silent that did not beat for longer than `silent_after`.
    pub fn of(view: &View, silent_after: Span) -> Reach {
        let beats = |node: &NodeView| node.heard_ago_ms.is_some_and(|ago| ago <= silent_after.as_millis());
        let known = view.nodes.iter().filter(|(_, node)| node.known);
        let reached = known.clone().filter(|(id, node)| **id == view.me || node.connected && beats(node));
        Reach { known: known.count(), reached: reached.count() }
    }
}

/// What the node task is asked.
#[derive(Debug)]
pub enum Request {
    /// A client's command; the sender gets exactly one outcome.
    Command {
        /// The client's name for it.
        id: Option<CommandId>,
        /// What it asks for.
        command: Box<Command>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Outcome<Inference>>,
    },
    /// An observation, telemetry, a transient.
    Input(Box<Input<Inference>>),
    /// The operator's hand.
    Operator(Operator),
}

/// A handle to the node task. Cloned freely.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    requests: mpsc::Sender<Request>,
    published: watch::Receiver<Arc<Published>>,
}

impl NodeHandle {
    /// A handle onto a task that reads `requests` and keeps `published` new.
    pub fn new(requests: mpsc::Sender<Request>, published: watch::Receiver<Arc<Published>>) -> Self {
        NodeHandle { requests, published }
    }

    /// The newest state and facts.
    pub fn now(&self) -> Arc<Published> {
        self.published.borrow().clone()
    }

    /// A receiver that tells when they change.
    pub fn changes(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }

    /// Hands a command to the node. The receiver gets the outcome; it fails only if the process is ending.
    pub async fn command(
        &self,
        id: Option<CommandId>,
        command: Command,
    ) -> Result<oneshot::Receiver<Outcome<Inference>>, NotTaken> {
        let (reply, outcome) = oneshot::channel();
        let request = Request::Command { id, command: Box::new(command), reply };
        self.requests.send(request).await.map_err(|_| NotTaken::Leaving)?;
        Ok(outcome)
    }

    /// As [`Self::command`], without waiting for a place: none is [`NotTaken::Full`].
    pub fn try_command(
        &self,
        id: Option<CommandId>,
        command: Command,
    ) -> Result<oneshot::Receiver<Outcome<Inference>>, NotTaken> {
        let (reply, outcome) = oneshot::channel();
        self.offer(Request::Command { id, command: Box::new(command), reply })?;
        Ok(outcome)
    }

    /// Has this ordered, without waiting for a place. A newer one of the same key replaces it.
    pub fn observe(&self, observation: Observation) -> Result<(), NotTaken> {
        self.offer(Request::Input(Box::new(Input::Observe(observation))))
    }

    /// Sends a signal of one request to a node, without waiting for a place. It may be lost anyway.
    pub fn transient(&self, to: NodeId, transient: Transient) -> Result<(), NotTaken> {
        self.offer(Request::Input(Box::new(Input::Transient { to: Some(to), transient })))
    }

    /// Tells the others that this node may stall for so long, without waiting for a place.
    pub fn busy(&self, span: Span) -> Result<(), NotTaken> {
        self.offer(Request::Input(Box::new(Input::Busy(span))))
    }

    fn offer(&self, request: Request) -> Result<(), NotTaken> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Full,
            TrySendError::Closed(_) => NotTaken::Leaving,
        })
    }

    /// Passes the operator's hand on.
    pub async fn operator(&self, operator: Operator) -> Result<(), NotTaken> {
        self.requests.send(Request::Operator(operator)).await.map_err(|_| NotTaken::Leaving)
    }

    /// Passes an observation or telemetry on.
    pub async fn input(&self, input: Input<Inference>) -> Result<(), NotTaken> {
        self.requests.send(Request::Input(Box::new(input))).await.map_err(|_| NotTaken::Leaving)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::tests::view;

    #[test]
    fn a_node_is_reached_that_is_known_connected_and_not_silent() {
        let me = NodeId::example(1);
        let node = |known, connected, heard_ago_ms| NodeView { known, connected, heard_ago_ms, ..NodeView::default() };
        let mut view = View { me, nodes: BTreeMap::from([(me, node(true, true, None))]), ..view() };
        let silent_after = Span::seconds(3);
        assert_eq!(Reach::of(&view, silent_after), Reach { known: 1, reached: 1 });
        for (n, other) in [
            (2, node(true, true, Some(3000))),
            (3, node(true, true, Some(3001))),
            (4, node(true, true, None)),
            (5, node(true, false, Some(10))),
            (6, node(false, true, Some(10))),
        ] {
            view.nodes.insert(NodeId::example(n), other);
        }
        assert_eq!(Reach::of(&view, silent_after), Reach { known: 5, reached: 2 });
        view.me = NodeId::example(6);
        assert_eq!(Reach::of(&view, silent_after), Reach { known: 5, reached: 1 }, "a guest does not count itself");
    }
}
