//! The way from the network to the node: three bounded channels, merged by urgency when they are read.

use std::sync::Arc;

use bytes::Bytes;
use libp2p::Multiaddr;
use lockstep_replication::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Lane;

/// Connections coming and going that may wait for the node; more than that wait in the network's task.
const CONTROL_EVENTS: usize = 256;
/// Messages a lane that may wait for the node, whatever their size.
const MESSAGES_A_LANE: usize = 8192;
/// After so many urgent messages in a row a bulk message gets its turn.
const URGENT_IN_A_ROW: u32 = 64;

/// What the network tells the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    /// Both lanes to this node are open in both directions. Followed by one `Disconnected` before the next.
    Connected(NodeId),
    /// The last connection to this node is gone. Messages that had arrived before may still follow.
    Disconnected(NodeId),
    /// A message, and who wrote it, as the transport authenticated it.
    Message {
        /// Its author.
        from: NodeId,
        /// Its bytes, as they were sent.
        bytes: Bytes,
    },
    /// This node can be reached at this address.
    Listening(Multiaddr),
    /// Something at this address cannot be worked with. Repeated at most once a minute for one address.
    PeerRejected {
        /// Where it is.
        addr: Multiaddr,
        /// Why, as the end of a sentence that begins with the address.
        reason: String,
    },
}

/// Bytes of received messages that may wait for the node, a lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct InboxLimits {
    pub(super) urgent_bytes: usize,
    pub(super) bulk_bytes: usize,
}

/// The network's end for messages.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    urgent: LaneInbox,
    bulk: LaneInbox,
}

#[derive(Clone, Debug)]
struct LaneInbox {
    messages: mpsc::Sender<Received>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

#[derive(Debug)]
struct Received {
    from: NodeId,
    bytes: Bytes,
    /// Its share of the lane's bytes, given back when the node takes the message.
    _share: OwnedSemaphorePermit,
}

/// The message could not be handed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotDelivered {
    /// The lane is full.
    Full,
    /// The node is gone.
    Gone,
}

/// What the network tells the node, most urgent first: who comes and goes, then urgent messages, then bulk.
#[derive(Debug)]
pub struct NetworkEvents {
    control: mpsc::Receiver<NetworkEvent>,
    urgent: mpsc::Receiver<Received>,
    bulk: mpsc::Receiver<Received>,
    urgent_in_a_row: u32,
}

/// The network's end for who comes and goes, its end for messages, and the node's end. The events end with the first.
pub(super) fn channel(limits: InboxLimits) -> (mpsc::Sender<NetworkEvent>, Inbox, NetworkEvents) {
    let (control, control_events) = mpsc::channel(CONTROL_EVENTS);
    let (urgent, urgent_messages) = LaneInbox::new(limits.urgent_bytes);
    let (bulk, bulk_messages) = LaneInbox::new(limits.bulk_bytes);
    let events =
        NetworkEvents { control: control_events, urgent: urgent_messages, bulk: bulk_messages, urgent_in_a_row: 0 };
    (control, Inbox { urgent, bulk }, events)
}

impl LaneInbox {
    fn new(budget_bytes: usize) -> (Self, mpsc::Receiver<Received>) {
        let (messages, receiver) = mpsc::channel(MESSAGES_A_LANE);
        let budget_bytes = budget_bytes.min(Semaphore::MAX_PERMITS);
        (LaneInbox { messages, budget: Arc::new(Semaphore::new(budget_bytes)), budget_bytes }, receiver)
    }

    /// What a message takes of the budget: its bytes, but never more than there can be.
    fn share(&self, bytes: &Bytes) -> u32 {
        bytes.len().min(self.budget_bytes) as u32
    }
}

impl Inbox {
    fn lane(&self, lane: Lane) -> &LaneInbox {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Bulk => &self.bulk,
        }
    }

    /// Hands a message over, waiting while the lane is full: whoever reads a peer's lane stops reading meanwhile, and
    /// the peer has to wait.
    pub(super) async fn deliver(&self, lane: Lane, from: NodeId, bytes: Bytes) -> Result<(), NotDelivered> {
        let inbox = self.lane(lane);
        let share = inbox.budget.clone().acquire_many_owned(inbox.share(&bytes)).await;
        let share = share.map_err(|_| NotDelivered::Gone)?;
        inbox.messages.send(Received { from, bytes, _share: share }).await.map_err(|_| NotDelivered::Gone)
    }

    /// As [`Self::deliver`], but gives up instead of waiting.
    pub(super) fn try_deliver(&self, lane: Lane, from: NodeId, bytes: Bytes) -> Result<(), NotDelivered> {
        let inbox = self.lane(lane);
        let share = inbox.budget.clone().try_acquire_many_owned(inbox.share(&bytes));
        let share = share.map_err(|_| NotDelivered::Full)?;
        inbox.messages.try_send(Received { from, bytes, _share: share }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotDelivered::Full,
            mpsc::error::TrySendError::Closed(_) => NotDelivered::Gone,
        })
    }
}

