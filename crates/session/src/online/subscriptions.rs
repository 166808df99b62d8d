//! What is subscribed on one connection.

use std::time::Instant;

use iothub::{Identity, topic::Filter};

use super::PacketIds;
use crate::{
    LossReason, Violation,
    lasting::{Out, release_if_empty},
    wire,
};

/// What a session wants to come down. Responses to twin requests always do.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Subscriptions {
    /// Cloud-to-device messages.
    pub cloud_messages: bool,
    /// Changes of the desired properties.
    pub desired: bool,
    /// Direct methods. As long as this holds the hub tells callers that the device is there.
    pub methods: bool,
}

/// One of the filters that a session uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Topic {
    Methods,
    TwinResponses,
    CloudMessages,
    Desired,
}

const TOPICS: [Topic; 4] = [
    Topic::Methods,
    Topic::TwinResponses,
    Topic::CloudMessages,
    Topic::Desired,
];

/// What the hub was told, and which of it is not acknowledged.
pub(super) struct Subscribed {
    /// By topic. None: not told anything on this connection, so the hub may remember an earlier one's.
    told: [Option<bool>; 4],
    pending: Vec<Pending>,
}

struct Pending {
    packet_id: u16,
    topics: Vec<Topic>,
    is_subscribe: bool,
    since: Instant,
}

impl Subscribed {
    pub(super) const fn new() -> Self {
        Self {
            told: [None; 4],
            pending: Vec::new(),
        }
    }

    /// Tells the hub what has to change. The packet about methods goes first: the hub remembers the subscription of
    /// the last connection, and must neither offer methods to a device that is away nor hide one that is there.
    pub(super) fn tell(
        &mut self,
        wanted: Subscriptions,
        identity: &Identity,
        ids: &mut PacketIds,
        out: &mut Out,
        now: Instant,
    ) {
        let mut change = |is_subscribe: bool| {
            let is_changed = |topic: &Topic| {
                topic.exists_for(identity)
                    && topic.is_wanted(wanted) == is_subscribe
                    && self.told[*topic as usize] != Some(is_subscribe)
            };
            let topics: Vec<Topic> = TOPICS.into_iter().filter(is_changed).collect();
            if topics.is_empty() {
                return;
            }
            let packet_id = ids.acquire();
            let packets = out.packets(now);
            let filters = topics.iter().map(|topic| topic.filter().encode(identity));
            if is_subscribe {
                let qos = topics.iter().map(|topic| topic.is_at_least_once());
                let filters: Vec<_> = filters.zip(qos).collect();
                wire::subscribe(packets, packet_id, &filters);
            } else {
                let filters: Vec<_> = filters.collect();
                wire::unsubscribe(packets, packet_id, &filters);
            }
            for topic in &topics {
                self.told[*topic as usize] = Some(is_subscribe);
            }
            self.pending.push(Pending {
                packet_id,
                topics,
                is_subscribe,
                since: now,
            });
        };
        change(wanted.methods);
        change(!wanted.methods);
    }

    /// What the hub was told to deliver.
    pub(super) fn current(&self) -> Subscriptions {
        Subscriptions {
            cloud_messages: self.is_on(Topic::CloudMessages),
            desired: self.is_on(Topic::Desired),
            methods: self.is_on(Topic::Methods),
        }
    }

    pub(super) fn on_suback(
        &mut self,
        packet_id: u16,
        granted: &[bool],
        ids: &mut PacketIds,
    ) -> Result<(), LossReason> {
        let topics = self.take_pending(packet_id, true, ids)?;
        if granted.len() != topics.len() {
            return Err(Violation::Malformed.into());
        }
        if granted.contains(&false) {
            return Err(LossReason::SubscriptionRefused);
        }
        Ok(())
    }

    pub(super) fn on_unsuback(
        &mut self,
        packet_id: u16,
        ids: &mut PacketIds,
    ) -> Result<(), LossReason> {
        self.take_pending(packet_id, false, ids).map(drop)
    }

    fn take_pending(
        &mut self,
        packet_id: u16,
        is_subscribe: bool,
        ids: &mut PacketIds,
    ) -> Result<Vec<Topic>, LossReason> {
        let place = self
            .pending
            .iter()
            .position(|pending| {
                pending.packet_id == packet_id && pending.is_subscribe == is_subscribe
            })
            .ok_or(Violation::UnknownPacketId)?;
        ids.release(packet_id);
        let pending = self.pending.remove(place);
        release_if_empty(&mut self.pending);
        Ok(pending.topics)
    }

    /// Whether the hub was told to deliver this, and so does or soon will.
    pub(super) fn is_on(&self, topic: Topic) -> bool {
        self.told[topic as usize] == Some(true)
    }

    /// Whether the hub has acknowledged all that it was told about this.
    pub(super) fn is_acknowledged(&self, topic: Topic) -> bool {
        !self
            .pending
            .iter()
            .any(|pending| pending.topics.contains(&topic))
    }

    /// Since when the oldest packet has no acknowledgement.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending.first().map(|pending| pending.since)
    }
}

impl Topic {
    /// Cloud-to-device messages are for devices only, and a hub closes the connection on a filter that the identity
    /// may not have, in UNSUBSCRIBE as in SUBSCRIBE (azure-iot-middleware-freertos PR 89).
    fn exists_for(self, identity: &Identity) -> bool {
        match self {
            Self::CloudMessages => identity.module_id().is_none(),
            Self::Methods | Self::TwinResponses | Self::Desired => true,
        }
    }

    const fn is_wanted(self, wanted: Subscriptions) -> bool {
        match self {
            Self::Methods => wanted.methods,
            Self::TwinResponses => true,
            Self::CloudMessages => wanted.cloud_messages,
            Self::Desired => wanted.desired,
        }
    }

    const fn filter(self) -> Filter {
        match self {
            Self::Methods => Filter::Methods,
            Self::TwinResponses => Filter::TwinResponses,
            Self::CloudMessages => Filter::CloudMessages,
            Self::Desired => Filter::DesiredPatches,
        }
    }

    /// The hub publishes the others with QoS 0 whatever was subscribed (`az_iot_hub_client.h` of the Embedded C SDK).
    const fn is_at_least_once(self) -> bool {
        match self {
            Self::CloudMessages => true,
            Self::Methods | Self::TwinResponses | Self::Desired => false,
        }
    }
}
