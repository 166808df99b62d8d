//! Bodies of requests: how large one may be, how slowly it may come, and how much all of them may take together.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{extract::BadRequest, problem::Refusal};
use crate::config::Waits;

/// Reads bodies.
pub(crate) struct Bodies {
    waits: Waits,
    /// A permit for each byte that has come of a body that has not come as a whole. What is whole belongs to its
    /// request, whose number has a limit of its own.
    room: Semaphore,
    last_call: CancellationToken,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than it may be.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The most.
        limit: usize,
    },
    /// It did not come in time.
    #[error("the body came too slowly")]
    TooSlow,
    /// It ended in the middle.
    #[error("the body could not be read: {0}")]
    Broken(hyper::Error),
    /// Others take the memory.
    #[error("the gateway is reading as many bytes of bodies as it may")]
    NoRoom,
    /// It had not come when the gateway had to stop.
    #[error("the gateway stopped before the whole body had come")]
    Stopping,
}

impl Bodies {
    /// `room`: bytes of all bodies that are being read. What has not come at the last call is not waited for.
    pub(crate) fn new(room: usize, waits: Waits, last_call: CancellationToken) -> Self {
        Self {
            waits,
            room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)),
            last_call,
        }
    }

    /// Reads a body. A declared length is judged before the first byte is read.
    pub(crate) async fn read(&self, mut body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
        let too_large = BodyError::TooLarge { limit };
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large);
        }
        let start = Instant::now();
        let mut taken = self.take(0)?;
        let mut received = Bytes::new();
        let mut joined = BytesMut::new();
        while !body.is_end_stream() {
            let length = received.len() + joined.len();
            let frame = tokio::select! {
                biased;
                frame = timeout_at(start + self.pace(length), body.frame()) => frame,
                () = self.last_call.cancelled() => return Err(BodyError::Stopping),
            };
            let Some(frame) = frame.map_err(|_| BodyError::TooSlow)? else {
                break;
            };
            // Trailers say nothing to us.
            let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
                continue;
            };
            if length + data.len() > limit {
                return Err(too_large);
            }
            taken.merge(self.take(data.len())?);
            if length == 0 {
                // Most bodies come in one piece, which needs no copy.
                received = data;
            } else {
                if joined.is_empty() {
                    joined.extend_from_slice(&std::mem::take(&mut received));
                }
                joined.extend_from_slice(&data);
            }
        }
        Ok(if joined.is_empty() {
            received
        } else {
            joined.freeze()
        })
    }

    /// Reads a body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        body: Incoming,
        limit: usize,
    ) -> Result<T, Refusal> {
        let body = self.read(body, limit).await?;
        Ok(serde_json::from_slice(&body).map_err(BadRequest::Json)?)
    }

    /// Takes room for bytes that have come: what a client declares and does not send takes nobody's room.
    fn take(&self, bytes: usize) -> Result<SemaphorePermit<'_>, BodyError> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::NoRoom)?;
        let room = self.room.try_acquire_many(bytes);
        room.map_err(|_| BodyError::NoRoom)
    }

    /// When the next piece has to come: after a grace, a body must have come at the least pace.
    fn pace(&self, received: usize) -> Duration {
        let earned = Duration::from_secs(received as u64 / LEAST_BYTES_PER_SECOND);
        (self.waits.body_grace + earned).min(self.waits.body)
    }
}

/// "Body minimum 1 KiB/s after 10 s": slower clients are attacks, or would not finish anyway.
const LEAST_BYTES_PER_SECOND: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_keep_a_pace() {
        let bodies = Bodies::new(usize::MAX, Waits::default(), CancellationToken::new());
        assert_eq!(bodies.pace(0).as_secs(), 10);
        assert_eq!(bodies.pace(1023).as_secs(), 10);
        assert_eq!(bodies.pace(1024).as_secs(), 11);
        assert_eq!(bodies.pace(262_144).as_secs(), 120);
    }
}
