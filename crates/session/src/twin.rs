//! Twin requests.
//!
//! A request is done by its response, never by a PUBACK, so it goes out with QoS 0, as Azure's C and Node SDKs do.
//! A read without a response is asked again on the same connection: reading twice harms nobody. A patch is not: it
//! may have been applied, and applied again behind a later one it would undo that. For the same reason one patch at
//! a time is unanswered. It is asked again on the next connection, where it is again the first.
//!
//! Patches that may be joined go out as one when they wait behind one another. The last that waits takes those that
//! follow it, as long as nothing stands between and both together are a patch.
//!
//! Request ids start at a random number, so that an answer meant for an earlier process, which a hub that remembers
//! the session may still deliver, fits no request.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use iothub::{
    topic::{RequestId, ToHub},
    twin::{ReportedPatch, Twin, TwinVersion},
};

use crate::{
    Event, TwinError, WorkId,
    lasting::{Out, release_if_empty},
    wire::{self, Delivery},
};

/// The requests, oldest first.
pub(crate) struct TwinRequests {
    requests: VecDeque<Request>,
    next_rid: u64,
}

struct Request {
    /// One, but for patches that were joined.
    ids: Vec<WorkId>,
    body: Body,
    asked: Option<Asked>,
}

enum Body {
    Get,
    Patch {
        patch: ReportedPatch,
        may_be_joined: bool,
    },
}

/// A request that is on its way on the connection in use.
struct Asked {
    rid: u64,
    since: Instant,
    /// How often, and when next; a patch is asked once.
    times: u32,
    again_at: Option<Instant>,
}

impl TwinRequests {
    pub(crate) const fn new(first_rid: u64) -> Self {
        Self {
            requests: VecDeque::new(),
            next_rid: first_rid,
        }
    }

    pub(crate) fn push_get(&mut self, id: WorkId) {
        self.push(id, Body::Get);
    }

    pub(crate) fn push_patch(&mut self, id: WorkId, patch: ReportedPatch) {
        let body = Body::Patch {
            patch,
            may_be_joined: false,
        };
        self.push(id, body);
    }

    /// Adds a patch that may be joined to others; true if it was, so that it takes no room.
    pub(crate) fn join_patch(&mut self, id: WorkId, patch: &ReportedPatch) -> bool {
        let last = self
            .requests
            .back_mut()
            .filter(|request| request.asked.is_none());
        if let Some(Request {
            ids,
            body:
                Body::Patch {
                    patch: earlier,
                    may_be_joined: true,
                },
            ..
        }) = last
            && let Some(joined) = earlier.then(patch)
        {
            *earlier = joined;
            ids.push(id);
            return true;
        }
        false
    }

    pub(crate) fn push_joinable_patch(&mut self, id: WorkId, patch: ReportedPatch) {
        let body = Body::Patch {
            patch,
            may_be_joined: true,
        };
        self.push(id, body);
    }

    fn push(&mut self, id: WorkId, body: Body) {
        self.requests.push_back(Request {
            ids: vec![id],
            body,
            asked: None,
        });
    }

    /// Asks what may be asked and is not yet.
    pub(crate) fn ask(&mut self, timeout: Duration, out: &mut Out, now: Instant) {
        let mut may_patch = !self.requests.iter().any(Request::is_unanswered_patch);
        for request in &mut self.requests {
            if request.asked.is_some() {
                continue;
            }
            let again_at = match request.body {
                Body::Get => Some(now + timeout),
                Body::Patch { .. } if may_patch => {
                    may_patch = false;
                    None
                }
                Body::Patch { .. } => continue,
            };
            let asked = Asked {
                rid: self.next_rid,
                since: now,
                times: 1,
                again_at,
            };
            self.next_rid = self.next_rid.wrapping_add(1);
            request.body.publish(asked.rid, out, now);
            request.asked = Some(asked);
        }
    }

    /// Asks again what has waited too long, each time with more patience: a slow hub must not be asked ever more.
    pub(crate) fn ask_again(&mut self, timeout: Duration, out: &mut Out, now: Instant) {
        for request in &mut self.requests {
            let Some(asked) = &mut request.asked else {
                continue;
            };
            if asked.again_at.is_some_and(|at| at <= now) {
                asked.times = asked.times.saturating_add(1);
                asked.again_at = Some(now + timeout.saturating_mul(asked.times));
                request.body.publish(asked.rid, out, now);
            }
        }
    }

    /// Reacts to a response. False: no request waits for it.
    pub(crate) fn on_response(
        &mut self,
        rid: &RequestId,
        status: u16,
        version: Option<TwinVersion>,
        body: &[u8],
        out: &mut Out,
    ) -> bool {
        let Some(request) = self.take_asked(rid) else {
            return false;
        };
        let refused = || TwinError::Refused {
            status,
            error: serde_json::from_slice(body).ok(),
        };
        let is_success = (200..300).contains(&status);
        for id in request.ids {
            out.push(match request.body {
                Body::Get => Event::TwinRead {
                    id,
                    result: if is_success {
                        Twin::parse(body).map(Box::new).map_err(TwinError::from)
                    } else {
                        Err(refused())
                    },
                },
                Body::Patch { .. } => Event::ReportedPatched {
                    id,
                    result: if is_success {
                        Ok(version)
                    } else {
                        Err(refused())
                    },
                },
            });
        }
        true
    }

    /// The request that waits for this response.
    fn take_asked(&mut self, rid: &RequestId) -> Option<Request> {
        let rid = u64::from_str_radix(rid.as_str(), 16).ok()?;
        let place = self
            .requests
            .iter()
            .position(|request| request.asked.as_ref().is_some_and(|asked| asked.rid == rid))?;
        let request = self.requests.remove(place);
        release_if_empty(&mut self.requests);
        request
    }

    /// The connection has ended, and with it all chance of a response.
    pub(crate) fn on_disconnected(&mut self) {
        for request in &mut self.requests {
            request.asked = None;
        }
    }

    pub(crate) fn cancel(&mut self, id: WorkId) {
        self.requests.retain_mut(|request| {
            request.ids.retain(|other| *other != id);
            !request.ids.is_empty()
        });
    }

    /// Forgets everything; returns what it was.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = WorkId> {
        std::mem::take(&mut self.requests)
            .into_iter()
            .flat_map(|request| request.ids)
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Since when the oldest request that is asked has no response.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let asked = self
            .requests
            .iter()
            .filter_map(|request| request.asked.as_ref());
        asked.map(|asked| asked.since).min()
    }

    /// When something is to be asked again.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        let asked = self
            .requests
            .iter()
            .filter_map(|request| request.asked.as_ref());
        asked.filter_map(|asked| asked.again_at).min()
    }
}

impl Request {
    fn is_unanswered_patch(&self) -> bool {
        matches!(self.body, Body::Patch { .. }) && self.asked.is_some()
    }
}

impl Body {
    fn publish(&self, rid: u64, out: &mut Out, now: Instant) {
        let rid = RequestId::from(rid);
        let (topic, body) = match self {
            Self::Get => (ToHub::TwinGet { rid }, Vec::new()),
            Self::Patch { patch, .. } => (ToHub::TwinPatchReported { rid }, patch.to_json()),
        };
        wire::publish(
            out.packets(now),
            &topic.encode(),
            &body,
            Delivery::AtMostOnce,
        );
    }
}