impl NetworkEvents {
    /// The next event, most urgent first; none once the network has ended. Nothing is lost if the wait is cancelled.
    pub async fn next(&mut self) -> Option<NetworkEvent> {
        if let Some(event) = self.try_next() {
            return Some(event);
        }
        tokio::select! {
            biased;
            event = self.control.recv() => event,
            Some(message) = self.urgent.recv() => Some(self.urgent(message)),
            Some(message) = self.bulk.recv() => Some(self.bulk(message)),
        }
    }

    /// The next event if one is there already.
    pub fn try_next(&mut self) -> Option<NetworkEvent> {
        if let Ok(event) = self.control.try_recv() {
            return Some(event);
        }
        if self.urgent_in_a_row >= URGENT_IN_A_ROW {
            self.urgent_in_a_row = 0;
            if let Ok(message) = self.bulk.try_recv() {
                return Some(self.bulk(message));
            }
        }
        if let Ok(message) = self.urgent.try_recv() {
            return Some(self.urgent(message));
        }
        self.bulk.try_recv().ok().map(|message| self.bulk(message))
    }

    fn urgent(&mut self, message: Received) -> NetworkEvent {
        self.urgent_in_a_row += 1;
        NetworkEvent::Message { from: message.from, bytes: message.bytes }
    }

    fn bulk(&mut self, message: Received) -> NetworkEvent {
        self.urgent_in_a_row = 0;
        NetworkEvent::Message { from: message.from, bytes: message.bytes }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LIMITS: InboxLimits = InboxLimits { urgent_bytes: 1000, bulk_bytes: 10 };
    const PEER: NodeId = NodeId::example(1);

    fn message(text: &'static str) -> NetworkEvent {
        NetworkEvent::Message { from: PEER, bytes: Bytes::from_static(text.as_bytes()) }
    }

    fn deliver(inbox: &Inbox, lane: Lane, text: &'static str) -> Result<(), NotDelivered> {
        inbox.try_deliver(lane, PEER, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn who_comes_is_read_before_urgent_messages_and_those_before_bulk() {
        let (control, inbox, mut events) = channel(LIMITS);
        deliver(&inbox, Lane::Bulk, "bulk").expect("there is room");
        deliver(&inbox, Lane::Urgent, "urgent").expect("there is room");
        control.try_send(NetworkEvent::Connected(PEER)).expect("there is room");
        let read: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
        assert_eq!(read, [NetworkEvent::Connected(PEER), message("urgent"), message("bulk")]);
    }

    #[test]
    fn urgent_messages_without_end_do_not_starve_bulk() {
        let (_control, inbox, mut events) = channel(LIMITS);
        deliver(&inbox, Lane::Bulk, "bulk").expect("there is room");
        let waited = (0..).find(|_| {
            deliver(&inbox, Lane::Urgent, "urgent").expect("there is room");
            events.try_next() == Some(message("bulk"))
        });
        assert_eq!(waited, Some(URGENT_IN_A_ROW));
    }

    #[test]
    fn a_full_bulk_lane_makes_its_reader_wait_and_leaves_the_urgent_lane_open() {
        let (_control, inbox, mut events) = channel(LIMITS);
        deliver(&inbox, Lane::Bulk, "eight by").expect("there is room");
        assert_eq!(deliver(&inbox, Lane::Bulk, "tes"), Err(NotDelivered::Full));
        assert_eq!(deliver(&inbox, Lane::Urgent, "urgent"), Ok(()));
        let mut waits = std::pin::pin!(inbox.deliver(Lane::Bulk, PEER, Bytes::from_static(b"tes")));
        assert_eq!(waits.as_mut().now_or_never(), None, "it waits");
        assert_eq!(events.try_next(), Some(message("urgent")));
        assert_eq!(waits.as_mut().now_or_never(), None, "it still waits");
        assert_eq!(events.try_next(), Some(message("eight by")));
        assert_eq!(waits.now_or_never(), Some(Ok(())), "the node has taken the first");
    }

    #[test]
    fn a_message_larger_than_the_whole_budget_passes_alone() {
        let (_control, inbox, mut events) = channel(LIMITS);
        assert_eq!(deliver(&inbox, Lane::Bulk, "more than ten bytes"), Ok(()));
        assert_eq!(deliver(&inbox, Lane::Bulk, "x"), Err(NotDelivered::Full));
        assert_eq!(events.try_next(), Some(message("more than ten bytes")));
        assert_eq!(deliver(&inbox, Lane::Bulk, "x"), Ok(()));
    }
}
